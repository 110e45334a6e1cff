"""The two platforms: what each says of itself."""

from __future__ import annotations

import pytest

from flask_wxjsapi._credential import AGENT_TICKET, CARD_TICKET, JSAPI_TICKET
from flask_wxjsapi._platform import OFFIACCOUNT, PLATFORMS, TOKEN_ENDPOINTS, WECOM, Platform


def test_a_platform_is_shown_by_the_word_of_the_config() -> None:
    """In a text it stands for itself."""
    assert [str(platform) for platform in PLATFORMS.values()] == list(PLATFORMS)


@pytest.mark.parametrize(
    ("platform", "agent_id", "kinds"),
    [
        (OFFIACCOUNT, None, (JSAPI_TICKET, CARD_TICKET)),
        (WECOM, None, (JSAPI_TICKET,)),
        (WECOM, "1000002", (JSAPI_TICKET, AGENT_TICKET)),
    ],
)
def test_ticket_kinds(platform: Platform, agent_id: str | None, kinds: tuple[str, ...]) -> None:
    """The agent's ticket needs an agent, and cards are of official accounts."""
    assert platform.ticket_kinds(agent_id) == kinds


def test_the_corps_ticket_alone_is_shared() -> None:
    """Each application has a token and an agent ticket of its own."""
    assert WECOM.kinds_of_corp == (JSAPI_TICKET,)
    assert OFFIACCOUNT.kinds_of_corp == ()


@pytest.mark.parametrize("platform", PLATFORMS.values(), ids=str)
def test_every_token_endpoint_has_a_call(platform: Platform) -> None:
    """A word that the settings take is one that every platform knows."""
    assert set(platform.token_calls) == set(TOKEN_ENDPOINTS)


def test_the_legacy_call_alone_ends_others_tokens() -> None:
    """So a look for faults does without it."""
    calls = [call for platform in PLATFORMS.values() for call in platform.token_calls.values()]
    assert [call.path for call in calls if call.ends_others] == ["/cgi-bin/token"]


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("wx0123456789abcdef", [OFFIACCOUNT, WECOM]),
        ("ww0123456789abcdef", [WECOM]),
        ("wx0123456789abcdef0", []),
        ("wx0123456789ABCDEF", []),
        ("wx0123456789abcdef\n", []),
        ("", []),
    ],
)
def test_the_form_of_an_id(text: str, fits: list[Platform]) -> None:
    """Old corps have an id like an official account's."""
    assert [platform for platform in PLATFORMS.values() if platform.id_form.fits(text)] == fits
