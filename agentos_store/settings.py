"""Everything that the environment can say about the database, read once and never printed with a secret in it."""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from agentos_store.errors import InvalidValueError

PREFIX = "DATABASE_"

ENV_FILE = ".env"

DEFAULT_SQLITE_FILE = "./store/registry.sqlite"

LARGEST_PAYLOAD = 256 * 1024 * 1024
"""Bytes; PostgreSQL's JSONB holds no longer text."""

LONGEST = 2_147_483.0
"""Seconds; PostgreSQL and SQLite both count their timeouts as milliseconds in 31 bits."""

Seconds = Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=False)]

SecondsOrOff = Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)]

OTHER_NAMES = {
    "DB": "NAME",
    "DBNAME": "NAME",
    "HOSTNAME": "HOST",
    "PASS": "PASSWORD",
    "PWD": "PASSWORD",
    "SSL_ROOT_CERT": "SSLROOTCERT",
    "USERNAME": "USER",
}
"""What other programs call our variables; too far from our names for a comparison of letters to find them."""


class Settings(BaseSettings):
    """How to reach the database and how to treat it: from ``DATABASE_`` variables, then ``.env``, then defaults.

    ``Settings.load()`` is the way to make one: its errors name the variable, and it reports misspelt variables.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        # pydantic would quote the value that it refuses, passwords included.
        hide_input_in_errors=True,
        populate_by_name=True,
    )

    url: SecretStr | None = None
    """The whole URL; secret, since it may hold a password. It goes before the parts: of these only ``password``,
    ``sslmode`` and ``sslrootcert`` are then used, where the URL has none of its own."""
    type: Literal["sqlite", "postgresql"] = "sqlite"
    host: str | None = None
    """A name, an address, or the directory of a Unix socket; several as in a URL (``db1,db2:5433``); None is libpq's
    default."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    name: str | None = None
    """The PostgreSQL database, or the path of the SQLite file (default ``./store/registry.sqlite``)."""
    user: str | None = None
    password: SecretStr | None = None
    """As it is, without percent-encoding."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = None
    """None for ``verify-full`` where the server is not on this machine, and for libpq's own default where it is."""
    sslrootcert: str | None = None
    """The file with the certificates that may have signed the server's; ``system`` for the machine's own."""
    schema_name: str | None = Field(default=None, validation_alias=f"{PREFIX}SCHEMA")
    """The PostgreSQL schema that holds the store (``DATABASE_SCHEMA``); None is the default schema."""

    pool_size: Annotated[int, Field(ge=1)] = 10
    """Connections that are kept open."""
    max_overflow: Annotated[int, Field(ge=0)] = 20
    """Further connections under load, closed after use."""
    pool_timeout: Seconds = 30.0
    """Seconds that a caller waits for a free connection."""
    pool_recycle: Annotated[int, Field(ge=-1)] = 3600
    """Seconds after which a connection is replaced by a new one; -1 for never."""

    busy_timeout: Seconds = 5.0
    """Seconds that SQLite waits for a lock that another program holds."""
    statement_timeout: SecondsOrOff | None = None
    """Seconds after which PostgreSQL cancels a statement; None (0 in the environment) for the server's own limit."""
    lock_timeout: Seconds = 5.0
    """Seconds that a writer waits for another writer."""
    idle_in_transaction_timeout: SecondsOrOff | None = 60.0
    """Seconds after which PostgreSQL ends a transaction in which nothing happens; None (0) for the server's limit."""
    connect_timeout: Seconds = 10.0
    """Seconds until an attempt to connect is given up, for each host; 3 where there is another one to go to and this is
    not set."""
    reconnect_timeout: Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)] = 10.0
    """Seconds for which operations wait together for a PostgreSQL server that was there: it starts again, or a standby
    takes its place. 0 for no longer than the retries take."""
    tcp_timeout: SecondsOrOff | None = 15.0
    """Seconds after which a server counts as gone that the network brings no sign of; None (0) for the system's
    limits, which are hours."""
    migration_timeout: Seconds = 600.0
    """Seconds that a migrator waits for another one to finish."""

    slow_operation: SecondsOrOff | None = 1.0
    """Seconds from which an operation is logged as slow; None (0 in the environment) for none."""

    max_payload: Annotated[int, Field(ge=1024, le=LARGEST_PAYLOAD)] = 16 * 1024 * 1024
    """Bytes, in UTF-8, that one text or JSON value may have."""
    durability: Literal["full", "process_crash"] = "full"
    """What a committed SQLite transaction survives: a power cut, or only the end of its process."""
    auto_migrate: Literal["verify", "on", "off"] = "verify"
    """At opening: ``verify`` initialises an empty SQLite file and checks anything else, ``on`` upgrades the schema,
    ``off`` looks at nothing."""
    append_only: Literal["trigger", "privileges"] = "trigger"
    """What keeps audits from being changed on PostgreSQL; ``privileges`` where triggers are not to be had."""
    prepare_statements: bool = True
    """False for a PgBouncer that cannot track prepared statements (before 1.21)."""
    read_url: SecretStr | None = None
    """The URL of a replica for reads. It belongs to the URL beside it: a store of another database does not use it."""
    read_wait: Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)] = 0.1
    """Seconds that a read waits for the replica to have what this store wrote, before it asks the primary."""

    retries: Annotated[int, Field(ge=0)] = 3
    """Further tries after a passing fault."""
    retry_base: Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)] = 0.1
    """Seconds before the first retry; each further wait is twice as long."""
    retry_cap: Annotated[float, Field(ge=0, le=LONGEST, allow_inf_nan=False)] = 60.0
    """Seconds; no wait is longer, but for the jitter."""
    retry_jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The part of a wait by which it varies at random, up and down."""

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the environment and ``.env``; an override goes before both, and None leaves the setting to them.

        ``schema`` is taken as another name of ``schema_name``, and a URL may be SQLAlchemy's object.

        Raises InvalidValueError that names the variable and never shows the value of a setting. Warns of a variable
        that looks like a misspelt one of ours.
        """
        for name in overrides:
            if name != "schema" and name not in cls.model_fields:
                raise InvalidValueError(name, "there is no such setting")
        values = {name: value for name, value in overrides.items() if value is not None}
        for name in {"url", "read_url"} & values.keys():
            if isinstance(values[name], URL):
                values[name] = values[name].render_as_string(hide_password=False)
        if "schema" in values:
            values["schema_name"] = values.pop("schema")
        # An alias goes before the name of its field, so that the environment would win over the override.
        if "schema_name" in values:
            values[f"{PREFIX}SCHEMA"] = values.pop("schema_name")
        try:
            _warn_of_slips(cls)
            return cls(**values)
        except ValidationError as error:
            # Not chained: the cause carries the values.
            problems = [(_variable(found["loc"]), found["msg"]) for found in error.errors(include_input=False)]
        except UnicodeDecodeError:
            problems = [(ENV_FILE, "the file is not UTF-8")]
        except OSError as error:
            # Also where the current directory is closed to this user, so that nobody can tell whether there is one.
            problems = [(ENV_FILE, f"the file cannot be read: {error.strerror}")]
        (first, why), *others = problems
        raise InvalidValueError(first, "; ".join([why, *(f"{name}: {why}" for name, why in others)]))

    def to_url(self) -> URL:
        """Return the URL of the database; InvalidValueError when DATABASE_URL or the parts do not make one."""
        if self.url is None:
            return self._url_of_parts()
        url = read_url(self.url.get_secret_value(), f"{PREFIX}URL")
        return self._completed(url)

    def to_read_url(self) -> URL | None:
        """Return the URL of the replica for reads; None when there is none."""
        if self.read_url is None:
            return None
        return self._completed(read_url(self.read_url.get_secret_value(), f"{PREFIX}READ_URL"))

    def _completed(self, url: URL) -> URL:
        if not url.drivername.startswith("postgres"):
            return url
        if self.password is not None and url.password is None and "password" not in url.query:
            url = url.set(password=self.password.get_secret_value())
        return url.update_query_dict({key: value for key, value in self._tls() if key not in url.query})

    def _url_of_parts(self) -> URL:
        server_only = sorted({"host", "port", "user", "password"} & self.model_fields_set)
        if server_only and "type" not in self.model_fields_set:
            # Otherwise a forgotten DATABASE_TYPE would quietly put a production store into a local file.
            raise InvalidValueError(
                f"{PREFIX}TYPE", f"is not set, but {PREFIX}{server_only[0].upper()} is; say {PREFIX}TYPE=postgresql"
            )
        if self.type == "sqlite":
            return URL.create("sqlite", database=self.name or DEFAULT_SQLITE_FILE)
        query = dict(self._tls())
        host, port = self.host, self.port
        if host is not None and "," in host:
            query.update(_host_lists(host, f"{PREFIX}HOST", port))
            host = port = None
        elif host is not None and host.startswith("/"):
            # The directory of a Unix socket has no place before the path of a URL.
            query["host"], host = host, None
        return URL.create(
            "postgresql+psycopg",
            username=self.user,
            password=None if self.password is None else self.password.get_secret_value(),
            host=host,
            port=port,
            database=self.name,
            query=query,
        )

    def _tls(self) -> Iterator[tuple[str, str]]:
        if self.sslmode is not None:
            yield "sslmode", self.sslmode
        if self.sslrootcert is not None:
            yield "sslrootcert", self.sslrootcert

    @field_validator("statement_timeout", "idle_in_transaction_timeout", "tcp_timeout", "slow_operation")
    @classmethod
    def _zero_is_off(cls, value: float | None) -> float | None:
        return value or None


