"""The script tags of a page: what ``wx_script()`` puts into it, and safely."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urljoin

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from .url import shared_url

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SHARE_FIELDS = ("title", "desc", "link", "imgUrl")


def share_card(page: str, share: Mapping[str, str | None]) -> dict[str, str]:
    """A share card as WeChat wants it: with a link, and with whole URLs.

    :param page: the URL of the page, which is the link where there is none, without what is its
        visitor's.
    :param share: a field that is None is left out.
    :raises RuntimeError: for a field that cannot be right, quoting it.
    """
    if not isinstance(share, Mapping):
        text = f"with {', '.join(_SHARE_FIELDS)}, got {type(share).__name__}"
        raise RuntimeError(f"share must be a mapping {text}: share={{'title': …}}")
    card = {"link": shared_url(page)}
    for name, value in share.items():
        if name not in _SHARE_FIELDS:
            raise RuntimeError(f"share has no field {name!r}; it has {', '.join(_SHARE_FIELDS)}.")
        if isinstance(value, str):
            card[name] = value
        elif value is not None:
            raise RuntimeError(f"share's {name} must be a string, got {value!r}")
    for name in ("link", "imgUrl"):
        if name in card and not _ABSOLUTE.match(card[name]):
            try:
                card[name] = urljoin(page, card[name])
            except ValueError:
                pass  # no URL at all, such as "//[": left as it is; the phone passes over it
    return card


def warning(text: str) -> Markup:
    """A statement that says something in the browser's console."""
    return Markup("window.console&&console.warn(%s);") % htmlsafe_json_dumps(text)


def page_call(
    url: str,
    endpoint: str | None,
    config: Mapping[str, Any],
    share: Mapping[str, str] | None,
    share_calls: tuple[str, str],
) -> Markup:
    """The statement that hands ``wx.config`` and the share card to client.js, which runs them. An
    old browser that cannot read that script runs them as they stand.

    :param url: what the config was signed for.
    :param endpoint: where the page can have itself signed again; None where it cannot.
    :param share: as :func:`share_card` made it; None for no card.
    :param share_calls: what sets the card for friends and the one for Moments.
    """
    run = Markup("wx.config(%s);") % htmlsafe_json_dumps(config)
    if share is not None:
        friends, moments = share_calls
        card = {name: value for name, value in share.items() if name != "desc"}
        run += Markup("wx.ready(function(){wx.%s(%s);wx.%s(%s);});") % (
            friends,
            htmlsafe_json_dumps(dict(share)),
            moments,
            htmlsafe_json_dumps(card),
        )
    page = Markup("{url:%s,endpoint:%s,early:[],run:function(wx){%s}}") % (
        htmlsafe_json_dumps(url),
        htmlsafe_json_dumps(endpoint),
        run,
    )
    return _CALL % page


#: A page that is put into another one may be there before the scripts it comes with: it waits for
#: client.js, and what its own scripts say to wx.ready() and wx.error() waits for the JS-SDK. Where
#: client.js has not come, or cannot be read, it runs as it stands.
_CALL = Markup(
    '(function(page){var isFirst=document.readyState==="loading",client=window.wxjsapi;'
    "function keep(name){return function(callback){page.early.push([name,callback])}}"
    "function run(page){var wx=window.wx;if(!wx||!wx.config)return;page.run(wx);"
    "page.early.splice(0).forEach(function(each){wx[each[0]](each[1])})}"
    'if(!isFirst)window.wx=window.wx||{ready:keep("ready"),error:keep("error")};'
    'if(client&&typeof client.push==="function")return client.push(page);'
    "if(isFirst)return run(page);"
    "client=window.wxjsapi=[page];"
    "setTimeout(function(){window.wxjsapi===client&&client.forEach(run)},10000)})(%s);"
)


def tags(
    sources: Iterable[str],
    spare: Iterable[str],
    more: Iterable[str | Markup],
    body: Markup,
    nonce: str | Callable[[], str] | None,
) -> Markup:
    """The tags that load scripts and then run some statements, in this order.

    :param sources: the scripts' URLs; the last one is the JS-SDK's.
    :param spare: where to load the JS-SDK from when that failed.
    :param more: scripts that build on the JS-SDK: their URLs, or Markup for statements.
    :param body: the statements.
    :param nonce: of the page's Content-Security-Policy; or what returns it.
    """
    if callable(nonce):  # Flask-Talisman's csp_nonce
        nonce = nonce()
    attribute = Markup(' nonce="%s"') % nonce if nonce else Markup()

    def load(source: str) -> Markup:
        return Markup('<script src="%s"%s></script>') % (source, attribute)

    def run(statements: Markup) -> Markup:
        return Markup("<script%s>%s</script>") % (attribute, statements)

    otherwise = [run(_SPARE % htmlsafe_json_dumps(str(load(source)))) for source in spare]
    rest = [run(each) if isinstance(each, Markup) else load(each) for each in more]
    return Markup("\n").join([*map(load, sources), *otherwise, *rest, run(body)])


#: The scripts that follow must find wx, so it is written; but never into a page that is finished,
#: or by a script that was put into it, which would wipe it. Trusted Types may be against it, too:
#: then client.js loads the script.
_SPARE = Markup(
    'try{window.wx||document.readyState!=="loading"||document.currentScript.async'
    "||document.write(%s)}catch(e){}"
)
