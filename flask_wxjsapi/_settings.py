"""The settings: every ``WXJSAPI_*`` key is declared here, and read once, into one frozen object."""
# ruff: noqa: RUF009 - what is called in the dataclass returns a dataclasses.field()

from __future__ import annotations

import difflib
import hmac
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from . import _settings_readers as read
from ._platform import PLATFORMS, TOKEN_ENDPOINTS, WECOM, Platform

#: Where WeChat has the JS-SDK: the usual host, and the spare one.
JSSDK_HOSTS: Final = ("res.wx.qq.com", "res2.wx.qq.com")
_JSSDK_URL = f"https://{JSSDK_HOSTS[0]}/open/js/jweixin-1.6.0.js"


@dataclass(frozen=True)
class Key:
    """What is declared of a setting, beside its name.

    :param read: returns the value in its one form, or raises a ValueError that says what is wrong.
    :param default: what counts where the key is not set, in the form a config has.
    :param help: what it is for, in a sentence.
    :param of_account: each account may have its own; any other is the extension's as a whole.
    """

    read: Callable[[object], object]
    default: object
    help: str
    of_account: bool


def _key(
    read: Callable[[object], object],
    default: object,
    text: str,
    *,
    of_account: bool = False,
    is_secret: bool = False,
) -> Any:
    """A field with its declaration; Any, since the annotation beside it says what comes out."""
    return field(repr=not is_secret, metadata={"key": Key(read, default, text, of_account)})


def _account_key(
    read: Callable[[object], object], default: object, text: str, *, is_secret: bool = False
) -> Any:
    return _key(read, default, text, of_account=True, is_secret=is_secret)


