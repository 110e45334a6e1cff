"""Two languages: a switch on every page, and English where a Chinese page is missing.

The Chinese pages are built after the English ones, into a directory ``zh`` beside them.
"""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

#: Pages that Sphinx makes in every build.
_MADE = {"genindex", "search"}
NOT_FOUND = {
    "title": "页面不存在",
    "body": "<h1>页面不存在</h1><p>链接有误或页面已移走。</p>",
}


def is_chinese(app: Sphinx) -> bool:
    return app.config.language == "zh_CN"


def same_page(app: Sphinx, page: str) -> str:
    """Where the other language has this page, or else its front page."""
    other, path = (app.srcdir.parent, "../") if is_chinese(app) else (app.srcdir / "zh", "zh/")
    exists = page in _MADE or (other / f"{page}.rst").exists()
    return f"{path}{page if exists else 'index'}.html"


def add_switch(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    context["same_page"] = context["pathto"](same_page(app, page), 1)
    context["is_chinese"] = is_chinese(app)


def set_up_chinese(app: Sphinx, config: Config) -> None:
    """What no Chinese page has is looked up in the English build."""
    if is_chinese(app):
        config.notfound_context = NOT_FOUND
        config.intersphinx_mapping = {"english": ("..", str(app.outdir.parent / "objects.inv"))}
        config.intersphinx_disabled_reftypes = []  # pages too


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.intersphinx")
    app.connect("config-inited", set_up_chinese, priority=100)  # before intersphinx reads it
    app.connect("html-page-context", add_switch, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
