"""The signatures of ``wx.config`` and of a card."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1

_HALF = "has a character in it that no text has (half of a surrogate pair)."


def sign(*, ticket: str, noncestr: str, timestamp: int | str, url: str) -> str:
    """Sign a page for ``wx.config``.

    The four values go in as they are, unescaped; the order and the lower-case names are fixed.
    Source: appendix 1 of the JS-SDK documentation (附录1-JS-SDK使用权限签名算法).

    :param ticket: the ``jsapi_ticket``.
    :param noncestr: the random text that ``wx.config`` gets as ``nonceStr``.
    :param timestamp: Unix time in seconds, the same that ``wx.config`` gets.
    :param url: the page's URL exactly as the browser has it, without the hash.
    :returns: 40 hexadecimal digits.
    :raises RuntimeError: for a text that cannot be encoded; it quotes nothing.
    """
    try:
        return sign_page(ticket, noncestr, timestamp, url)
    except UnicodeEncodeError:  # which quotes the ticket
        del ticket  # a traceback shows what its frames hold
    raise RuntimeError(f"url or noncestr {_HALF}")


# SHA-1 is WeChat's choice and protects nothing of ours: hence usedforsecurity=False, without which
# a FIPS build refuses it. A copy of this costs less than a new one.
_SHA1 = sha1(usedforsecurity=False)


def sign_page(ticket: str, noncestr: str, timestamp: int | str, url: str) -> str:
    """As :func:`sign`, with positional arguments, which cost less on the way to every page."""
    text = f"jsapi_ticket={ticket}&noncestr={noncestr}&timestamp={timestamp}&url={url}"
    digest = _SHA1.copy()
    digest.update(text.encode())
    return digest.hexdigest()


def sign_card(values: Iterable[str | int]) -> str:
    """Sign a card (卡券) for ``wx.addCard`` and ``wx.chooseCard``.

    Source: appendix 4 of the JS-SDK documentation (附录4-卡券扩展字段及签名生成算法).

    :param values: the values that the call sends, in any order, ``wxjsapi.card_ticket`` among
        them: for a card's extension (``cardExt``) timestamp, card id, code, openid and nonce; for
        ``chooseCard`` app id, location id, timestamp, nonce, card id and card type.
    :returns: 40 hexadecimal digits.
    :raises RuntimeError: for a text that cannot be encoded; it quotes nothing.
    """
    text = "".join(sorted(map(str, values)))
    try:
        return sha1(text.encode(), usedforsecurity=False).hexdigest()
    except UnicodeEncodeError:
        del values, text
    raise RuntimeError(f"A value {_HALF}")
