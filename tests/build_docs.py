"""The documentation as a site, from the docstrings and the user guide: ``python tests/build_docs.py FOLDER``.

Warnings are errors, and so are references to names that are not there and formulas that Markdown would take apart.
"""

import argparse
import html
import json
import pkgutil
import re
import sys
import warnings
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import pdoc
import pdoc.doc
import pdoc.docstrings
import pdoc.extract
import pdoc.render
import pdoc.render_helpers

ROOT = Path(__file__).parents[1]
PACKAGE = "discrete_itd"
CONVERT = pdoc.docstrings.convert
DIRECTIVE = re.compile(r"^( *)\.\. math::.*(?:\n\1 +.+)*", re.MULTILINE)
BESIDE_RESULTS = [ROOT / "tests" / "benchmarks" / name for name in ("guarantees.md", "peers.md")]
LINK = re.compile(r"\]\((?:[./\w]+/)?(?!RESULTS)(\w+)\.(?:md|ipynb)\)")
FORMULA = re.compile(r"\$\$.*?\$\$|\\\\\(.*?\\\\\)", re.DOTALL)
BROKEN = re.compile(r"</?(em|strong|code|a)\b|(?<!\\)#|\\q?quad[A-Za-z]")


def guide():
    """Pages of the guide, two beside the results and notebooks, as docstrings of modules below "discrete_itd.guide"."""
    paths = [*(ROOT / PACKAGE / "guide").glob("*.md"), *BESIDE_RESULTS]
    texts = {path.stem: path.read_text() for path in paths}
    texts |= {path.stem: of_notebook(path) for path in (ROOT / "notebooks").glob("*.ipynb")}
    pages = {}
    for stem, text in sorted(texts.items(), key=lambda page: (page[0] != "README", page[0])):
        name, folder = f"{PACKAGE}.guide.{stem}", ""
        if stem == "README":
            name, folder = f"{PACKAGE}.guide", "guide/"
        # links lead to pages of the site
        pages[name] = ModuleType(name, LINK.sub(rf"]({folder}\1.html)", text))
        pages[name].__path__ = []
    return pages


def of_notebook(path):
    """A notebook as Markdown: its text, code, printed output and figures."""
    parts = [f"# {path.stem}"]
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text = re.sub(r"^#", "##", text, flags=re.MULTILINE)
            parts.append(re.sub(r"(?<!\$)\$([^$]+)\$(?!\$)", r"\\\\(\1\\\\)", text))
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(
                    f"![figure](data:image/png;base64,{''.join(data['image/png']).strip()})"
                )
            else:
                printed = "".join(output.get("text") or data.get("text/plain", "")).rstrip()
                parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts)


def submodules(self):
    """All modules of a package, whatever its ``__all__`` exports, and below the package itself the guide."""
    found = pkgutil.iter_modules(self.obj.__path__) if self.is_package else []
    names = [f"{self.modulename}.{m.name}" for m in found if not m.name.startswith("_")]
    names += [name for name in guide() if name.rpartition(".")[0] == self.modulename]
    return [pdoc.doc.Module.from_name(name) for name in names]


def modules():
    """Names of all modules of the package, itself first."""
    package = import_module(PACKAGE)
    below = pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")
    names = [m.name for m in below if not m.name.endswith("__main__")]
    for module in map(import_module, (PACKAGE, *names)):
        for name in getattr(module, "__all__", ()):
            getattr(module, name)  # some are imported when they are first used
    return [PACKAGE, *guide(), *names]


def resolve_named_tuples(names):
    """Types of the fields of named tuples, whose constructor lies in a module where their names mean nothing."""
    for name in names:
        for value in vars(import_module(name)).values():
            if isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
                value.__new__.__annotations__ = get_type_hints(value)


def converted(docstring, docformat, source_file):
    """As pdoc does it, but roles may span lines, and have a tilde."""

    def in_one_line(role):
        return f":{role[1]}:`{' '.join(role[2].removeprefix('~').split())}`"

    text = re.sub(r":(\w+):`([^`]+)`", in_one_line, docstring)
    # pdoc joins the lines of a formula without a space between them
    text = DIRECTIVE.sub(lambda found: " ".join(found[0].split("\n")), text)
    return FORMULA.sub(escaped, CONVERT(text, docformat, source_file))


def escaped(formula):
    """A formula of Markdown whose backslashes before punctuation survive it."""
    return re.sub(r"\\([#{}_*!])", r"\\\\\1", formula[0])


def dangling(page):
    """Names of this package on a page that lead nowhere."""
    text = page.read_text()
    roles = re.findall(r":(?:math|mod|class|func|meth|attr|data|obj):\S*", text)
    return roles + re.findall(r"<code>(~?discrete_itd\.[\w.]+)(?:\(\))?</code>", text)


def of_missing_engine(message):
    """Whether pdoc only lacks a type of an engine that is not installed: CI has none of them."""
    lacking = [name for name in ("dask", "pyspark", "ray") if find_spec(name) is None]
    return "type annotation" in message and any(name in message for name in lacking)


def taken_apart(page):
    """Formulas on a page that Markdown has put tags in or taken backslashes from."""
    formulas = re.findall(r"\\\(.*?\\\)|\$\$.*?\$\$", page.read_text(), re.DOTALL)
    return [f for f in map(html.unescape, formulas) if BROKEN.search(f)]


def build(folder, only=None):
    """Write the site, or ``only`` some modules of it, into a folder; ValueError with all that is wrong."""
    pdoc.doc.Module.submodules = cached = cached_property(submodules)
    cached.__set_name__(pdoc.doc.Module, "submodules")
    pdoc.extract.walk_specs = list  # the names are all there: it would look for more in __all__
    pdoc.render_helpers.docstrings.convert = converted
    version = import_module(PACKAGE).__version__
    pdoc.render.configure(
        docformat="numpy", math=True, show_source=False, footer_text=f"discrete_itd {version}"
    )
    sys.modules.update(guide())
    resolve_named_tuples(modules())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pdoc.pdoc(*(only or modules()), output_directory=Path(folder))
    if only is None:  # the first page is for users
        first = '<meta http-equiv="refresh" content="0; url=discrete_itd/guide.html"/>'
        (Path(folder) / "index.html").write_text(f"<!doctype html>\n{first}\n")
    wrong = [str(w.message) for w in caught if not of_missing_engine(str(w.message))]
    for page in sorted(Path(folder).rglob("*.html")):
        found = taken_apart(page) + (dangling(page) if only is None else [])
        wrong += [f"{page.name}: {what}" for what in sorted(set(found))]
    if wrong:
        raise ValueError("\n".join(wrong))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