def read_url(text: str | URL, name: str) -> URL:
    """Return a database URL of any kind, also of several hosts (``postgresql://h1:5432,h2:5432/db``), as an object.

    What cannot be read raises InvalidValueError under ``name``; the message holds no part of the text, since any part
    of a malformed URL may be a password.
    """
    if isinstance(text, URL):
        return text
    if not isinstance(text, str) or any(not character.isprintable() for character in text):
        raise InvalidValueError(name, "is not a database URL")
    parts = _AUTHORITY.match(text)
    hosts = parts["hosts"] if parts else ""
    several = parts is not None and ("," in hosts or "%" in hosts)
    try:
        url = make_url(parts["head"] + parts["tail"] if parts is not None and several else text)
    except (ArgumentError, ValueError):
        # Not chained: the cause may quote a part of the text.
        url = None
    if url is None:
        raise InvalidValueError(name, "is not a database URL")
    if text.count("@") > 1 and ("@" in (url.host or "") or "@" in (url.database or "") or "@" in hosts):
        raise InvalidValueError(name, "an @ in the user or the password must be written as %40")
    if several:
        if "host" in url.query or "port" in url.query:
            raise InvalidValueError(name, "names hosts twice: before the path and among the parameters")
        url = url.update_query_dict(_host_lists(hosts, name))
    if url.port is not None and not 1 <= url.port <= _LAST_PORT:
        raise InvalidValueError(name, "the port is not within 1 to 65535")
    return url


