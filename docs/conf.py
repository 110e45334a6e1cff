"""How Sphinx builds these pages: ``make docs``. Nothing is fetched from the net.

The pages in ``zh`` are a build of their own, with this file and ``-D language=zh_CN``.
"""

import sys
from pathlib import Path

from pallets_sphinx_themes import get_version

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "Flask-WxJsApi"
release, version = get_version("Flask-WxJsApi")
copyright = "the authors of Flask-WxJsApi"  # noqa: A001 - Sphinx wants it under this name

extensions = [
    "sphinx.ext.autodoc",
    "pallets_sphinx_themes",
    "_sphinx.chinese",
    "_sphinx.codes",
    "_sphinx.languages",
]
exclude_patterns = ["_build", "zh"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

html_theme = "flask"
html_title = "Flask-WxJsApi"
html_show_sourcelink = False
html_show_copyright = False
html_static_path = [str(HERE / "_static")]
html_css_files = ["docs.css", ("dark.css", {"media": "(prefers-color-scheme: dark)"})]
templates_path = [str(HERE / "_templates")]
html_theme_options = {"globaltoc_maxdepth": "1"}  # without it the 404 page fails
html_sidebars = {
    "index": ["globaltoc.html", "searchbox.html"],
    "**": ["localtoc.html", "relations.html", "globaltoc.html", "searchbox.html"],
}
version_banner = False  # it would ask a package registry from the reader's browser
