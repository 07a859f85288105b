"""Database URLs: the two kinds that the library knows, told apart and shown without their secrets."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL

from agentos_store.errors import InvalidValueError

SQLITE = "sqlite"

POSTGRESQL = "postgresql+psycopg"

DRIVERS = {"sqlite": SQLITE, "postgresql": POSTGRESQL, "postgres": POSTGRESQL, "postgresql+psycopg": POSTGRESQL}

SECRET_PARAMETERS = {"oauth_client_secret", "password", "scram_client_key", "scram_server_key", "sslpassword"}
"""Parameters of libpq that nobody may read."""

HIDDEN = "***"


def parse_url(url: str | URL) -> URL:
    """Return the URL with the driver ``sqlite`` or ``postgresql+psycopg``.

    Several hosts (``postgresql://h1:5432,h2:5432/db``) become the lists ``host`` and ``port`` among the parameters.
    Anything else raises InvalidValueError, whose message holds no part of the URL.
    """
    # pydantic takes 0.1 s to import, and whoever only imports the library reads no URL.
    from agentos_store.settings import read_url

    parsed = read_url(url, "url")
    driver = DRIVERS.get(parsed.drivername)
    if driver is None:
        raise InvalidValueError("url", f"does not begin with one of {', '.join(f'{known}://' for known in DRIVERS)}")
    if driver == SQLITE:
        _check_sqlite(parsed)
    elif any(not isinstance(value, str) for key, value in parsed.query.items() if key not in {"host", "port"}):
        raise InvalidValueError("url", "names a parameter twice")
    return parsed.set(drivername=driver)


def sqlite_path(url: str | URL) -> Path | None:
    """Return the file of an SQLite URL as it is written there; None for a database in memory."""
    database = parse_url(url).database
    return Path(database) if database and database != ":memory:" else None


def display(url: str | URL) -> str:
    """Return the URL for people to read, without passwords; what is no URL gives ``(malformed URL)``."""
    from agentos_store.settings import read_url

    try:
        parsed = read_url(url, "url")
    except InvalidValueError:
        return "(malformed URL)"
    secrets = {key: HIDDEN for key in parsed.query if key.lower() in SECRET_PARAMETERS}
    return parsed.update_query_dict(secrets).render_as_string(hide_password=True).replace("%2A%2A%2A", HIDDEN)


def _check_sqlite(url: URL) -> None:
    if url.host or url.username or url.password or url.port:
        raise InvalidValueError("url", "a file needs three slashes (sqlite:///relative.db) or four (sqlite:////abs.db)")
    if (url.database or "").startswith("file:"):
        raise InvalidValueError("url", "SQLite's file: URIs are not supported; write sqlite:///path")
    if url.query:
        raise InvalidValueError("url", "an SQLite URL takes no parameters; settings go into DATABASE_ variables")
