"""What the process is told: environment variables and flags, read here and nowhere else, checked before anything starts."""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parseaddr
from pathlib import Path
from urllib.parse import urlsplit

import argon2
import platformdirs
import psycopg
from psycopg import conninfo

from commands import passwords
from domain import refusals, tenants
from ledger.keys import MasterKey, MasterKeyInvalid

LOG_LEVELS = ("debug", "info", "warning", "error")
ARGON2_MEMORY_KIB_MIN = 19 * 1024
"""The least that OWASP recommends (with two passes): below it a stolen hash is soon guessed."""
MAIL_FROM = "BitNexus <no-reply@localhost>"
MAIL_PORTS = {"smtp": 587, "smtps": 465}
CACHE_MIB, CACHE_MIB_MAX = 32, 4_096
PROXIES_BELIEVED = "127.0.0.1,::1"
"""Whose X-Forwarded-For is believed unless FORWARDED_ALLOW_IPS says otherwise: a proxy on the same machine."""

SESSION_DAYS, SESSION_IDLE_DAYS = 30, 14
SESSION_DAYS_MAX = 400
"""As long as browsers keep a cookie."""
CLAIM_CHARACTERS_MAX = 200
"""A token has to stay below what is looked at of one (api/tokens.py)."""
RATE_ADDRESS, RATE_USER, RATE_TENANT, RATE_ACCOUNT = "1200/60", "6000/60", "120000/60", "30/3600"
"""Requests in so many seconds: a floor of people behind one address who are not logged in, the busiest program of one user, and what
two cores answer, for a minute; and the changes of an own account of who tries everything out."""
ORIGINS_MAX = 100
SOCKETS_PER_SESSION = 200
"""More tabs than anybody has open, and few enough that one session does not fill a process (api/socket/sockets.py)."""
METRICS_TOKEN_MIN = 22
"""Characters: 128 random bits in base64. It may be tried as often as one likes."""
ORIGIN_PATTERN = re.compile(r"((https?:)?//)?(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?")

MAKE_A_KEY = "python3 -c 'import base64, os; print(base64.b64encode(os.urandom(32)).decode())'"


class SettingInvalid(Exception):
    """A variable or flag cannot be used. A secret's value is never shown."""

    def __init__(self, name: str, happened: str, value: str, advice: str) -> None:
        super().__init__(f"{happened}: {name} is {value}. {advice}.")
        self.name = name


