"""Which URLs are understood, and what is shown of them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import URL, make_url

from agentos_store.engine.urls import display, parse_url, sqlite_path
from agentos_store.errors import InvalidValueError

SECRET = "hunter2"


def connect_arguments(url: str) -> dict[str, Any]:
    """Return what psycopg would be called with."""
    dialect: Any = PGDialect_psycopg
    arguments: dict[str, Any] = dialect().create_connect_args(parse_url(url))[1]
    return arguments


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_name_of_postgresql_means_the_same_driver(scheme: str) -> None:
    expected = URL.create("postgresql+psycopg", "u", "p", "h", 5433, "db", {"sslmode": "require"})
    assert parse_url(f"{scheme}://u:p@h:5433/db?sslmode=require") == expected


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_has_no_path(url: str) -> None:
    assert sqlite_path(url) is None


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite:///./store/registry.sqlite", "store/registry.sqlite"),
        ("sqlite:////var/lib/absolute.db", "/var/lib/absolute.db"),
        ("sqlite:///~/x.db", "~/x.db"),
        ("sqlite:///with%20space%3F.db", "with space?.db"),
        ("sqlite:///数据/登记.db", "数据/登记.db"),
    ],
)
def test_the_path_of_a_file_is_taken_as_it_is_written(url: str, path: str) -> None:
    assert sqlite_path(url) == Path(path)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://u:p@h1:5432,h2:5433/db", "h1,h2", "5432,5433"),
        ("postgresql://u:p@h1:5433,h2/db", "h1,h2", "5433,5432"),
        ("postgresql://u:p@h1,h2/db", "h1,h2", ","),
        ("postgresql://u:p@[::1]:5433,h2:1/db", "::1,h2", "5433,1"),
        ("postgresql://u:p@%2Frun%2Fpostgresql/db", "/run/postgresql", None),
        ("postgresql://u:p@/db?host=/run/postgresql", "/run/postgresql", None),
        ("postgresql://u:p@h:5433/db", "h", 5433),
    ],
)
def test_hosts_and_ports_reach_libpq(url: str, host: str, port: str | int | None) -> None:
    arguments = connect_arguments(url)
    assert (arguments["host"], arguments.get("port")) == (host, port)
    assert (arguments["user"], arguments["password"], arguments["dbname"]) == ("u", "p", "db")


def test_parameters_stay_beside_several_hosts() -> None:
    arguments = connect_arguments("postgresql://h1:1,h2:2/db?target_session_attrs=read-write")
    assert arguments["target_session_attrs"] == "read-write"


def test_several_hosts_survive_a_second_reading() -> None:
    once = parse_url("postgresql://u:p@h1:1,[::1]:2/db")
    assert parse_url(once) == once
    assert parse_url(once.render_as_string(hide_password=False)) == once


@pytest.mark.parametrize(
    "url",
    [
        "",
        SECRET,
        f"mysql://u:{SECRET}@h/db",
        f"postgresql+asyncpg://u:{SECRET}@h/db",
        f"postgresql:/u:{SECRET}@h/db",
        f"postgresql://u:p@{SECRET}@h/db",
        f"postgresql://u:p@{SECRET}/x@h/db",
        f"postgresql://u:p?x@{SECRET}@h/db",
        f"postgresql://u@h:{SECRET}/db",
        f"postgresql://u:{SECRET}@h:0/db",
        f"postgresql://u:{SECRET}@h:70000/db",
        f"postgresql://u:{SECRET}@h1:1,h2:x/db",
        f"postgresql://u:{SECRET}@h1:1,h2:99999/db",
        f"postgresql://u:{SECRET}@h1:1,h2:2/db?host=h3",
        f"postgresql://u:{SECRET}@h/db?sslmode=require&sslmode=disable",
        f"postgresql://u:{SECRET}@h/db\n",
        f"postgresql://u:{SECRET}\x00@h/db",
        f"sqlite://{SECRET}/x.db",
        f"sqlite:///file:{SECRET}.db",
        f"sqlite:///x.db?key={SECRET}",
    ],
)
def test_a_refused_url_is_not_quoted(url: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_url(url)
    assert caught.value.name == "url"
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        parse_url(5)  # type: ignore[arg-type]


def test_a_url_object_is_checked_like_a_text() -> None:
    with pytest.raises(InvalidValueError):
        parse_url(make_url("mysql://h/db"))
    assert parse_url(make_url("postgres://h/db")).drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{SECRET}@h/db", "postgresql://u:***@h/db"),
        (f"postgresql://u@h/db?password={SECRET}", "postgresql://u@h/db?password=***"),
        (
            f"postgresql://u@h/db?sslpassword={SECRET}&sslmode=require",
            "postgresql://u@h/db?sslmode=require&sslpassword=***",
        ),
        (f"postgresql://u@h/db?PASSWORD={SECRET}&password={SECRET}", "postgresql://u@h/db?PASSWORD=***&password=***"),
        (f"mysql://u:{SECRET}@h/db", "mysql://u:***@h/db"),
        ("sqlite:///x.db", "sqlite:///x.db"),
        (f"postgresql://u:p@{SECRET}@h/db", "(malformed URL)"),
        (SECRET, "(malformed URL)"),
    ],
)
def test_people_see_no_password(url: str, shown: str) -> None:
    assert display(url) == shown
