"""A WeChat to develop and test against: the API, its faults, and a phone that judges signatures.

In a test::

    with Sandbox(token_lifetime=60).serve() as sandbox:
        sandbox.fail("45009", times=3, path="getticket")
        ...                                   # let the code under test talk to sandbox.url
        assert sandbox.calls["getticket"] == 4

In a terminal, for a demo page or a program in another language::

    python -m flask_wxjsapi.sandbox --ttl 60
    curl -d '{"fault": "hang"}' http://127.0.0.1:8900/sandbox/fail

In a page, before the tag that loads jweixin, to have it run in an ordinary browser as it does in
WeChat::

    <script src="http://127.0.0.1:8900/sandbox/bridge.js"></script>

It is WeCom (企业微信) as well, for the applications that :meth:`Sandbox.add_agent` names; its phone
is ``bridge.js?phone=wecom``. :meth:`Sandbox.add_component` (第三方平台) and
:meth:`Sandbox.add_suite` (服务商) add who acts for others.

Where the documentation and the reports of users disagree, an option chooses; where nothing is
known, the sandbox plays the world that is harder on its caller. Of the package it imports only the
diagnosis, which computes for itself: a mistake in the signature must not be able to agree with
itself.

``sandbox`` is what its user has in hand, ``accounts`` the rules of tokens, tickets and quotas,
``api`` what a call answers, ``faults`` what goes wrong with it, ``phone`` the judge of signatures.
"""

from __future__ import annotations

from .command import main
from .opened import Card, Opened
from .sandbox import Call, Sandbox, embedded

__all__ = ["Call", "Card", "Opened", "Sandbox", "embedded", "main"]
