"""Settings of Sphinx. The folder of sources is made by ``python -m docs.site``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

import recsys_rl  # noqa: E402
from docs.site.chapters import linked  # noqa: E402


def public() -> dict[str, str]:
    """The full name of each public name, to which its link leads."""
    dicts = {"AGENTS": "recsys_rl.agents", "PLATFORMS": "recsys_rl.env", "SOURCES": "recsys_rl.data"}
    home = {name: getattr(getattr(recsys_rl, name), "__module__", None) for name in recsys_rl.__all__} | dicts
    return {name: f"{home[name]}.{name}" for name in recsys_rl.__all__}


def first_sentence(docstring: str) -> str:
    """The first line of a docstring, for a list of modules."""
    return docstring.strip().partition("\n")[0].removesuffix("::")


def prepare(jinja_env: Any) -> None:
    """What the templates use beside the names of the package."""
    jinja_env.globals |= {
        "public": {"recsys_rl": public()},
        "first_sentence": first_sentence,
        "linked": linked,
    }


project = "recsys_rl"
author = "the recsys_rl contributors"
copyright = author
version = release = recsys_rl.__version__

extensions = [
    "myst_nb",
    "autoapi.extension",
    "sphinx.ext.napoleon",  # the parts "Args" of docstrings
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinxcontrib.mermaid",
]
html_theme = "furo"
html_title = f"recsys_rl {version}"
html_static_path = [str(HERE / "look.css")]
html_css_files = ["look.css"]
html_copy_source = False
html_baseurl = os.environ.get("SITE_URL", "")
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

# Markdown
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math", "mermaid"]
myst_heading_anchors = 4  # those of GitHub
myst_dmath_double_inline = True
nb_execution_mode = "off"  # docs/site/notebooks.py has run them
nb_merge_streams = True
nb_output_stderr = "remove"  # progress
mermaid_height = "auto"
mermaid_fullscreen = False
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .go"

# The API
default_role = "code"  # `name` in a docstring
napoleon_numpy_docstring = False
autoapi_dirs = [str(ROOT / "recsys_rl")]
autoapi_root = "api"
autoapi_template_dir = str(HERE / "templates")
autoapi_add_toctree_entry = False
autoapi_options = ["members", "undoc-members", "show-inheritance"]
autoapi_member_order = "bysource"
autoapi_python_class_content = "both"
autoapi_prepare_jinja_env = prepare
# autoapi does not see names that are made by unpacking, as in `A, B = 1, 2`, and so not their imports.
# An annotation has the short name of a class, and several modules may have one of that name.
suppress_warnings = ["autoapi.python_import_resolution", "ref.python"]