@dataclass(frozen=True, kw_only=True)
class Hashing:
    """What a new hash of a password costs (argon2id), and how many a process makes at a time."""

    memory_kib: int = passwords.PARAMETERS.memory_cost
    passes: int = passwords.PARAMETERS.time_cost
    lanes: int = passwords.PARAMETERS.parallelism
    at_once: int = passwords.HASHES_AT_ONCE

    @property
    def parameters(self) -> argon2.Parameters:
        return replace(passwords.PARAMETERS, memory_cost=self.memory_kib, time_cost=self.passes, parallelism=self.lanes)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is secret is not in the representation, which may end up in a log. A worker gets this object as JSON."""

    data_dir: Path
    database_url: str | None = field(default=None, repr=False)  # the owner's: migrations alone use it
    database_app_url: str | None = field(default=None, repr=False)  # of the login role, if it is not to be derived
    database_replica_url: str | None = field(default=None, repr=False)  # that queries may read
    master_key: str | None = field(default=None, repr=False)  # base64, newest first; None: the key file's
    erasure_list: Path | None = None  # None: in data_dir
    default_tenant: str | None = None  # slug of the tenant where a request names none
    metrics_token: str | None = field(default=None, repr=False)  # a scraper's; None: /metrics is for this machine alone
    log_level: str = "info"
    proxies_believed: str = PROXIES_BELIEVED
    hashing: Hashing = Hashing()
    token_issuer: str = "bitnexus"  # of access tokens: who made them, and whom they are meant for
    token_audience: str = "bitnexus"
    session_days: int = SESSION_DAYS
    session_idle_days: int = SESSION_IDLE_DAYS  # without a refresh
    sockets_per_session: int = SOCKETS_PER_SESSION
    socket_origins: tuple[str, ...] = ()  # pages of these may open sockets, beside those of the host itself
    mail_server: str | None = field(default=None, repr=False)  # its URL; None: mails go into files below data_dir
    mail_from: str = MAIL_FROM
    front_end: str | None = None  # whose pages the links in mails lead to

    cache_mib: int = CACHE_MIB  # of rendered resources, in each process; 0: none
    rate_address: tuple[int, int] | None = None  # requests in so many seconds; None: as many as come
    rate_user: tuple[int, int] | None = None
    rate_tenant: tuple[int, int] | None = None
    rate_account: tuple[int, int] | None = None
    cors_origins: frozenset[str] = frozenset()  # whose pages may use the API beside those of tenants' own hosts

    @property
    def embedded(self) -> bool:
        """Whether the database is our own, below `data_dir`."""
        return self.database_url is None and self.database_app_url is None


def read(environment: Mapping[str, str] | None = None, *, data_dir: Path | None = None) -> Settings:
    """`data_dir` is the flag's. An empty variable counts as none. Raises SettingInvalid."""
    found = {name: value for name, value in (os.environ if environment is None else environment).items() if value}
    settings = Settings(
        data_dir=(data_dir or _data_dir(found)).expanduser().absolute(),
        database_url=_url(found, "DATABASE_URL"),
        database_app_url=_url(found, "DATABASE_APP_URL"),
        database_replica_url=_replica_url(found),
        master_key=_master_key(found),
        erasure_list=_erasure_list(found),
        default_tenant=_default_tenant(found),
        metrics_token=_metrics_token(found),
        log_level=_log_level(found),
        cache_mib=_cache_mib(found),
        hashing=_hashing(found),
        token_issuer=_claim(found, "BITNEXUS_TOKEN_ISSUER"),
        token_audience=_claim(found, "BITNEXUS_TOKEN_AUDIENCE"),
        session_days=_days(found, "BITNEXUS_SESSION_DAYS", SESSION_DAYS),
        session_idle_days=_days(found, "BITNEXUS_SESSION_IDLE_DAYS", SESSION_IDLE_DAYS),
        socket_origins=_socket_origins(found),
        sockets_per_session=_number(found, "BITNEXUS_SOCKETS_PER_SESSION", "sockets", SOCKETS_PER_SESSION, 99_999),
        mail_server=_mail_server(found),
        mail_from=_mail_from(found),
        front_end=_front_end(found),
        proxies_believed=_proxies_believed(found),
        rate_address=_rate(found, "BITNEXUS_RATE_ADDRESS", RATE_ADDRESS),
        rate_user=_rate(found, "BITNEXUS_RATE_USER", RATE_USER),
        rate_tenant=_rate(found, "BITNEXUS_RATE_TENANT", RATE_TENANT),
        rate_account=_rate(found, "BITNEXUS_RATE_ACCOUNT", RATE_ACCOUNT),
        cors_origins=_cors_origins(found),
    )
    if not settings.embedded and settings.master_key is None:
        raise SettingInvalid(
            "BITNEXUS_MASTER_KEY",
            "With a database of your own (DATABASE_URL or DATABASE_APP_URL) the master key has to be given",
            "not set",
            f"Make one with {MAKE_A_KEY}, keep it apart from the database's backups, and set the variable to it on every "
            "node",
        )
    return settings


def _data_dir(found: Mapping[str, str]) -> Path:
    given = found.get("BITNEXUS_DATA_DIR")
    return Path(given) if given is not None else Path(platformdirs.user_data_dir("bitnexus"))


def _replica_url(found: Mapping[str, str]) -> str | None:
    """User, password and database may be left out: they are those of the primary."""
    name = "DATABASE_REPLICA_URL"
    url = found.get(name)
    if url is not None:
        try:
            conninfo.conninfo_to_dict(url)
        except psycopg.Error:
            advice = "Write it as postgresql://host:port"
            raise SettingInvalid(name, "This is not a PostgreSQL URL", "not shown", advice) from None
    return url


def _url(found: Mapping[str, str], name: str) -> str | None:
    url = found.get(name)
    if url is None:
        return None
    advice = "Write it as postgresql://user:password@host:port/database"
    try:
        parts = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise SettingInvalid(name, "This is not a PostgreSQL URL", "not shown", advice) from None
    if not parts.get("dbname"):
        raise SettingInvalid(name, "The URL names no database", "not shown", advice)
    return url