@dataclass(frozen=True)
class Settings:
    """The settings of one account; the fields are the keys in lower case, without the prefix.

    :param name: the extension's.
    :param prefix: what the keys begin with; empty for an account that comes at run time.
    """

    name: str
    prefix: str
    app_id: str = _key(read.app_id, None, "The account's AppID, or the id of a corp.")
    app_secret: str = _account_key(
        read.secret, None, "The AppSecret, or the Secret of a corp's application.", is_secret=True
    )
    platform: Platform = _account_key(
        read.platform, "offiaccount", "An official account, or an application at WeCom."
    )
    agent_id: str | None = _account_key(read.agent_id, None, "The AgentId of a corp's application.")
    api_base_url: str = _key(read.base_url, None, 'Where WeChat is asked, or "sandbox".')
    token_endpoint: str = _account_key(
        read.choice(*TOKEN_ENDPOINTS), "stable_token", "Which call fetches the access token."
    )
    access_token_provider: Callable[..., Any] | None = _account_key(
        read.provider, None, "Where access tokens come from instead.", is_secret=True
    )
    ticket_server: Any = _key(
        read.ticket_server, None, "What keeps the tickets, in place of the cache.", is_secret=True
    )
    cache: dict[str, Any] = _key(
        read.cache_keys, {}, "CACHE_* keys for the tickets alone.", is_secret=True
    )
    refresh_ahead: float = _key(
        read.seconds(0), 200, "How many seconds before its end a ticket is renewed."
    )
    refresh_timeout: float = _key(
        read.seconds(0.1), 10, "How many seconds one renewal may take as a whole."
    )
    sync_interval: float = _key(
        read.seconds(0.1), 5, "How many seconds pass between two looks at the shared store."
    )
    background_refresh: bool | None = _key(
        read.flag, None, "Whether each process has a thread that renews."
    )
    js_api_list: tuple[str, ...] = _account_key(
        read.names, (), "What jsApiList has where a call names nothing."
    )
    open_tag_list: tuple[str, ...] = _account_key(
        read.names, (), "What openTagList has where a call names nothing."
    )
    debug: bool = _account_key(read.flag, False, "Whether the JS-SDK shows its results in alerts.")
    jssdk_url: str = _account_key(read.text, _JSSDK_URL, "Where pages load the JS-SDK from.")
    public_origin: str | None = _account_key(
        read.origin, None, "Scheme and host to sign with, where the app cannot know them."
    )
    url_prefix: str | None = _key(read.url_prefix, None, "The path of the endpoints.")
    page_hosts: tuple[str, ...] = _account_key(
        read.hosts, (), "More hosts whose pages the endpoints sign."
    )
    central_tokens: dict[str, str] = _key(
        read.central_tokens, {}, "Bearer tokens of those who may fetch it here.", is_secret=True
    )
    central_url: str | None = _key(read.central_url, None, "The app that the ticket comes from.")
    central_token: str = _key(read.secret, None, "This app's bearer token there.", is_secret=True)

    @classmethod
    def load(
        cls, config: Mapping[str, Any], name: str = "default", *, needs_account: bool = True
    ) -> Settings:
        """Read an account's keys from an app's config.

        :param name: the account; any but ``"default"`` puts its name before the keys.
        :param needs_account: False where accounts come at run time, and APP_ID may be missing.
        :raises RuntimeError: for a value that cannot be right; it quotes the key, never a secret.
        """
        found = _loaded(config, name, needs_account)
        unknown = _about_unknown(config, key_prefix(name))
        del config  # a traceback shows what its frames hold
        for text in unknown:
            warnings.warn(text, stacklevel=3)
        if isinstance(found, str):
            raise RuntimeError(found)
        return found

    def of_account(self, app_id: str, answer: Mapping[str, Any]) -> Settings | str:
        """The settings of an account that comes at run time; or what is wrong with them, to be
        raised where no frame holds them.

        :param answer: the account's keys, without prefix. What it leaves out is as it is here, but
            for what makes out an account: secret, agent and provider.
        """
        values = {key.lower(): getattr(self, key.lower()) for key in KEYS}
        values |= dict.fromkeys(_OF_ONE_ACCOUNT)
        values["app_id"] = app_id
        values["central_token"] = self.central_token or None
        if self.api_base_url == self.platform.api_url:  # it follows the platform
            values["api_base_url"] = None
        for key, value in answer.items():
            problem = _about_key_of_account(key)
            if problem is None and value is not None:
                problem = _read_into(values, key, value)
            if problem is not None:
                return problem
        return _finished(values, "", self.name)

    @property
    def has_account(self) -> bool:
        """Whether these are an account's; where accounts come at run time they need not be."""
        return bool(self.app_id)

    @property
    def is_sandbox(self) -> bool:
        """Whether the WeChat inside this process is asked."""
        return self.api_base_url == read.SANDBOX

    @property
    def ticket_kinds(self) -> tuple[str, ...]:
        """The kinds of ticket that the account has."""
        return self.platform.ticket_kinds(self.agent_id)

    def contradicts(self, other: Settings) -> bool:
        """Whether another account of this app says something else of the same account at WeChat."""
        if (self.app_id, self.api_base_url) != (other.app_id, other.api_base_url):
            return False
        same_secret = self.app_secret == other.app_secret
        if self.platform is other.platform and self.platform.has_agents:
            same_agent = self.agent_id == other.agent_id
            return same_agent != same_secret and None not in (self.agent_id, other.agent_id)
        return not same_secret and bool(self.app_secret and other.app_secret)

    @property
    def jssdk_urls(self) -> list[str]:
        """Where the JS-SDK is loaded from: the URL set, then WeChat's spare host for its own."""
        usual, spare = (f"//{host}/" for host in JSSDK_HOSTS)
        return list(dict.fromkeys((self.jssdk_url, self.jssdk_url.replace(usual, spare))))

    @property
    def agent_sdk_urls(self) -> list[str]:
        """What a page loads beside the JS-SDK for ``wx.agentConfig``, if it may call that."""
        url = self.platform.agent_sdk_url
        return [] if url is None or self.agent_id is None else [url]

    @property
    def digest(self) -> str:
        """A keyed digest of what decides whether WeChat accepts us: never the secret itself."""
        parts = (self.app_id, self.central_url or self.api_base_url, self.token_endpoint)
        key = self.central_token if self.central_url else self.app_secret
        return hmac.new(key.encode(), "\n".join(parts).encode(), "sha256").hexdigest()[:32]


