"""Addresses of pages, and what the link of a card has of them: in Python and in client.js."""

from __future__ import annotations

#: A page's query, and what is left of it in the default link.
LINKS = [
    # An OAuth code with its state, wherever they stand and whatever is in them.
    ("code=071h&state=xyz&from=singlemessage&isappinstalled=0&color=red", "?color=red"),
    ("color=red&code=071h&state=", "?color=red"),
    ("state=xyz&code=071h", ""),
    ("code=&state=", ""),
    ("code&state", ""),
    ("code=071h&a=1&state=xyz&a=2", "?a=1&a=2"),
    ("code=071h&code=072h&state=a%26b", ""),
    # What WeChat notes of the way a visitor came.
    ("from=timeline", ""),
    ("from=groupmessage&isappinstalled=1&a=%E4%B8%AD&b", "?a=%E4%B8%AD&b"),
    ("isappinstalled=", ""),
    ("a=1&from=singlemessage", "?a=1"),
    # What looks like it and is the page's own.
    ("code=SKU-1", "?code=SKU-1"),
    ("state=open&page=2", "?state=open&page=2"),
    ("from=Beijing", "?from=Beijing"),
    ("from=timelines&isappinstalled=12", "?from=timelines&isappinstalled=12"),
    ("isappinstalled=maybe", "?isappinstalled=maybe"),
    ("codes=1&states=2&?code=3&state=4", "?codes=1&states=2&?code=3&state=4"),
    ("Code=1&State=2", "?Code=1&State=2"),
    ("from=&to=", "?from=&to="),
    # Escapes stay as they are; what is empty goes.
    ("q=%e4%b8%ad+%20|[]{}^`&from=timeline&r=a=b?c", "?q=%e4%b8%ad+%20|[]{}^`&r=a=b?c"),
    ("%66rom=timeline", "?%66rom=timeline"),
    ("", ""),
]