def _master_key(found: Mapping[str, str]) -> str | None:
    name = "BITNEXUS_MASTER_KEY"
    text = found.get(name)
    if text is None:
        return None
    try:
        MasterKey.parse(text)
    except MasterKeyInvalid:
        raise SettingInvalid(
            name,
            "The master key is not 32 bytes in base64",
            f"{len(text)} characters long (not shown)",
            f"Set the key that the database was begun with, or for a new one make it with {MAKE_A_KEY}",
        ) from None
    return text


def _erasure_list(found: Mapping[str, str]) -> Path | None:
    given = found.get("BITNEXUS_ERASURE_LIST")
    return None if given is None else Path(given).expanduser().absolute()


def _default_tenant(found: Mapping[str, str]) -> str | None:
    name = "BITNEXUS_DEFAULT_TENANT"
    slug = found.get(name)
    if slug is not None and tenants.SLUG_PATTERN.fullmatch(slug) is None:
        raise SettingInvalid(
            name,
            "This is not the slug of a tenant",
            refusals.shown(slug),
            "Give 1 to 63 characters out of a-z, 0-9 and -, with no - at either end, or leave it unset",
        )
    return slug


def _hashing(found: Mapping[str, str]) -> Hashing:
    name = "BITNEXUS_ARGON2"
    default = Hashing()
    text = found.get(name, f"m={default.memory_kib},t={default.passes},p={default.lanes}")
    parts = re.fullmatch(r"m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,2})", text)
    memory_kib, passes, lanes = map(int, parts.groups()) if parts else (0, 0, 0)
    if memory_kib < ARGON2_MEMORY_KIB_MIN or passes < 1 or lanes < 1:
        raise SettingInvalid(
            name,
            "These parameters of argon2id cannot be used",
            refusals.shown(text),
            f"Give KiB of memory (at least {ARGON2_MEMORY_KIB_MIN}), passes and lanes such as m=65536,t=3,p=4",
        )
    at_once = _number(found, "BITNEXUS_HASHES_AT_ONCE", "threads", passwords.HASHES_AT_ONCE, 99)
    return Hashing(memory_kib=memory_kib, passes=passes, lanes=lanes, at_once=at_once)


def _number(found: Mapping[str, str], name: str, of: str, otherwise: int, most: int) -> int:
    text = found.get(name, str(otherwise))
    if re.fullmatch(r"[1-9][0-9]{0,4}", text) is None or int(text) > most:
        raise SettingInvalid(name, f"This is not a number of {of}", refusals.shown(text), f"Give 1 to {most}")
    return int(text)


def _claim(found: Mapping[str, str], name: str) -> str:
    text = found.get(name, "bitnexus")
    if len(text) > CLAIM_CHARACTERS_MAX or not text.isascii() or not text.isprintable():
        raise SettingInvalid(
            name,
            "A token cannot carry this",
            refusals.shown(text),
            f"Give a name or a URL of at most {CLAIM_CHARACTERS_MAX} ASCII characters, or leave it unset",
        )
    return text


def _days(found: Mapping[str, str], name: str, otherwise: int) -> int:
    text = found.get(name, str(otherwise))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= SESSION_DAYS_MAX:
        raise SettingInvalid(
            name,
            "A session cannot last so long",
            refusals.shown(text),
            f"Give a whole number of days from 1 to {SESSION_DAYS_MAX}, or leave it unset for {otherwise}",
        )
    return int(text)


def _metrics_token(found: Mapping[str, str]) -> str | None:
    name = "BITNEXUS_METRICS_TOKEN"
    token = found.get(name)
    if token is not None and (len(token) < METRICS_TOKEN_MIN or not token.isascii() or not token.isprintable()):
        raise SettingInvalid(
            name,
            "The token of scrapers could be guessed, or cannot stand in a header",
            f"{len(token)} characters long (not shown)",
            f"Give {METRICS_TOKEN_MIN} or more, as `python3 -c 'import secrets; print(secrets.token_urlsafe(32))'` prints them, "
            "or leave it unset",
        )
    return token


def _socket_origins(found: Mapping[str, str]) -> tuple[str, ...]:
    name = "BITNEXUS_SOCKET_ORIGINS"
    given = tuple(each.strip() for each in found.get(name, "").split(",") if each.strip())
    for each in given:
        if ORIGIN_PATTERN.fullmatch(each) is None:
            raise SettingInvalid(
                name,
                "This is not an origin",
                refusals.shown(each),
                "Give hosts such as shop.example, //*.shop.example or https://shop.example:8443, with commas between them",
            )
    return given