_AUTHORITY = re.compile(r"(?P<head>postgres[\w+]*://(?:[^:/]*(?::[^@]*)?@)?)(?P<hosts>[^/?]*)(?P<tail>.*)\Z")
"""The hosts of a PostgreSQL URL and what stands on both sides, split where SQLAlchemy splits."""

_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{0,5}))?\Z")

_LAST_PORT = 65535


def _host_lists(hosts: str, name: str, port: int | None = None) -> dict[str, str]:
    """Return libpq's two lists of hosts and ports, which are what SQLAlchemy's dialect hands on.

    ``port`` is that of the hosts that name none.
    """
    names, ports = [], []
    for each in hosts.split(","):
        found = _HOST.match(each)
        if found is None or not 1 <= int(found["port"] or 5432) <= _LAST_PORT:
            raise InvalidValueError(name, "the list of hosts is not of the form host:port,host:port")
        names.append(unquote(found["ipv6"] or found["host"]))
        ports.append(found["port"] or "")
    lists = {"host": ",".join(names)}
    if port is not None or any(ports):
        lists["port"] = ",".join(each or str(port or 5432) for each in ports)
    return lists


def _variable(location: tuple[int | str, ...]) -> str:
    """Return the variable that pydantic's location means."""
    name = str(location[0])
    if name == "schema_name":
        name = "schema"
    return name if name.startswith(PREFIX) else PREFIX + name.upper()


def _warn_of_slips(settings: type[Settings]) -> None:
    known = {_variable((name,)).removeprefix(PREFIX) for name in settings.model_fields}
    for name in sorted(_given_names()):
        given = name.upper().removeprefix(PREFIX)
        if given in known:
            continue
        meant = OTHER_NAMES.get(given) or next(iter(difflib.get_close_matches(given, known, n=1, cutoff=0.75)), None)
        if meant is not None:
            warnings.warn(f"{name} is not a setting and has no effect; {PREFIX}{meant} is one", stacklevel=3)


def _given_names() -> set[str]:
    """Return the names, never the values, of all variables with our prefix."""
    names = set(os.environ)
    if Path(ENV_FILE).is_file():
        # python-dotenv comes with pydantic-settings, which reads the file with it.
        from dotenv import dotenv_values

        names.update(dotenv_values(ENV_FILE, encoding="utf-8", interpolate=False))
    return {name for name in names if name.upper().startswith(PREFIX)}
