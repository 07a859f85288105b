"""Rows become records in the store's terms; what was wrong with one is repaired, or it is set aside, and said so."""

from __future__ import annotations

import datetime as dt
import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from agentos_store.importers.agentos.projects import NAME_LENGTH
from agentos_store.importers.agentos.registry import Registry, open_registry
from agentos_store.importers.problems import Problem
from agentos_store.testing.registries import make_registry
from agentos_store.testing.registry_rows import DOMAINS

T = TypeVar("T")
Small = Callable[..., Path]
Made = tuple[Path, dict[str, Any]]


def records(items: Iterable[T | Problem]) -> list[T]:
    return [item for item in items if not isinstance(item, Problem)]


def problems(items: Iterable[object]) -> list[Problem]:
    return [item for item in items if isinstance(item, Problem)]


def test_the_counts_are_those_that_the_registry_was_made_for(made: Made) -> None:
    path, manifest = made
    with open_registry(path) as registry:
        for domain in DOMAINS:
            items: list[Any] = list(getattr(registry, domain)())
            read = records(items)
            merged = sum(getattr(record, "merged", 0) for record in read)
            assert manifest["expected"][domain] == {
                "rows": len(items) + merged,
                "imported": len(read),
                "repaired": sum(bool(record.repairs) for record in read),
                "set_aside": len(problems(items)),
                "merged": merged,
            }, domain


def test_a_registry_without_flaws_needs_no_repair(tmp_path: Path) -> None:
    for shape in ("agentos", "document"):
        make_registry(tmp_path / shape, shape=shape, flaws=False)
        with open_registry(tmp_path / shape) as registry:
            for domain in DOMAINS:
                assert not [item for item in getattr(registry, domain)() if isinstance(item, Problem) or item.repairs]


def test_reading_twice_gives_the_same(made: Made) -> None:
    with open_registry(made[0]) as first, open_registry(made[0]) as second:
        for domain in DOMAINS:
            once = list(getattr(first, domain)())
            assert once == list(getattr(first, domain)())
            assert once == list(getattr(second, domain)())


def test_made_registries_are_the_same_each_time(tmp_path: Path) -> None:
    manifests = [make_registry(tmp_path / name) for name in ("a", "b")]
    assert manifests[0] == manifests[1]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_shared_reference_leads_to_several_tasks(made: Made) -> None:
    path, manifest = made
    with open_registry(path) as registry:
        links = records(registry.lineage())
    for reference in (manifest["shared_artifact"], manifest["shared_commit"]):
        assert len({link.task_id for link in links if link.ref_id == reference}) > 1


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("draft", "created", "created"),
        ("approved", "created", "created"),
        ("orphan", "created", "created"),
        ("created", "created", "created"),
        ("queued", "paused", "pending"),
        ("running", "paused", "running"),
        ("executing", "paused", "running"),
        ("verifying", "paused", "running"),
        ("VERIFIED", "paused", "running"),
        ("blocked", "blocked", "blocked"),
        ("done", "completed", "completed"),
        ("succeeded", "completed", "completed"),
        ("canceled", "cancelled", "cancelled"),
        ("Failed", "failed", "failed"),
        ("zombie", "paused", "paused"),
    ],
)
def test_each_status_has_its_word(small: Small, old: str, new: str, kept: str) -> None:
    metadata = json.dumps({"agentos": "the user's own", "exit_reason": "timeout"})
    path = small(("UPDATE tasks SET status = ?, metadata = ?", (old, metadata)))
    with open_registry(path) as registry:
        task = records(registry.tasks())[0]
        assert (task.status, task.exit_reason) == (new, "timeout")
        assert records(registry.tasks(keep_status=True))[0].status == kept
    assert task.metadata is not None
    assert task.metadata["agentos"] == "the user's own"
    changed = old != new
    assert task.legacy_status == (old if changed else None)
    assert task.metadata.get("agentos_1") == ({"status": old.casefold()} if changed else None)