#: Every setting by its key without the prefix, as the fields above declare it.
KEYS: Final[Mapping[str, Key]] = {
    declared.name.upper(): declared.metadata["key"]
    for declared in fields(Settings)
    if "key" in declared.metadata
}


def key_prefix(name: str) -> str:
    """What an account's keys start with: ``WXJSAPI_``, or ``SHOP_WXJSAPI_`` for ``"shop"``."""
    return "WXJSAPI_" if name == "default" else f"{name.upper()}_WXJSAPI_"


# -- reading: what is wrong is returned, and raised where no frame holds a secret ------------------


def _loaded(config: Mapping[str, Any], name: str, needs_account: bool) -> Settings | str:
    """The settings, or what is wrong with them."""
    prefix = key_prefix(name)
    values: dict[str, Any] = {}
    for key, declared in KEYS.items():
        value = config.get(prefix + key)
        problem = _read_into(values, key, declared.default if value is None else value)
        if problem is not None:
            return prefix + problem
    return _finished(values, prefix, name, needs_account)


def _read_into(values: dict[str, Any], key: str, value: object) -> str | None:
    """Read one key; what is wrong with it."""
    try:
        values[key.lower()] = None if value is None else KEYS[key].read(value)
    except ValueError as error:
        return f"{key} {error}"
    return None


def _finished(
    values: dict[str, Any], prefix: str, name: str, needs_account: bool = True
) -> Settings | str:
    """The settings of what was read, or what is wrong with it."""
    _use_account_of_sandbox(values)
    is_account = needs_account or values["app_id"] is not None
    problem = _about_all(values, prefix, is_account)
    if problem is not None:
        return problem
    for key in ("app_id", "app_secret", "central_token"):
        values[key] = values[key] or ""
    values["api_base_url"] = values["api_base_url"] or values["platform"].api_url
    return Settings(name=name, prefix=prefix, **values)


#: What an account that comes at run time does not have from the extension.
_OF_ONE_ACCOUNT = ("app_secret", "agent_id", "access_token_provider")


def _about_key_of_account(key: object) -> str | None:
    """What is wrong with a key of an account that comes at run time."""
    declared = KEYS.get(key) if isinstance(key, str) else None
    if declared is None:
        # One that is no name of a key is not quoted: a secret may stand in the wrong place.
        is_name = isinstance(key, str) and re.fullmatch("[A-Z_]{1,40}", key)
        return (
            f"{key if is_name else 'Something'} is not a key of an account: they are such as "
            f"APP_SECRET, in capitals and without prefix.{_hint(str(key), '')}"
        )
    if key == "APP_ID":
        return "APP_ID is what the loader was asked for: leave it out."
    if not declared.of_account:
        return f"{key} belongs to the extension as a whole: set WXJSAPI_{key} in the app's config."
    return None


def _use_account_of_sandbox(values: dict[str, Any]) -> None:
    """The sandbox has an account for whoever names none."""
    if values["api_base_url"] == read.SANDBOX and values["central_url"] is None:
        from .sandbox import sandbox  # which nobody needs in production

        values["app_id"] = values["app_id"] or sandbox.APP_ID
        values["app_secret"] = values["app_secret"] or sandbox.APP_SECRET


def _about_all(values: Mapping[str, Any], prefix: str, is_account: bool) -> str | None:
    """What is wrong with one key in view of another."""
    of_account = (_about_app_id, _about_central, _about_secret, _about_agent)
    for look in of_account if is_account else (_about_central,):
        problem = look(values, prefix)
        if problem is not None:
            return problem
    if values["central_tokens"] and values["url_prefix"] is None:
        return (
            f"{prefix}CENTRAL_TOKENS needs {prefix}URL_PREFIX, under which the tickets are served."
        )
    return None


