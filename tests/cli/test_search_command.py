"""``agentos-store search``: hits of every kind in one list, each with the place and the match marked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store

Run = Callable[..., Any]


@pytest.fixture
def filled_store(cli: Run, url: str, store: Store, tmp_path: Path) -> Store:
    """Something of every kind."""
    store.projects.create(id="shop", path="/srv/shop", name="Shop")
    (tmp_path / "notes").mkdir()
    text = "# 数据库\n\n## 迁移\n\n先备份。\n\n再做数据库迁移，一步一步来。\n\n## 其他\n\n天气很好。\n"
    (tmp_path / "notes" / "db.md").write_text(text, encoding="utf-8")
    cli("--url", url, "kb", "add", tmp_path / "notes")
    cli("--url", url, "kb", "add", tmp_path / "notes", "--project", "shop")
    store.memory.remember("数据库迁移要先备份", scope="project", scope_id="shop", type="fact", project_id="shop")
    session = store.sessions.create()
    store.messages.append(session.id, role="user", content="什么时候做数据库迁移？")
    return store


def test_all_kinds_are_found_in_one_list_the_best_first(cli: Run, url: str, filled_store: Store) -> None:
    result = cli("--url", url, "search", "数据库", "迁移", "--json")
    assert (result.code, result.err, result.json["query"]) == (0, "", "数据库 迁移")
    hits = result.json["hits"]
    assert sorted(hit["kind"] for hit in hits) == ["chunk", "chunk", "memory", "message"]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all("«数据库»" in hit["snippet"] and "«迁移»" in hit["snippet"] for hit in hits)
    by_kind = {hit["kind"]: hit for hit in hits}
    chunk = by_kind["chunk"]
    assert (chunk["heading"], chunk["line"], chunk["start_line"], chunk["end_line"]) == ("数据库 > 迁移", 7, 1, 7)
    assert chunk["where"] == f"{chunk['path']}:7"
    assert (by_kind["memory"]["scope"], by_kind["memory"]["scope_id"]) == ("project", "shop")
    assert by_kind["message"]["where"] == f"session {by_kind['message']['session_id']} #{by_kind['message']['seq']}"


def test_a_kind_a_project_and_a_number_narrow_what_is_found(cli: Run, url: str, filled_store: Store) -> None:
    def kinds(*options: str) -> list[str]:
        return sorted(hit["kind"] for hit in cli("--url", url, "search", "迁移", *options, "--json").json["hits"])

    assert kinds("--kind", "memory") == ["memory"]
    assert kinds("--kind", "message", "--kind", "memory", "--kind", "memory") == ["memory", "message"]
    assert kinds("--project", "shop") == ["chunk", "memory"]
    assert len(kinds("--limit", "1")) == 1
    assert cli("--url", url, "search", "迁移", "--kind", "task").code == 2
    cli("--url", url, "search", "迁移", "--limit", "0").assert_refused(4, "limit")


WORDS = [
    (["数据库", "-备份"], 3),
    (["-备份", "数据库"], 3),
    (["--", "-备份"], 0),
    (['"数据库迁移"'], 4),
    (["数*"], 6),
    (["图书馆"], 0),
    (["C++"], 0),
    (["***"], 0),
    (["NOT", "'", '"'], 0),
    (["天气", "很好"], 2),
    (["ｘ" * 30_000], 0),
]


def test_words_are_understood_as_by_every_search(cli: Run, url: str, filled_store: Store) -> None:
    for words, count in WORDS:
        result = cli("--url", url, "search", "--json", *words)
        assert (result.code, result.err, len(result.json["hits"])) == (0, "", count), words


def test_a_slip_in_an_option_is_no_word(cli: Run, sqlite_url: str, sqlite_template: Path) -> None:
    cli("--url", f"sqlite:///{sqlite_template}", "search", "word", "--limt", "5").assert_refused(2, "--limt")
    cli("--url", sqlite_url, "search", "word").assert_refused(3, "registry.sqlite")


def test_people_see_the_place_and_the_match(cli: Run, url: str, filled_store: Store, tmp_path: Path) -> None:
    out = cli("--url", url, "search", "备份", "--kind", "chunk", "--project", "shop").out
    head, piece = out.splitlines()
    assert head.startswith(f"{(tmp_path / 'notes').resolve()}/db.md:5  数据库 > 迁移  (chunk ")
    assert piece.startswith("    ")
    assert "先«备份»。" in piece
    assert cli("--url", url, "search", "图书馆").out == "nothing found\n"
    assert cli("--url", url, "search", "***").out.startswith("nothing found: ")


def test_a_terminal_shows_the_match_in_bold_unless_no_colours_are_wanted(
    cli: Run, url: str, filled_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = cli("--url", url, "search", "备份", "--kind", "memory").out
    assert "\x1b[1;31m备份\x1b[0m" in out
    assert "«" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    out = cli("--url", url, "search", "备份", "--kind", "memory").out
    assert "«备份»" in out
    assert "\x1b" not in out


def test_what_drives_a_terminal_is_not_shown(cli: Run, url: str, store: Store) -> None:
    store.memory.remember("before \x1b[31m needle \x07 \ufdd0 [bold]after[/bold]", scope="global", type="fact")
    out = cli("--url", url, "search", "needle").out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "«needle»" in out
    assert "[bold]after[/bold]" in out
