"""The documentation as static files: ``python tests/build_docs.py FOLDER``.

Pages are the opening of the README, the guide, the results, the notebooks with their stored outputs,
and the docstrings. They are put together in a folder of their own, in which links between files of the repository lead
to pages, and built by Sphinx; ``tests/docs`` has its settings. Warnings are errors: a link or a name that leads
nowhere, a page in no table. Nothing is loaded from elsewhere: equations are MathML, and the search works offline.
"""

import argparse
import base64
import importlib
import json
import pkgutil
import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "discrete_itd" / "guide"
BENCHMARKS = ROOT / "tests" / "benchmarks"
# the pages of the guide in their order, and what they are about
ORDER = ["pilot", "wrong_cells", "rules", "draw", "anomalies", "thresholds", "tables"]
ORDER += ["which_model", "how_it_works", "command"]
ORDER += ["scale", "images", "what_else", "questions", "coming_from"]
ELSEWHERE = re.compile(r'<(?:script|img|link)\b[^>]*\b(?:src|href)="(?:https?:)?//')
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[\w-]+)?\)")


def pages():
    """Where each file of the repository lies on the site, without its suffix."""
    found = {path: f"guide/{path.stem}" for path in GUIDE.glob("*.md")}
    found[GUIDE / "README.md"] = "guide/index"
    found |= {path: f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    for name in ("RESULTS", "GUARANTEES", "PEERS"):
        found[BENCHMARKS / f"{name}.md"] = f"contributing/{name.lower()}"
    found[ROOT / "CONTRIBUTING.md"] = "contributing/index"
    found[ROOT / "CHANGELOG.md"] = "contributing/changelog"
    return found


def linked(text, home):
    """Markdown of a file whose links to other files of the repository lead to their pages, and pictures to copies."""
    where = pages()

    def page(link):
        path = (home.parent / link[1]).resolve()
        target = where.get(path)
        if target is None and path.suffix == ".png":
            target, suffix = f"notebooks/{path.stem}", ".png"
        elif target is None:
            return link[0]  # Sphinx says that it leads nowhere
        else:
            suffix = path.suffix
        return f"](/{target}{suffix}{link[2] or ''})"

    return LINK.sub(page, text)


def collect(source):
    """Put all pages into a folder."""
    shutil.copytree(ROOT / "tests" / "docs", source, dirs_exist_ok=True)
    for path, page in pages().items():
        target = source / f"{page}{path.suffix}"
        target.parent.mkdir(exist_ok=True)
        text = linked(path.read_text(), path)
        target.write_text(re.sub(r"\n\n( *```\n)", r"\n\1", text))  # the line that ends a doctest
    first = source / "index.md"
    opening = (ROOT / "README.md").read_text().partition("\n## ")[0]
    first.write_text(f"{linked(opening, ROOT / 'README.md')}\n\n{first.read_text()}")
    for picture in (ROOT / "notebooks").glob("*.png"):
        shutil.copy(picture, source / "notebooks")
    append(source / "guide" / "index.md", toctree(ORDER))
    append(
        source / "contributing" / "index.md",
        toctree(["results", "guarantees", "peers", "changelog", "modules"]),
    )
    (source / "contributing" / "modules.md").write_text(modules())
    (source / "notebooks" / "index.md").write_text(gallery(source / "notebooks"))


def append(page, text):
    page.write_text(f"{page.read_text()}\n{text}\n")


def toctree(names):
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])


def modules():
    """What is where in the package: the docstrings of all modules, the names of those that one's own parts use."""
    package = importlib.import_module("discrete_itd")
    names = [m.name for m in pkgutil.walk_packages(package.__path__, "discrete_itd.")]
    internal = [n for n in names if n not in (*PUBLIC, *FOR_PARTS) and "__main__" not in n]
    return "\n\n".join(
        [
            "# Modules",
            "For parts of your own; the public names are in the [reference](/reference.md).",
            summary(FOR_PARTS, "autosummary/module.rst"),
            "All others, by what their docstrings say:",
            summary(internal, "autosummary/words.rst"),
        ]
    )


def summary(names, template):
    """A table of modules, each with a page of its own."""
    options = f":toctree: generated\n   :template: {template}\n"
    listed = "".join(f"\n   {name}" for name in names)
    return f"```{{eval-rst}}\n.. autosummary::\n   {options}{listed}\n```"


PUBLIC = [
    f"discrete_itd.{name}"
    for name in ("recipes", "datasets", "plots", "scale", "testing", "detection.pyod")
]
FOR_PARTS = [
    f"discrete_itd.{name}"
    for name in ("channel", "denoisers", "encoders", "likelihood", "training")
]


def gallery(folder):
    """A card for each notebook: its title, first sentence and first picture."""
    cards = ["# Notebooks", "::::{grid} 1 2 2 3\n:gutter: 3\n"]
    stems = sorted(path.stem for path in folder.glob("*.ipynb"))
    for stem in stems:
        cells = json.loads((folder / f"{stem}.ipynb").read_text())["cells"]
        text = "".join(cells[0]["source"]).split("\n\n")
        outputs = [o.get("data", {}) for cell in cells for o in cell.get("outputs", [])]
        picture = next((o["image/png"] for o in outputs if "image/png" in o), None)
        shown = []
        if picture:
            (folder / f"{stem}_card.png").write_bytes(base64.b64decode("".join(picture)))
            shown = [f":img-top: {stem}_card.png"]
        sentence = " ".join(text[1].split()) if len(text) > 1 else ""
        card = [
            f":::{{grid-item-card}} {text[0].lstrip('# ')}",
            f":link: {stem}",
            ":link-type: doc",
        ]
        cards.append(
            "\n".join([*card, *shown, "", f"{sentence.split('. ')[0].rstrip('.')}.", ":::"])
        )
    return "\n".join([*cards, "::::", "", toctree(stems)])


def build(folder):
    """Write the site into a folder; RuntimeError if anything leads nowhere."""
    from sphinx.cmd.build import build_main

    with tempfile.TemporaryDirectory() as source:
        collect(Path(source))
        if build_main(["-q", "-W", "--keep-going", "-b", "html", source, str(folder)]):
            raise RuntimeError("the site is not whole: see above")
    for page in Path(folder).rglob("*.html"):
        if ELSEWHERE.search(page.read_text()):
            raise RuntimeError(f"{page}: a script, picture or style sheet of another host")
    for path in GUIDE.glob("*.md"):  # for assistants, as Markdown
        shutil.copy(path, Path(folder) / "guide")
    listed = (GUIDE / "llms.txt").read_text().replace("](", "](guide/")
    (Path(folder) / "llms.txt").write_text(listed)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    build(parser.parse_args().folder)
