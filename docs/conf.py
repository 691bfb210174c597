"""Configuration of the site: `make docs` builds it into build/docs.

Every page is a file that can be opened without a server and without a network. Nothing here
compiles a program of JAX: the reference reads docstrings, and only the tutorials run code.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import longlag

ROOT = Path(__file__).resolve().parents[1]
# The extensions of this site, then the repository, whose experiments the tables come from.
sys.path[:0] = [str(ROOT / "docs" / "extensions"), str(ROOT)]
# For the kernels of the notebooks too.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "longlag"
author = "the longlag authors"
copyright = author
version = release = longlag.__version__
html_title = f"longlag {version}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "site_docstrings",
    "site_explorer",
    "site_links",
    "site_reference",
    "site_tables",
]
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["extensions"]
# A name in backticks links to the reference where there is such a name.
default_role = "py:obj"
smartquotes_action = "D"  # dashes alone: h' is the next state
add_module_names = False
toc_object_entries_show_parents = "hide"
# Equations and diagrams. A block of code names its language.
highlight_language = "text"
pygments_style = "friendly"
pygments_dark_style = "github-dark"

# Markdown. No mathematics: equations are plain Unicode, and MathJax would need a network.
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence"]
myst_heading_anchors = 3

# Notebooks. Outputs are kept until a code cell changes, `make clean` drops them.
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

# The reference.
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Class attributes", "Attributes")]
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0067b1",
        "color-brand-content": "#0067b1",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6db8ee",
        "color-brand-content": "#6db8ee",
    },
}
copybutton_exclude = ".linenos, .gp, .go"