def _mail_server(found: Mapping[str, str]) -> str | None:
    name = "BITNEXUS_SMTP_URL"
    url = found.get(name)
    if url is not None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in MAIL_PORTS and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            advice = "Write it as smtp://user:password@host:587, or smtps:// where TLS is spoken from the first byte"
            raise SettingInvalid(name, "This is not the URL of a mail server", "not shown", advice)
        if "BITNEXUS_MAIL_FROM" not in found:
            advice = "Set it to the sender of mails, such as Shop <no-reply@shop.example>"
            raise SettingInvalid("BITNEXUS_MAIL_FROM", "With a mail server mails need a sender", "not set", advice)
    return url


def _mail_from(found: Mapping[str, str]) -> str:
    name = "BITNEXUS_MAIL_FROM"
    text = found.get(name, MAIL_FROM)
    _, address = parseaddr(text)
    if not text.isprintable() or address.count("@") != 1 or address.startswith("@") or address.endswith("@"):
        advice = "Write it as Shop <no-reply@shop.example>"
        raise SettingInvalid(name, "This is not the sender of a mail", refusals.shown(text), advice)
    return text


def _front_end(found: Mapping[str, str]) -> str | None:
    name = "BITNEXUS_FRONT_END"
    url = found.get(name)
    if url is not None and re.fullmatch(r"https?://[^\s#?]+", url) is None:
        advice = "Write it as https://app.shop.example"
        raise SettingInvalid(name, "This is not the address of a front end", refusals.shown(url), advice)
    return url


def _cache_mib(found: Mapping[str, str]) -> int:
    name = "BITNEXUS_CACHE_MIB"
    text = found.get(name, str(CACHE_MIB))
    if re.fullmatch("[0-9]{1,4}", text) is None or int(text) > CACHE_MIB_MAX:
        raise SettingInvalid(
            name,
            "The size of the cache is not known",
            refusals.shown(text),
            f"Give a number of MiB from 0 (no cache) to {CACHE_MIB_MAX}, or leave it unset",
        )
    return int(text)


def _proxies_believed(found: Mapping[str, str]) -> str:
    """A typing error here would believe the wrong ones."""
    name = "FORWARDED_ALLOW_IPS"
    text = found.get(name, PROXIES_BELIEVED)
    if text == "*":  # where nobody but the proxy can reach the process, as in compose.yml
        return text
    for each in text.split(","):
        try:
            ipaddress.ip_network(each.strip(), strict=False)
        except ValueError:
            raise SettingInvalid(
                name,
                "This is no address of a proxy, and nobody else's word about clients may be believed",
                refusals.shown(each),
                "Give addresses or networks, such as 10.0.0.5,10.1.0.0/16",
            ) from None
    return text


def _rate(found: Mapping[str, str], name: str, otherwise: str) -> tuple[int, int] | None:
    text = found.get(name, otherwise)
    if text == "off":
        return None
    parts = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})", text)
    if parts is None:
        raise SettingInvalid(
            name,
            "This is no limit of requests",
            refusals.shown(text),
            f"Give requests and seconds, such as {otherwise}, or off",
        )
    return int(parts[1]), int(parts[2])


def _cors_origins(found: Mapping[str, str]) -> frozenset[str]:
    name = "BITNEXUS_CORS_ORIGINS"
    given = [each.strip() for each in found.get(name, "").split(",") if each.strip()]
    for each in given:
        if re.fullmatch(r"https?://[a-z0-9.-]{1,253}(:[0-9]{1,5})?", each) is None or len(given) > ORIGINS_MAX:
            raise SettingInvalid(
                name,
                "This is no origin of pages, or there are too many",
                refusals.shown(each),
                f"Give at most {ORIGINS_MAX}, such as https://app.example.com,http://localhost:3000",
            )
    return frozenset(given)


def _log_level(found: Mapping[str, str]) -> str:
    name = "BITNEXUS_LOG_LEVEL"
    level = found.get(name, "info").lower()
    if level not in LOG_LEVELS:
        raise SettingInvalid(
            name, "The log level is not known", refusals.shown(level), f"Give one of {', '.join(LOG_LEVELS)}"
        )
    return level
