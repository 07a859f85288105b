"""``agentos-store import``: each source comes in by one command, and what is wrong with it is one clear line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.testing.chapter14 import KINDS, make_agent_store
from agentos_store.testing.registries import make_registry

Run = Callable[..., Any]

KEYS = {
    *("source", "shape", "version", "counts", "not_yet", "no_place", "repairs", "set_aside", "unlisted", "exported"),
}

TURNS = [{"role": "user", "content": "今天天气怎么样？"}, {"role": "assistant", "content": "晴"}]


@pytest.fixture
def agent_store(tmp_path: Path) -> Path:
    """A database of chapter 14 with every flaw."""
    path = tmp_path / "agent_store.db"
    make_agent_store(path)
    return path


def test_an_agent_store_of_chapter_14_comes_in_and_a_second_time_changes_nothing(
    cli: Run, url: str, agent_store: Path
) -> None:
    report = cli("--url", url, "import", "chapter14", agent_store, "--json")
    assert (report.code, report.err, set(report.json)) == (0, "", KEYS)
    assert (report.json["shape"], report.json["source"]) == ("chapter14", str(agent_store))
    assert list(report.json["counts"]) == list(KINDS)
    again = cli("--url", url, "import", "chapter14", agent_store, "--json").json
    assert sum(counts["imported"] for counts in again["counts"].values()) == 0
    rows = cli("--url", url, "status", "--json").json["rows"]
    assert rows["messages"] == report.json["counts"]["messages"]["imported"]
    shown = cli("--url", url, "import", "chapter14", agent_store)
    assert shown.code == 0
    assert "Chapter 14" in shown.out
    assert "set aside" in shown.out


def test_knowledge_of_a_registry_belongs_to_the_project_that_is_given(cli: Run, url: str, tmp_path: Path) -> None:
    path = tmp_path / "source.sqlite"
    make_registry(path, tasks=1, flaws=False)
    importing = ("--url", url, "import", "agentos", path, "--knowledge-project")
    cli(*importing, "nowhere").assert_refused(3, "nowhere")
    counts = cli(*importing, "infra", "--json").json["counts"]
    kinds = ("memory", "sources", "chunks", "embeddings")
    assert {kind: counts[kind]["imported"] for kind in kinds} == dict(zip(kinds, (2, 2, 6, 6), strict=True))
    with Store.open(url) as store:
        assert store.kb.count_sources(project_id="infra") == 2


def test_keep_status_lets_tasks_of_chapter_14_wait(cli: Run, sqlite_url: str, agent_store: Path) -> None:
    assert cli("--url", sqlite_url, "import", "chapter14", agent_store, "--keep-status", "--json").code == 0
    waiting = cli("--url", sqlite_url, "tasks", "list", "--status", "pending", "--json").json["items"]
    assert len(waiting) >= 3


def test_transcripts_come_in_and_a_second_time_change_nothing(cli: Run, url: str, tmp_path: Path) -> None:
    path = tmp_path / "transcripts.jsonl.gz"
    records = [{"messages": TURNS, "reward": 1.0, "task_id": 3}, {"messages": [{"role": "oracle"}]}]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    report = cli("--url", url, "import", "openai", path, "--json")
    assert (report.code, report.err, set(report.json)) == (0, "", KEYS)
    assert (report.json["shape"], list(report.json["counts"])) == (
        "jsonl",
        ["sessions", "messages", "tool_calls", "tasks"],
    )
    (aside,) = report.json["set_aside"]
    assert (aside["table"], aside["key"]) == ("sessions", "line 2")
    shown = cli("--url", url, "import", "openai", path)
    assert shown.code == 0
    assert "OpenAI" in shown.out
    assert "line 2" in shown.out
    rows = cli("--url", url, "status", "--json").json["rows"]
    assert (rows["sessions"], rows["messages"], rows["tasks"]) == (1, 2, 1)


def test_the_key_of_the_messages_can_be_said(cli: Run, sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "two.json"
    path.write_text(json.dumps([{"asked": TURNS, "said": TURNS[:1]}]))
    cli("--url", sqlite_url, "import", "openai", path).assert_refused(4, "'asked', 'said'", "key")
    report = cli("--url", sqlite_url, "import", "openai", path, "--key", "said", "--json").json
    assert report["counts"]["messages"]["imported"] == 1


@pytest.mark.parametrize("command", ["chapter14", "openai"])
def test_a_slip_in_the_name_of_the_file_leaves_no_store_behind(
    cli: Run, sqlite_url: str, tmp_path: Path, command: str
) -> None:
    cli("--url", sqlite_url, "import", command, tmp_path / "none").assert_refused(3, "none")
    text = tmp_path / "text"
    text.write_text("neither of both")
    cli("--url", sqlite_url, "import", command, text).assert_refused(4, "path")
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