def test_a_task_keeps_what_has_no_field_of_its_own(small: Small) -> None:
    title = "长" * 501
    path = small(
        (
            "UPDATE tasks SET title = ?, session_id = 'gone', status = 'done', metadata = '[1]', route_plan_json = '{'",
            (title,),
        ),
        tasks=1,
    )
    with open_registry(path) as registry:
        (task,) = records(registry.tasks())
    assert (task.title, task.session_id, task.route_plan_json) == (title[:500], None, None)
    assert task.metadata == {
        "agentos": {"title": title, "session_id": "gone", "status": "done", "metadata": [1], "route_plan_json": "{"}
    }
    assert len(task.repairs) == 4


def test_missing_words_are_said_to_be_missing(small: Small) -> None:
    path = small(("UPDATE tasks SET title = ' ', status = 'failed', metadata = NULL", ()), tasks=1)
    with open_registry(path) as registry:
        (task,) = records(registry.tasks())
    assert (task.title, task.exit_reason, task.metadata) == ("(untitled)", "(not recorded)", None)


def test_a_task_without_times_has_those_of_its_key(small: Small) -> None:
    path = small(
        ("UPDATE tasks SET created_at = NULL, updated_at = 'soon', task_id = '01KEKGDM56Y80QM5NF7KXH8Q7P'", ()), tasks=1
    )
    with open_registry(path) as registry:
        (task,) = records(registry.tasks())
    assert task.created_at == task.updated_at
    assert task.created_at == dt.datetime(2026, 1, 10, 8, 30, 0, 358000, tzinfo=dt.UTC)


@pytest.mark.parametrize("task_id", [None, "", "a\nb", "x" * 256])
def test_a_task_without_a_usable_key_is_set_aside(small: Small, task_id: str | None) -> None:
    path = small(("UPDATE tasks SET task_id = ?", (task_id,)), tasks=1)
    with open_registry(path) as registry:
        assert len(problems(registry.tasks())) == 1
        assert not records(registry.lineage())
        assert not records(registry.audits())


def test_an_audit_that_would_vouch_for_erased_ones_is_set_aside(small: Small) -> None:
    path = small(("UPDATE task_audits SET level = 'info', event_type = 'audit.erased', payload = '{}'", ()), tasks=1)
    with open_registry(path) as registry:
        assert not records(registry.audits())
        assert any("only an erasure records" in problem.reason for problem in problems(registry.audits()))


def test_rotated_audits_are_turned_back(made: Made) -> None:
    path, _ = made
    with open_registry(path) as registry:
        turned = [audit for audit in records(registry.audits()) if any("rotated" in it.what for it in audit.repairs)]
    assert [(audit.level, audit.event_type, audit.repo_id) for audit in turned] == [
        (level, "repo_commit", "web-shop_frontend") for level in ("info", "warning", "error")
    ]
    assert [audit.decision_id for audit in turned] == [None, "rotated_1", "rotated_2"]
    assert [audit.payload["说明"] for audit in turned if isinstance(audit.payload, dict)] == ["旧数据"] * 3
    assert [audit.created_at for audit in turned] == sorted(audit.created_at for audit in turned)


@pytest.mark.parametrize(
    ("columns", "rotated"),
    [
        (("info", "repo_commit", "{}", "2026-01-10 08:00:00"), True),
        (("WARN", "repo_commit", None, "2026-01-10T08:00:00"), True),
        (("info", "info", "repo_commit", "{}"), False),
        (("web-shop_api", "notice", "repo_commit", "2026-01-10 08:00:00"), False),
        (("info", "notice", "repo_commit", "{}"), False),
        (("info", "notice", "repo_commit", None), False),
        ((None, "info", "NOTE", '"2026-01-10 08:00:00"'), False),
    ],
)
def test_a_good_audit_is_never_turned(small: Small, columns: tuple[str | None, ...], rotated: bool) -> None:
    path = small(("UPDATE task_audits SET repo_id = ?, level = ?, event_type = ?, payload = ?", columns), tasks=1)
    with open_registry(path) as registry:
        audit = records(registry.audits())[0]
    assert any("rotated" in repair.what for repair in audit.repairs) is rotated
    if not rotated:
        assert audit.repo_id == columns[0]


