"""client.js in its forms: one text, which differs in what it knows of itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

#: The script's own address, which no element of the page can forge as ``document.currentScript``.
_OWN = '(Reflect.get(Document.prototype, "currentScript", document) || {}).src'
_JSSDK = '["https://res.wx.qq.com/…"]'
_COMMENT = re.compile(r"^\s*(/\*.*?\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)


def client_types() -> str:
    """The text of ``client.d.ts``."""
    return _file("client.d.ts")


def client_script(jssdk_urls: Iterable[str]) -> str:
    """The text of ``client.js``.

    :param jssdk_urls: where it loads the JS-SDK from, the next where one fails.
    """
    return _file("client.js").replace(_JSSDK, htmlsafe_json_dumps([*jssdk_urls]))


def client_module(jssdk_urls: Iterable[str]) -> str:
    """The text of ``client.mjs``: the same, with a name to import."""
    text = client_script(jssdk_urls).replace(_OWN, "import.meta.url")
    return text.replace("(function (own", "export const { config } = (function (own")


@lru_cache(8)
def client_name(jssdk_urls: tuple[str, ...]) -> str:
    """``client.js`` as pages ask for it: under a name that changes with its text, since a browser
    may have kept that of another version.
    """
    digest = hashlib.sha256(client_script(jssdk_urls).encode()).hexdigest()
    return f"client.js?{digest[:8]}"


@lru_cache(8)
def client_inline(jssdk_urls: tuple[str, ...]) -> Markup:
    """The same inside a page, where there is no address to load it from; without comments."""
    text = _COMMENT.sub("", client_script(jssdk_urls).replace(_OWN, "null"))
    return Markup(re.sub(r"^ +", "", text, flags=re.MULTILINE).rstrip())  # noqa: S704 - a file of ours


@lru_cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
