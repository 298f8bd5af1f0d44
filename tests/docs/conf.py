"""Settings of the site; ``tests/build_docs.py`` puts its pages together and calls Sphinx."""

import pkgutil
import re
from functools import cache
from importlib import import_module

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util.nodes import make_refnode

import discrete_itd

project = "discrete_itd"
author = "the discrete_itd developers"
version = release = discrete_itd.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
]
templates_path = ["_templates"]

# names of this package must lead somewhere; those of others are not looked up
nitpicky = True
autodoc_typehints = "none"  # numpydoc says the types, with shapes
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
myst_links_external_new_tab = True
nb_execution_mode = "off"  # the notebooks' outputs are kept, and checked by tests/run_notebooks.py
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_math_renderer = "mathml"  # read by every browser, without a script from elsewhere
html_static_path = ["_static"]
html_css_files = ["site.css"]
toc_object_entries_show_parents = "hide"
html_theme = "pydata_sphinx_theme"
html_title = f"discrete_itd {version}"
html_theme_options = {
    "navbar_align": "left",
    "show_prev_next": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False
html_copy_source = False
copyright = "the discrete_itd developers, MIT licence"


def setup(app):
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("missing-reference", within_the_package)
    app.connect("autodoc-skip-member", requests_of_metadata)


def mathml(translator, node):
    """Write an equation, alone or within a line, as MathML."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def requests_of_metadata(_app, _what, name, *_):
    """scikit-learn adds a method for each argument of each method; they are its own to document."""
    return True if re.fullmatch("get_metadata_routing|set_.*_request|set_output", name) else None


def within_the_package(app, env, node, contnode):
    """A public name leads to the reference, others that the package has are code; of what it lacks, Sphinx warns."""
    names = node["reftarget"].lstrip("~.").removeprefix(f"{project}.").split(".")
    for start, name in enumerate(names):
        if name in discrete_itd.__all__:
            target = ".".join([project, *names[start:]])
            found = env.get_domain("py").find_obj(env, None, None, target, None, 0)
            if found:
                home = found[0][1]
                return make_refnode(
                    app.builder, node["refdoc"], home.docname, home.node_id, contnode
                )
        own = [getattr(home, node.get("py:class") or "", None) for home in modules()]
        if any(has(home, names[start:]) for home in (*modules(), *filter(None, own))):
            return contnode
    return None


@cache
def modules():
    """Every module of the package."""
    names = [m.name for m in pkgutil.walk_packages(discrete_itd.__path__, f"{project}.")]
    return [import_module(name) for name in names if not name.endswith("__main__")]


def has(value, names):
    """Whether a module has the attribute of an attribute, and so on."""
    for name in names:
        if not hasattr(value, name) and name not in getattr(value, "__annotations__", {}):
            return False
        value = getattr(value, name, None)
    return True