@pytest.mark.parametrize(
    ("text", "payload", "has_payload", "repaired"),
    [
        (None, None, False, False),
        ("null", None, True, False),
        ('{"b": 1e16, "a": -0.0, "z": "\\u4e2d"}', {"b": 1e16, "a": -0.0, "z": "中"}, True, False),
        ('"\\u0000\\ud800"', "\x00\ud800", True, False),
        ('{"cut": ["src/截断', {"unparsed": '{"cut": ["src/截断'}, True, True),
        ("", {"unparsed": ""}, True, True),
        ("[NaN]", {"unparsed": "[NaN]"}, True, True),
        ("1e999", {"unparsed": "1e999"}, True, True),
        ("[" * 501 + "]" * 501, {"unparsed": "[" * 501 + "]" * 501}, True, True),
        ("[" * 100_000, {"unparsed": "[" * 100_000}, True, True),
        ('{"a": 1, "a": 2}', {"a": 2}, True, True),
    ],
)
def test_a_payload_stays_exact_or_stays_as_text(
    small: Small,
    text: str | None,
    payload: object,
    has_payload: bool,
    repaired: bool,
) -> None:
    path = small(("UPDATE task_audits SET payload = ? WHERE audit_id = 1", (text,)), tasks=1)
    with open_registry(path) as registry:
        audit = records(registry.audits())[0]
    assert (audit.payload, audit.has_payload, bool(audit.repairs)) == (payload, has_payload, repaired)
    if isinstance(payload, dict):
        assert list(audit.payload) == list(payload)  # type: ignore[arg-type]


def test_text_that_is_no_text_is_repaired_wherever_it_stands(small: Small) -> None:
    path = small(
        ("UPDATE tasks SET title = CAST(? AS TEXT), created_by = ?", (b"caf\xe9\xff", "a\x00b")),
        ("UPDATE tasks SET metadata = ?", ('{"k\\u0000": ["\\ud800", {"deep": "\\u0000"}]}',)),
        ("UPDATE task_audits SET payload = CAST(? AS TEXT)", (b'{"name": "caf\xe9"}',)),
        tasks=1,
    )
    with open_registry(path) as registry:
        (task,) = records(registry.tasks())
        audit = records(registry.audits())[0]
    assert (task.title, task.created_by) == ("caf\ufffd\ufffd", "a\ufffdb")
    assert task.metadata is not None
    assert task.metadata["k\ufffd"] == ["\ufffd", {"deep": "\ufffd"}]
    assert audit.payload == {"name": "caf\ufffd"}
    assert len(task.repairs) == 3
    assert len(audit.repairs) == 1


def test_a_session_of_two_tables_is_one_record(small: Small) -> None:
    path = small(
        ("DELETE FROM webui_sessions", ()),
        ("DELETE FROM chat_sessions", ()),
        ("DELETE FROM task_sessions", ()),
        ("INSERT INTO task_sessions VALUES ('s', 'auto', '{\"a\": 1, \"b\": 1}', '2026-01-02', '2026-01-03')", ()),
        ("INSERT INTO chat_sessions VALUES ('s', 'Chat', 't', '2026-01-01', '2026-01-02', '{\"b\": 2}')", ()),
        ("INSERT INTO webui_sessions VALUES ('s', '用户三', '2026-01-05', '2026-01-06', '{\"title\": \"Web\"}')", ()),
    )
    with open_registry(path) as registry:
        (session,) = records(registry.sessions())
    assert (session.channel, session.title, session.user_id, session.merged) == ("webui", "Chat", "用户三", 2)
    assert (session.created_at.day, session.updated_at.day) == (1, 6)
    assert session.metadata == {
        "a": 1,
        "b": 1,
        "agentos": {"task_id": "t"},
        "agentos_chat_sessions_1": {"b": 2},
        "title": "Web",
    }
    assert len(session.repairs) == 2


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (None, []),
        ("[]", []),
        ('["a", "\\u4e2d"]', ["a", "中"]),
        ("['架构', 'api']", ["架构", "api"]),
        ("('a',)", ["a"]),
        ("__import__('os').abort()", ["__import__('os').abort()"]),
        ("plain", ["plain"]),
        ('"one"', ["one"]),
        ("[1, null]", ["1", "None"]),
        ("(" * 5000, ["(" * 5000]),
    ],
)
def test_tags_are_texts_whatever_they_were(small: Small, text: str | None, tags: list[str]) -> None:
    path = small(("UPDATE projects SET tags = ?", (text,)), tasks=1)
    with open_registry(path) as registry:
        assert records(registry.projects())[0].tags == tags


