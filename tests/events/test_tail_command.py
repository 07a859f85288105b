"""The command that shows the newest events, and those that come."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable

import pytest

from agentos_store import Store
from agentos_store.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the test's database and returns its exit code, its output and its errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentos-store", "--url", url, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        assert "Traceback" not in printed.err
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture
def logged(store: Store) -> Store:
    for n in range(6):
        store.events.log(
            f"type{n % 2}", agent_id=f"a{n % 3}", data={"n": n, "text": "天气\n\u2028"}, severity="warning"
        )
    return store


@pytest.mark.usefixtures("logged")
def test_tail_shows_the_newest_events(run: Run) -> None:
    code, out, _ = run("tail", "-n", "2")
    assert code == 0
    assert [word for word in ("type0", "type1", "a1", "a2", "warning", "天气") if word not in out] == []
    assert "a0" not in out
    code, out, _ = run("tail", "--json", "--type", "type1", "--agent", "a0")
    assert code == 0
    assert [event["data"]["n"] for event in json.loads(out)] == [3]


@pytest.mark.usefixtures("logged")
def test_tail_follows_and_goes_on_behind_a_bookmark(run: Run, logged: Store) -> None:
    code, out, _ = run("tail", "--follow", "--timeout", "0", "-n", "1", "--json", "--agent", "a2")
    assert code == 0
    (line,) = out.splitlines()
    assert json.loads(line)["data"] == {"n": 5, "text": "天气\n\u2028"}
    (event,) = list(logged.events.subscribe(after=logged.events.tail(n=2)[0].position, timeout=0))
    logged.events.log("x", data={"n": 6})
    assert event.bookmark is not None
    code, out, _ = run("tail", "--bookmark", event.bookmark, "--json")
    assert [json.loads(line)["data"]["n"] for line in out.splitlines()] == [6]
    assert json.loads(out)["bookmark"]


@pytest.mark.usefixtures("logged")
def test_tail_prints_what_comes(run: Run, logged: Store) -> None:
    # Whether it comes before the command looks, or while it waits, it is shown once.
    logging = threading.Thread(target=lambda: logged.events.log("late", data="\x1b[2J"))
    logging.start()
    code, out, _ = run("tail", "--follow", "--timeout", "1", "-n", "1")
    logging.join()
    assert code == 0
    assert out.count("late") == 1
    assert "\x1b" not in out


def test_tail_refuses_what_no_event_has(run: Run) -> None:
    for wrong in (("--severity", "fatal"), ("--channel", "x"), ("-n", "0"), ("--bookmark", "x")):
        code, out, err = run("tail", *wrong)
        assert (code, out) == (4, ""), wrong
        assert err.startswith("error: ")
        assert err.count("\n") == 1