def _about_app_id(values: Mapping[str, Any], prefix: str) -> str | None:
    app_id, platform = values["app_id"], values["platform"]
    if app_id is None:
        return (
            f"{prefix}APP_ID is not set: it is the account's AppID (wx…), or the corp's id (ww…). "
            f'Without an account, set {prefix}API_BASE_URL = "{read.SANDBOX}" alone. Accounts from '
            "a database need an account_loader, registered before init_app()."
        )
    if platform.id_form.fits(app_id):
        return None
    for other in PLATFORMS.values():
        if other.id_form.fits(app_id):
            text = f"is the {other.id_form.name} of an account at {other.title}"
            return f'{prefix}APP_ID {text}: set {prefix}PLATFORM = "{other}" as well.'
    return None


def _about_central(values: Mapping[str, Any], prefix: str) -> str | None:
    if values["central_url"] is None:
        if values["central_token"] is None:
            return None
        return f"{prefix}CENTRAL_URL is not set, but {prefix}CENTRAL_TOKEN is."
    if values["central_token"] is None:
        return (
            f"{prefix}CENTRAL_TOKEN is not set: it is this app's entry in the CENTRAL_TOKENS of "
            "the app that CENTRAL_URL names."
        )
    for key in ("APP_SECRET", "ACCESS_TOKEN_PROVIDER", "API_BASE_URL"):
        if values[key.lower()] is not None:
            return (
                f"{prefix}{key} and {prefix}CENTRAL_URL are both set: an app that takes its ticket "
                f"from another one asks WeChat for nothing. Remove {key}."
            )
    return None


def _about_secret(values: Mapping[str, Any], prefix: str) -> str | None:
    secret, platform = values["app_secret"], values["platform"]
    if secret is not None:
        if any(other.id_form.fits(secret) for other in PLATFORMS.values()):
            return (
                f"{prefix}APP_SECRET looks like an id: are it and {prefix}APP_ID the wrong way "
                "round?"
            )
        return None
    # Not needed where somebody else provides what would be fetched with it.
    others = ("access_token_provider", "ticket_server", "central_url")
    if any(values[key] is not None for key in others):
        return None
    secret_name = platform.secret_form.name
    problem = f"{prefix}APP_SECRET is not set: see {platform.console} for the {secret_name}."
    if not prefix:  # of an account that comes at run time
        return problem
    return f'{problem} Without an account, set {prefix}API_BASE_URL = "{read.SANDBOX}" alone.'


def _about_agent(values: Mapping[str, Any], prefix: str) -> str | None:
    if not values["platform"].has_agents:
        if values["agent_id"] is None:
            return None
        return f'{prefix}AGENT_ID is for {prefix}PLATFORM = "{WECOM}" only.'
    if all(values[key] is None for key in ("app_secret", "agent_id", "central_url")):
        return (
            f"{prefix}AGENT_ID is not set, nor {prefix}APP_SECRET: one of them has to tell the "
            "applications of the corp apart."
        )
    return None


def _about_unknown(config: Mapping[str, Any], prefix: str) -> list[str]:
    """A warning for each key that has our prefix and is none of ours."""
    return [
        f"{key} is not a key of Flask-WxJsApi.{_hint(key.removeprefix(prefix), prefix)}"
        for key in config
        if key.startswith(prefix) and key.removeprefix(prefix) not in KEYS
    ]


def _hint(name: str, prefix: str) -> str:
    known = [key for key, declared in KEYS.items() if prefix or declared.of_account]
    near = difflib.get_close_matches(name.upper(), known, n=1)
    return f" Do you mean {prefix}{near[0]}?" if near else ""