def test_names_of_living_projects_differ(small: Small) -> None:
    path = small(("UPDATE projects SET name = 'same', status = iif(id = 'infra', 'deleted', 'active')", ()))
    with open_registry(path) as registry:
        names = {project.id: project.name for project in records(registry.projects())}
    assert names == {"web-shop": "same", "kb-service": "same (kb-service)", "infra": "same"}


def test_a_repository_takes_along_its_credentials_name(small: Small) -> None:
    path = small(("UPDATE project_repos SET metadata = '{\"auth_profile\": \"other\"}' WHERE repo_id LIKE '%docs'", ()))
    with open_registry(path) as registry:
        repos = {repo.repo_id: repo for repo in records(registry.repos())}
    assert repos["web-shop_frontend"].metadata == {"auth_profile": "github-personal"}
    assert repos["web-shop_docs"].metadata == {"auth_profile": "other"}
    assert (repos["web-shop_docs"].is_writable, repos["web-shop_frontend"].is_writable) == (False, True)
    assert repos["kb-service_部署"].role == "mono_subdir"
    assert repos["kb-service_部署"].repo_path == "deploy"


def test_what_is_too_long_is_cut_or_set_aside_but_never_lost(small: Small) -> None:
    path = small(
        ("UPDATE projects SET name = ?", ("长" * 501,)),
        ("UPDATE task_sessions SET channel = ?", ("c" * 101,)),
        ("UPDATE task_lineage SET ref_id = ? || id", ("r" * 1000,)),
        ("UPDATE task_audits SET event_type = ?", ("E" * 256,)),
        ("UPDATE task_audits SET verdict_id = ?, event_type = 'E' WHERE audit_id = 1", ("v" * 256,)),
    )
    with open_registry(path) as registry:
        projects = records(registry.projects())
        session = records(registry.sessions())[0]
        assert not records(registry.lineage())
        (audit,) = records(registry.audits())
        assert len(problems(registry.lineage())) == registry.total("lineage") > 0
    assert len({project.name for project in projects}) == len(projects)
    assert {len(project.name) for project in projects} == {NAME_LENGTH}
    assert [project.settings["agentos"] for project in projects] == [{"name": "长" * 501}] * 3
    assert session.channel == "c" * 100
    assert session.metadata is not None
    assert session.metadata["agentos"] == {"channel": "c" * 101}
    assert (audit.verdict_id, len(audit.repairs)) == (None, 1)


def test_a_large_registry_is_read_in_little_memory(small: Small) -> None:
    path = small(
        (
            (
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
                " INSERT INTO task_audits (task_id, level, event_type, payload, created_at)"
                " SELECT (SELECT task_id FROM tasks), 'info', 'NOTE', json_array(hex(zeroblob(500))),"
                " '2026-01-10' FROM n"
            ),
            (),
        )
    )
    with open_registry(path) as registry:
        next(registry.audits())
        tracemalloc.start()
        try:
            assert count(registry) > 20_000
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()


def count(registry: Registry) -> int:
    return sum(1 for _ in registry.audits())
