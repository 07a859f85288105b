"""What the environment may say, and what never comes out again."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy.engine import URL, make_url

from agentos_store.engine.postgresql import connect
from agentos_store.engine.urls import parse_url
from agentos_store.errors import InvalidValueError
from agentos_store.settings import Settings

SECRET = "p@ss:/w#rd?%"


@pytest.fixture(autouse=True)
def _no_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_any_variable_the_store_is_a_file_in_the_working_directory() -> None:
    settings = Settings.load()
    assert settings.to_url().render_as_string() == "sqlite:///./store/registry.sqlite"
    assert settings.to_read_url() is None
    assert (settings.pool_size, settings.max_overflow, settings.pool_timeout, settings.pool_recycle) == (
        10,
        20,
        30,
        3600,
    )
    assert (settings.durability, settings.auto_migrate, settings.append_only) == ("full", "verify", "trigger")


def test_a_password_with_reserved_characters_survives_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_TYPE", "postgresql")
    monkeypatch.setenv("DATABASE_HOST", "db")
    monkeypatch.setenv("DATABASE_USER", "a@b")
    monkeypatch.setenv("DATABASE_PASSWORD", SECRET)
    monkeypatch.setenv("DATABASE_NAME", "agentos")
    url = make_url(Settings.load().to_url().render_as_string(hide_password=False))
    assert (url.username, url.password, url.host, url.database) == ("a@b", SECRET, "db", "agentos")
    assert url.drivername == "postgresql+psycopg"


def test_the_parts_make_a_url_with_tls() -> None:
    settings = Settings.load(
        type="postgresql", host="db", port=6432, name="n", sslmode="verify-full", sslrootcert="/etc/ca.pem"
    )
    url = settings.to_url()
    assert (url.host, url.port) == ("db", 6432)
    assert url.query == {"sslmode": "verify-full", "sslrootcert": "/etc/ca.pem"}


def test_a_socket_directory_is_a_host() -> None:
    url = Settings.load(type="postgresql", host="/run/postgresql", name="n").to_url()
    assert (url.host, url.query) == (None, {"host": "/run/postgresql"})


def test_the_url_goes_before_the_parts() -> None:
    settings = Settings.load(url="postgresql://u@h/db", host="other", user="other", name="other")
    assert settings.to_url() == make_url("postgresql://u@h/db")


def test_a_url_takes_from_the_parts_the_password_and_the_tls_that_it_lacks() -> None:
    parts = {"password": SECRET, "sslmode": "verify-full"}
    lacking = Settings.load(url="postgresql://u@h/db", **parts).to_url()
    assert (lacking.password, lacking.query) == (SECRET, {"sslmode": "verify-full"})
    complete = Settings.load(url="postgresql://u:own@h/db?sslmode=disable", **parts).to_url()
    assert (complete.password, complete.query) == ("own", {"sslmode": "disable"})
    assert Settings.load(url="sqlite:///x.db", **parts).to_url() == make_url("sqlite:///x.db")


def test_the_url_of_a_replica_takes_what_it_lacks_in_the_same_way() -> None:
    settings = Settings.load(read_url="postgresql://u@r1,r2/db", password=SECRET, sslrootcert="/etc/ca.pem")
    url = settings.to_read_url()
    assert url is not None
    assert (url.password, url.query) == (SECRET, {"host": "r1,r2", "sslrootcert": "/etc/ca.pem"})


def test_a_url_object_keeps_its_password() -> None:
    given = URL.create("postgresql", "u", SECRET, "h", database="db")
    assert Settings.load(url=given, read_url=given).to_url() == given
    assert Settings.load(url=given, read_url=given).to_read_url() == given


def test_the_schema_has_the_name_that_the_interface_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_SCHEMA", "tenant_a")
    assert Settings.load().schema_name == "tenant_a"
    assert Settings.load(schema="tenant_b").schema_name == "tenant_b"
    assert Settings.load(schema_name="tenant_b").schema_name == "tenant_b"
    assert Settings.load(schema=None).schema_name == "tenant_a"


def test_the_environment_goes_before_the_env_file_and_an_override_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("DATABASE_POOL_SIZE=3\nDATABASE_RETRIES=7\nOTHER_PROGRAM=x\n", encoding="utf-8")
    monkeypatch.setenv("DATABASE_POOL_SIZE", "4")
    settings = Settings.load()
    assert (settings.pool_size, settings.retries) == (4, 7)
    assert Settings.load(pool_size=5).pool_size == 5


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("DATABASE_PORT", "")
    assert Settings.load().to_url().drivername == "sqlite"


def test_zero_switches_a_limit_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().idle_in_transaction_timeout == 60.0
    monkeypatch.setenv("DATABASE_IDLE_IN_TRANSACTION_TIMEOUT", "0")
    monkeypatch.setenv("DATABASE_STATEMENT_TIMEOUT", "2.5")
    monkeypatch.setenv("DATABASE_TCP_TIMEOUT", "0")
    monkeypatch.setenv("DATABASE_RECONNECT_TIMEOUT", "0")
    settings = Settings.load()
    assert (settings.tcp_timeout, settings.reconnect_timeout) == (None, 0)
    assert settings.idle_in_transaction_timeout is None
    assert settings.statement_timeout == 2.5


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_TYPE", "oracle"),
        ("DATABASE_PORT", "70000"),
        ("DATABASE_POOL_SIZE", "many"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_BUSY_TIMEOUT", "-1"),
        ("DATABASE_LOCK_TIMEOUT", "nan"),
        ("DATABASE_LOCK_TIMEOUT", "1e9"),
        ("DATABASE_MIGRATION_TIMEOUT", "inf"),
        ("DATABASE_DURABILITY", "none"),
        ("DATABASE_RECONNECT_TIMEOUT", "-1"),
        ("DATABASE_READ_WAIT", "nan"),
        ("DATABASE_TCP_TIMEOUT", "1e9"),
        ("DATABASE_SSLMODE", "yes"),
        ("DATABASE_PREPARE_STATEMENTS", "perhaps"),
        ("DATABASE_RETRY_JITTER", "2"),
    ],
)
def test_a_refused_value_is_named_by_its_variable(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidValueError, match=variable) as caught:
        Settings.load()
    assert caught.value.name == variable
    assert value not in caught.value.why.split()


def test_every_refused_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PORT", "x")
    monkeypatch.setenv("DATABASE_RETRIES", "x")
    with pytest.raises(InvalidValueError, match=r"DATABASE_PORT: .*; DATABASE_RETRIES: "):
        Settings.load()


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="poolsize: there is no such setting"):
        Settings.load(poolsize=3)


def test_a_server_without_its_type_does_not_become_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_HOST", "db")
    with pytest.raises(InvalidValueError, match="DATABASE_TYPE=postgresql"):
        Settings.load().to_url()
    assert Settings.load(type="sqlite").to_url().drivername == "sqlite"
    assert Settings.load(url="sqlite:///x.db").to_url().database == "x.db"


def test_no_secret_is_shown() -> None:
    settings = Settings.load(
        url=f"postgresql://u:{SECRET}@h/db", password=SECRET, read_url=f"postgresql://u:{SECRET}@r/db"
    )
    for shown in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in shown


def test_a_refused_secret_stays_out_of_the_error() -> None:
    for value in ({"password": [SECRET]}, {"url": [SECRET]}, {"read_url": {"a": SECRET}}):
        with pytest.raises(InvalidValueError) as caught:
            Settings.load(**value)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(ValidationError) as direct:
            Settings(**value)
        assert SECRET not in str(direct.value)


@pytest.mark.parametrize("url", [SECRET, f"postgresql://u:p@{SECRET}@h/db", f"postgresql://h:{SECRET}/db"])
def test_a_malformed_url_stays_out_of_the_error(url: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Settings.load(url=url).to_url()
    assert caught.value.name == "DATABASE_URL"
    shown = "".join(traceback.format_exception(caught.value))
    assert "p@ss" not in shown
    assert "w#rd" not in shown


def test_a_setting_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings.load().pool_size = 3


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("DATABASE_PASSWRD", "DATABASE_PASSWORD"),
        ("DATABASE_PASS", "DATABASE_PASSWORD"),
        ("DATABASE_POOLSIZE", "DATABASE_POOL_SIZE"),
        ("DATABASE_USERNAME", "DATABASE_USER"),
        ("database_ssl_mode", "DATABASE_SSLMODE"),
        ("DATABASE_SCHEMAS", "DATABASE_SCHEMA"),
    ],
)
def test_a_slip_in_a_name_is_reported_without_its_value(
    given: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(given, SECRET)
    with pytest.warns(UserWarning, match=f"{given} .*{meant} ") as caught:
        Settings.load()
    assert [SECRET in str(warning.message) for warning in caught] == [False]
    assert caught[0].filename == __file__


def test_a_slip_in_the_env_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_POOLSIZE='{SECRET}'\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="DATABASE_POOLSIZE .*DATABASE_POOL_SIZE "):
        Settings.load()


def test_other_programs_variables_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_PUBLIC_URL", "DATABASE_URL_UNPOOLED", "DATABASE_DIRECT_URL", "DATABASE_TEST_URL"):
        monkeypatch.setenv(name, "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Settings.load()


@pytest.mark.parametrize(
    ("given", "port", "hosts", "ports"),
    [
        ("db1,db2", None, "db1,db2", None),
        ("db1,db2:5433", None, "db1,db2", "5432,5433"),
        ("db1,[::1]:5433", "6000", "db1,::1", "6000,5433"),
        ("/run/a,/run/b", "6000", "/run/a,/run/b", "6000,6000"),
    ],
)
def test_several_hosts_may_be_named_by_parts_too(
    given: str, port: str | None, hosts: str, ports: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.load(type="postgresql", host=given, name="registry", port=port)
    url = settings.to_url()
    assert (url.host, url.port, url.query["host"], url.query.get("port")) == (None, None, hosts, ports)
    assert connect.has_several_hosts(url)
    with pytest.raises(InvalidValueError, match="DATABASE_HOST"):
        Settings.load(type="postgresql", host="a:b:c,d").to_url()


@pytest.mark.parametrize("query", ["host=a,b&port=5432", "host=a&port=sekret", "host=a:1&host=b:2&port=1,2"])
def test_hosts_and_ports_that_do_not_go_together_are_refused(query: str) -> None:
    with pytest.raises(InvalidValueError, match="hosts and ports") as caught:
        connect.connector(parse_url(f"postgresql:///registry?{query}"), Settings.load())
    assert "sekret" not in "".join(traceback.format_exception(caught.value))


def test_an_env_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"DATABASE_PASSWORD=\xff\xfe\n")
    with pytest.raises(InvalidValueError, match=r"\.env: the file is not UTF-8"):
        Settings.load()
