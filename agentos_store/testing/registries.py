"""Small AgentOS registries, as AgentOS leaves them on disk, for tests and for a first look at the importer.

The same arguments make the same rows. With flaws a registry has one or two of each kind that real ones have, all in
rows of their own, so that the rest of it reads the same with and without them.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from agentos_store.testing.registry_knowledge import KnowledgeRows
from agentos_store.testing.registry_rows import naive, spaced

_TITLES: Final = (
    "修复登录失败",
    "Add pagination",
    "迁移数据库到 PostgreSQL",
    "Refactor the task runner",
    "优化全文检索",
    "Upgrade dependencies",
    "实现审计日志导出",
    "Cache the price list — café ☕",
)
_STATUSES: Final = (
    ("done", "draft approved queued running verifying verified done"),
    ("queued", "draft approved queued"),
    ("failed", "draft approved queued running failed"),
    ("draft", "draft"),
    ("running", "draft approved queued running"),
    ("canceled", "draft approved canceled"),
    ("blocked", "draft approved queued running blocked"),
    ("succeeded", "draft queued executing succeeded"),
)
"""Each with the way that led there."""

_PROJECTS: Final[tuple[tuple[str, str, str, list[str]], ...]] = (
    ("web-shop", "Web Shop — 商城", "active", ["web", "typescript"]),
    ("kb-service", "知识库服务", "active", ["知识库", "search"]),
    ("infra", "Infra", "archived", []),
)
_REPOS: Final = (
    ("web-shop", "web-shop_frontend", "frontend", "code"),
    ("web-shop", "web-shop_docs", "docs", "docs"),
    ("kb-service", "kb-service_core", ".", "code"),
    ("kb-service", "kb-service_部署", "deploy", "mono-subdir"),
    ("infra", "infra_terraform", ".", "infra"),
)

_WORDS: Final[Mapping[str, str]] = {"approve": "PASS", "reject": "FAIL", "warn": "NEEDS_CHANGES"}
_REASON: Final = json.dumps({"findings": [{"category": "RISK_RUNTIME"}]})

_SHARED_COMMIT: Final = "b91d607700e59390d88a141e20f5be89732c6405"


def make_registry(
    path: str | os.PathLike[str],
    *,
    shape: Literal["agentos", "document"] = "agentos",
    tasks: int = 12,
    flaws: bool = True,
    seed: int = 25,
) -> dict[str, Any]:
    """Make a registry in a new file and return its manifest.

    ``row_counts``: by table. ``flaws``: a sentence for each. ``expected``: for each of ``DOMAINS`` the numbers
    of ``Expected``. ``task_ids``: in the
    order of making, without those of flawed tasks. ``shared_artifact`` and ``shared_commit``: references that several
    tasks have in their lineage and artifacts. ``inbox_status_counts``: what an import makes of the inbox.
    ``unused_assignments``: how many assignments of guardians no verdict takes along.
    """
    made = _Maker(Path(path), shape=shape, seed=seed)
    try:
        made.connection.execute("BEGIN")
        made.create_tables()
        made.schema_versions()
        made.projects()
        made.conversations()
        for number in range(tasks):
            made.task(number)
        made.governance()
        made.knowledge()
        made.rest()
        if flaws:
            made.flaws()
        made.connection.execute("COMMIT")
        return made.manifest()
    finally:
        made.connection.close()


class _Maker(KnowledgeRows):
    """A believable registry, and what goes wrong in real ones."""

    def manifest(self) -> dict[str, Any]:
        return {
            "row_counts": dict(sorted(self.counts.items())),
            "flaws": self.flaw_list,
            "expected": {name: dict(vars(numbers)) for name, numbers in self.expected.items()},
            "task_ids": self.task_ids,
            "shared_artifact": "shared-requirements-doc",
            "shared_commit": _SHARED_COMMIT,
            "inbox_status_counts": dict(sorted(self.inbox_counts.items())),
            "unused_assignments": self.unused_assignments,
        }

    # -- a believable registry

    def schema_versions(self) -> None:
        for number in range(1, 26):
            self.insert("schema_version", version=f"0.{number}.0", applied_at=f"2026-01-10 08:00:{number:02}")

    def projects(self) -> None:
        for project_id, name, status, tags in _PROJECTS:
            now = spaced(self.later())
            self.insert(
                "projects",
                id=project_id,
                path=f"/srv/code/{project_id}",
                added_at=now,
                name=name,
                description="Online shop; naïve café test data ☕" if project_id == "web-shop" else None,
                status=status,
                tags=json.dumps(tags),
                default_repo_id=next(repo for owner, repo, *_ in _REPOS if owner == project_id),
                default_workdir=f"/srv/code/{project_id}",
                settings=json.dumps({"default_runner": "llama.cpp", "env_overrides": {"LANG": "zh_CN.UTF-8"}}),
                created_at=now,
                updated_at=now,
                created_by="pangge",
            )
            self.expect("projects")
        for number, (project_id, repo_id, relpath, role) in enumerate(_REPOS):
            self.repo(project_id, repo_id, relpath, role, auth_profile="github-personal" if number == 0 else None)
            self.expect("repos")

    def repo(self, project_id: str, repo_id: str, relpath: str, role: str, auth_profile: str | None = None) -> None:
        now = self.later().isoformat()
        self.insert(
            "project_repos",
            repo_id=repo_id,
            project_id=project_id,
            name=repo_id.partition("_")[2],
            default_branch="main",
            workspace_relpath=relpath,
            repo_path=relpath,
            role=role,
            is_writable=int(role != "docs"),
            auth_profile=auth_profile,
            created_at=now,
            updated_at=now,
            added_at=now,
        )

    def conversations(self) -> None:
        for number, user in enumerate(("default", "用户三")):
            session_id = self.webui_session(user, json.dumps({"title": f"会话 {number}"}))
            self.expect("sessions")
            for turn in range(4):
                self.message("webui_messages", session_id, turn)
                self.expect("messages")
        if self.agentos:
            for number in range(2):
                session_id, now = self.ulid(), spaced(self.later())
                self.insert(
                    "chat_sessions",
                    session_id=session_id,
                    title=f"对话 {number}",
                    created_at=now,
                    updated_at=now,
                    metadata=json.dumps({"model": "local", "context_budget": 8000}),
                )
                self.expect("sessions")
                for turn in range(3):
                    self.message("chat_messages", session_id, turn)
                    self.expect("messages")

    def webui_session(self, user: str, metadata: str | None, *, created_at: str | None = None) -> str:
        now = self.later()
        session_id = self.ulid()
        if user not in self.users:
            self.users.add(user)
            self.expect("users")
        self.insert(
            "webui_sessions",
            session_id=session_id,
            user_id=user,
            created_at=created_at or naive(now),
            updated_at=naive(now + dt.timedelta(minutes=40)),
            metadata=metadata,
        )
        return session_id

    def message(self, table: str, session_id: str, turn: int, **values: object) -> None:
        now = self.later(0.1)
        given: dict[str, object] = {
            "message_id": self.ulid(),
            "role": "assistant" if turn % 2 else "user",
            "content": "SQLite for dev, PostgreSQL for prod." if turn % 2 else "请总结数据库架构",
            "created_at": naive(now) if table == "webui_messages" else spaced(now),
            "metadata": "{}",
            **values,
        }
        self.insert(table, session_id=session_id, **given)

    def task(self, number: int) -> None:
        """Add a task with its session, its lineage from request to commit, and the audit of each step."""
        status, way = _STATUSES[number % len(_STATUSES)]
        project_id = _PROJECTS[number % len(_PROJECTS)][0]
        repo_id = next(repo for owner, repo, *_ in _REPOS if owner == project_id)
        began = self.later(30)
        task_id = self.ulid()
        self.task_ids.append(task_id)
        title = f"{_TITLES[number % len(_TITLES)]} #{number:03}"
        metadata: dict[str, object] = {
            "execution_context": {"created_method": "task_service"},
            "project_hint": project_id,
        }
        if status == "failed":
            metadata |= {"exit_reason": ("timeout", "exception")[number // 8 % 2], "retry_state": {"retry_count": 0}}
        routed = number % 3 == 0
        self.add_task(
            task_id,
            title,
            status,
            session_id=self.task_session(task_id) if number % 4 else None,
            metadata=None if status == "draft" else json.dumps(metadata),
            # One in five is from before AgentOS wrote ISO times.
            created_at=spaced(began) if number % 5 == 4 else began.isoformat(),
            route_plan_json=json.dumps({"selected": "llamacpp:qwen2.5", "reasons": ["优先本地"]}) if routed else None,
            requirements_json=json.dumps({"needs": ["coding"], "min_ctx": 8192}) if routed else None,
            selected_instance_id="llamacpp:qwen2.5" if routed else None,
            router_version="v1" if routed else None,
        )
        self.expect("tasks")
        self.link(task_id, "nl_request", f"nl_{number:04}", "intent_analysis", {"text": f"请{title}"})
        self.link(task_id, "intent", f"intent_{number:04}", "intent_analysis")
        if number % 4 == 0:
            self.link(task_id, "artifact", "shared-requirements-doc", None)
        steps = way.split()
        if "running" in steps or "executing" in steps:
            self.link(task_id, "execution_request", f"exec_{number:04}", "execution", {"priority": number % 3})
        if status in {"done", "succeeded"}:
            commit = _SHARED_COMMIT if number in {0, 7} else self.hex(40)
            self.link(task_id, "commit", commit, "completed")
            self.artifact(task_id, repo_id, "commit", commit, f"feat: {title}")
            self.artifact(task_id, repo_id, "branch", "feature/登录", "")
        self.audit(task_id, "TASK_CREATED", {"actor": "system", "state": steps[0], "reason": "Task created"})
        for old, new in itertools.pairwise(steps):
            transition = {"from_state": old, "to_state": new, "actor": "张三", "reason": "自动"}
            self.audit(task_id, f"STATE_TRANSITION_{new.upper()}", transition)
        if "running" in steps:
            self.supervised(task_id)
        scope = ("full", "paths", "read_only")[number % 3]
        self.scope(task_id, repo_id, scope, json.dumps(["src/**", "文档/**"]) if scope == "paths" else None)
        self.expect("scopes")
        if number:
            self.depends(task_id, self.task_ids[(number - 1) // 2], ("blocks", "requires", "suggests")[number % 3])

    def add_task(self, task_id: str, title: str | None, status: str, **values: object) -> None:
        updated = self.later(20).isoformat()
        values = {"created_at": updated, "metadata": None, "session_id": None, **values}
        self.insert(
            "tasks", task_id=task_id, title=title, status=status, updated_at=updated, created_by="李雷", **values
        )

    def task_session(self, task_id: str) -> str:
        now = self.later(0.1)
        if not self.agentos:
            session_id = self.webui_session("default", None)
        else:
            session_id = f"auto_{task_id[:8]}_{task_id[-4:]}_{int(now.timestamp())}"
            self.insert(
                "task_sessions",
                session_id=session_id,
                channel="auto",
                metadata=json.dumps({"auto_created": True, "task_id": task_id}),
                created_at=now.isoformat(),
                last_activity=now.isoformat(),
            )
        self.expect("sessions")
        return session_id

    def link(
        self, task_id: str, kind: str, ref_id: str, phase: str | None, metadata: Mapping[str, object] | None = None
    ) -> None:
        self.insert(
            "task_lineage",
            task_id=task_id,
            kind=kind,
            ref_id=ref_id,
            phase=phase,
            created_at=self.later(0.02).isoformat(),
            metadata=None if metadata is None else json.dumps(metadata),
        )
        self.expect("lineage", "imported" if task_id in self.task_ids else "set_aside")

    def audit(
        self, task_id: str, event_type: str, payload: Mapping[str, object] | str | None, **values: object
    ) -> None:
        values = {"level": "info", "created_at": self.later().isoformat(), **values}
        text = payload if payload is None or isinstance(payload, str) else json.dumps(payload)
        self.insert("task_audits", task_id=task_id, event_type=event_type, payload=text, **values)
        if task_id in self.task_ids:
            self.expect("audits")

    def supervised(self, task_id: str) -> None:
        decision, seen = f"decision_{self.hex(12)}", self.later()
        event = f"polling_task_audits_{self.counts['task_audits']}"
        self.audit(
            task_id,
            "SUPERVISOR_ALLOWED",
            {"decision_id": decision, "reason": "策略评估通过"},
            level="warn" if self.random.random() < 0.3 else "info",
            created_at=seen.isoformat(),
            decision_id=decision,
            source_event_ts=seen.isoformat(),
            supervisor_processed_at=(seen + dt.timedelta(seconds=2)).isoformat(),
        )
        # Some events wait still, and some went wrong.
        status = ("processed", "pending", "processed", "failed")[self.counts["supervisor_inbox"] % 4]
        self.event(event, task_id, status, seen)

    def event(
        self, event: str, task_id: str, status: str, seen: dt.datetime, *, found: str | None = None, **values: object
    ) -> None:
        """Add an event to the inbox; ``status`` is the word that it is to arrive with, ``found`` one that is wrong."""
        payload = json.dumps({"任务": task_id, "ts": seen.isoformat()}, ensure_ascii=False)
        given: dict[str, object] = {
            "event_type": "TASK_STEP_COMPLETED",
            "source": "polling",
            "payload": payload,
            "payload_json": payload,
            "event_ts": seen.isoformat(),
            "received_at": seen.isoformat(),
            "created_at": seen.isoformat(),
            "processed_at": seen.isoformat() if status == "processed" else None,
            "status": found or ("completed" if self.agentos and status == "processed" else status),
            "error_message": "策略执行失败：超时" if status == "failed" else None,
            "retry_count": int(status == "failed"),
            **values,
        }
        self.insert("supervisor_inbox", event_id=event, id=event, task_id=task_id, **given)
        if task_id in self.task_ids:
            self.expect("inbox")
            self.inbox_counts[status] += 1

    def artifact(self, task_id: str, repo_id: str, ref_type: str, ref_value: str, summary: str) -> None:
        self.insert(
            "task_artifact_ref",
            task_id=task_id,
            repo_id=repo_id,
            ref_type=ref_type,
            ref_value=ref_value,
            summary=summary,
            created_at=naive(self.later(0.02)),
            metadata=json.dumps({"author": "李雷", "files_changed": 2}),
        )
        self.expect("artifacts")

    def scope(self, task_id: str, repo_id: str, scope: str, filters: str | None) -> None:
        self.insert(
            "task_repo_scope",
            task_id=task_id,
            repo_id=repo_id,
            scope=scope,
            path_filters=filters,
            created_at=naive(self.later(0.1)),
            metadata='{"auto_generated": true}',
        )

    def depends(self, task_id: str, on: str, kind: str) -> None:
        self.insert(
            "task_dependency",
            task_id=task_id,
            depends_on_task_id=on,
            dependency_type=kind,
            reason="使用前一任务的产物",
            created_at=naive(self.later(0.02)),
            created_by="auto_detect",
            metadata='{"rule": "artifact_ref"}',
        )
        self.expect("dependencies")

    def governance(self) -> None:
        for number, task_id in enumerate(self.task_ids[::4]):
            decision = ("approve", "reject", "warn")[number % 3]
            assignment = self.assignment(task_id)
            verdict = self.verdict(task_id, decision, assignment)
            self.expect("verdicts")
            self.audit(task_id, "GUARDIAN_VERDICT_APPLIED", {"verdict_status": _WORDS[decision]}, verdict_id=verdict)

    def assignment(self, task_id: str) -> str:
        """Add an assignment of a guardian, where the shape has them."""
        key, now = f"assignment_{self.hex(12)}", self.later().isoformat()
        if self.agentos:
            self.insert(
                "guardian_assignments",
                assignment_id=key,
                task_id=task_id,
                guardian_code="smoke_test",
                created_at=now,
                reason_json=_REASON,
                status="COMPLETED",
            )
        return key

    def verdict(self, task_id: str, decision: str, assignment: str, **values: object) -> str:
        """Add a verdict; ``decision`` is the store's word."""
        key, now = f"verdict_{self.hex(12)}", self.later().isoformat()
        word = _WORDS.get(decision, decision)
        body = {"flags": [{"type": "覆盖率不足"}] if decision != "approve" else [], "recommendations": ["补充测试"]}
        given: dict[str, object] = {
            "assignment_id": assignment,
            "guardian_code": "smoke_test",
            "triggered_by": "smoke_test",
            "policy_json": _REASON,
            "decision": decision,
            "reasons_json": json.dumps(body["flags"]),
            "status": word,
            "created_at": now,
            "verdict_json": json.dumps({"verdict_id": key, "status": word, **body}, ensure_ascii=False),
            **values,
        }
        self.insert("guardian_verdicts", verdict_id=key, id=key, task_id=task_id, **given)
        return key

    def rest(self) -> None:
        if self.agentos:
            self.insert(
                "runs", project_id="web-shop", type="scan", status="SUCCEEDED", started_at="2026-01-10 09:00:00"
            )
            self.insert("patches", patch_id="patch-0", run_id=1, intent="修复", files='["src/0.py"]')
            self.insert("snippets", id="snip-1", title="打开数据库", language="python", code="conn = connect()")

    # -- what goes wrong in real ones

    def flaws(self) -> None:
        self.flawed_projects()
        self.flawed_sessions()
        self.flawed_messages()
        self.flawed_tasks()
        self.flawed_trails()
        self.flawed_knowledge()
        self.flawed_memories()
        if len(self.task_ids) > 2:
            self.flawed_links()
            self.flawed_governance()

    def flawed_projects(self) -> None:
        def project(project_id: str, **values: object) -> None:
            now = spaced(self.later())
            given = {
                "name": project_id,
                "status": "active",
                "tags": "[]",
                "settings": "{}",
                "updated_at": now,
                **values,
            }
            self.insert("projects", id=project_id, path=f"/srv/{project_id}", added_at=now, created_at=now, **given)

        project("旧项目", status="deleted", default_repo_id="tmp_repo")
        self.flaw("a project's default repository is gone", "projects")
        project("literal", tags="['架构', 'api']")
        self.flaw("a project's tags are a Python literal", "projects")
        project("web-shop-2", name="Web Shop — 商城")
        self.flaw("two projects have one name", "projects")
        project("broken-text", description=None)
        self.connection.execute(
            "UPDATE projects SET description = CAST(? AS TEXT) WHERE id = 'broken-text'", (b"caf\xe9",)
        )
        self.flaw("a description is no UTF-8", "projects")
        self.repo("gone", "gone_core", ".", "code")
        self.flaw("a repository's project is gone", "repos", "set_aside")

    def flawed_sessions(self) -> None:
        self.webui_session("pangge", None, created_at="2026-01-10T08:00:00+00:00Z")
        self.flaw("a time ends with both an offset and a Z", "sessions")
        self.webui_session("pangge", "{'title': ")
        self.flaw("a session's metadata are no JSON", "sessions")
        if self.agentos:
            session_id = self.webui_session("pangge", json.dumps({"title": "两处", "kept": 1}))
            now = self.later()
            self.insert(
                "chat_sessions",
                session_id=session_id,
                title="对话",
                created_at=int(now.timestamp()),
                updated_at=int(now.timestamp() * 1000),
                metadata=json.dumps({"model": "local"}),
            )
            self.flaw("one session stands in two tables", "sessions")
            self.expect("sessions", "merged")

    def flawed_messages(self) -> None:
        session_id = str(self.connection.execute("SELECT session_id FROM webui_sessions ORDER BY rowid").fetchone()[0])

        def message(
            what: str, outcome: Literal["repaired", "set_aside"], owner: str = session_id, **values: object
        ) -> None:
            self.message("webui_messages", owner, 0, **values)
            self.flaw(what, "messages", outcome)

        message("a message's session is gone", "set_aside", "gone")
        message("a message's role is unknown", "set_aside", role="oracle")
        message("a message has no role", "set_aside", role=None)
        message("a message has no key", "set_aside", message_id=None)
        message("a role is in capitals", "repaired", role="Assistant")
        message("a message's time is no time", "repaired", created_at="yesterday")
        message("a message's metadata are no JSON", "repaired", metadata="{'tokens': 5")

    def flawed_tasks(self) -> None:
        def task(what: str, title: str | None = "Flawed", status: str = "draft", **values: object) -> None:
            self.clock += dt.timedelta(minutes=1)
            self.add_task(self.ulid(), title, status, **values)
            self.flaw(what, "tasks")

        task("a task's session is gone", session_id="auto_gone")
        task("a task has no title", None)
        task("a failed task tells no reason", "没有原因", "failed", metadata="{}")
        task("a status is in capitals", "旧状态", "VERIFYING")
        task("a status is unknown", "Unknown", "zombie")
        task("a task's metadata are no JSON", metadata='{"project_hint": "web-sh')
        task("a title holds U+0000", "zero\x00byte")
        task("a title is too long", "长" * 501)
        task("a project hint names no project", metadata='{"project_hint": "nowhere"}')
        task("a time is no time", created_at="yesterday")
        self.clock += dt.timedelta(minutes=1)
        self.add_task("", "No key", "draft")
        self.flaw("a task has no key", "tasks", "set_aside")

    def flawed_trails(self) -> None:
        known = self.task_ids[0] if self.task_ids else None
        for number in range(2):
            self.link(f"01MISSINGTASK000000000000{number}", "nl_request", f"lost_{number}", None)
            self.flaw_list.append("a link's task is gone")
        self.audit("01MISSINGTASK0000000000000", "NOTE", None)
        self.flaw("an audit's task is gone", "audits", "set_aside")
        if known is None:
            return
        self.link(known, "nl_request", "nl_0000", "again")
        self.expected["lineage"].imported -= 1
        self.expected["lineage"].set_aside += 1
        self.flaw_list.append("a link is recorded twice")
        for number in range(3):
            payload = json.dumps({"operation": "commit", "commit_hash": f"{number:040}", "说明": "旧数据"})
            self.rotated(
                known, ("info", "warn", "error")[number], payload, decision=f"rotated_{number}" if number else None
            )
            self.flaw("an audit's columns were rotated by migration 24", "audits")
        self.audit(known, "NOTE", None, created_at="2026-01-13 08:00:00")
        self.flaw_list.append("an audit has no payload")
        for what, payload, values in (
            ("a payload is no JSON", '{"operation": "write", "files_changed": ["src/截断', {}),
            ("a level is unknown", "{}", {"level": "notice"}),
            ("an audit has no time", "{}", {"created_at": None}),
            ("a decision is used for the first time", "{}", {"decision_id": "decision_twice"}),
            ("a decision is used twice", "{}", {"decision_id": "decision_twice"}),
        ):
            self.audit(known, "NOTE", payload, **values)
            if what != "a decision is used for the first time":
                self.expected["audits"].repaired += 1
                self.flaw_list.append(what)

    def rotated(self, task_id: str, level: str, payload: str, *, decision: str | None) -> None:
        """Add an audit as migration 24 left it: each value stands in another one's column."""
        self.insert(
            "task_audits",
            task_id=task_id,
            repo_id=level,
            level="repo_commit",
            event_type=payload,
            payload=naive(self.later()),
            created_at=decision,
            verdict_id="web-shop_frontend",
        )

    def flawed_links(self) -> None:
        first, second, third = self.task_ids[:3]

        def depends(what: str, task_id: str, on: str, kind: str = "blocks", *, aside: bool = True) -> None:
            self.depends(task_id, on, kind)
            numbers = self.expected["dependencies"]
            numbers.imported -= aside
            numbers.set_aside += aside
            numbers.repaired += not aside
            self.flaw_list.append(what)

        if self.agentos:
            self.depends(second, first, "suggests")
            self.flaw_list.append("a dependency has two types")
            # The pair's first row takes the other one along.
            merged = self.expected["dependencies"]
            merged.imported -= 1
            merged.merged += 1
            merged.repaired += 1
        depends("a task depends on itself", first, first)
        depends("a dependency closes a circle", first, third)
        depends("a dependency's task is gone", "01MISSINGTASK0000000000000", first)
        depends("a dependency on a task that is gone", first, "01MISSINGTASK0000000000000")
        if len(self.task_ids) > 4:
            depends("a dependency's type is unknown", self.task_ids[4], third, "needs", aside=False)

        def scope(what: str, task_id: str, repo_id: str, word: str, filters: str | None) -> None:
            self.scope(task_id, repo_id, word, filters)
            self.flaw(what, "scopes", "set_aside")

        scope("path filters are no JSON", first, "broken_filters", "paths", '["src/**", "docs')
        scope("a scope of paths names none", first, "no_filters", "paths", None)
        scope("a scope is unknown", first, "unknown_scope", "everything", None)
        scope("a scope's task is gone", "01MISSINGTASK0000000000000", "kb-service_core", "full", None)
        scope("two scopes of one repository differ", first, "two_scopes", "full", None)
        scope("two scopes of one repository differ", first, "two_scopes", "read_only", None)
        self.scope(first, "in_capitals", "Read-Only", "[]")
        self.flaw("a scope is in capitals", "scopes")

        def artifact(what: str, task_id: str, ref_type: str, ref_value: str) -> None:
            self.artifact(task_id, "web-shop_frontend", ref_type, ref_value, "")
            self.expected["artifacts"].imported -= 1
            self.expected["artifacts"].set_aside += 1
            self.flaw_list.append(what)

        artifact("an artifact is of an unknown type", first, "tarball", "dist.tar.gz")
        artifact("an artifact has no value", first, "file", "")
        artifact("an artifact's task is gone", "01MISSINGTASK0000000000000", "file", "src/0.py")
        self.artifact(first, "web-shop_frontend", "tag", "v1.0", "")
        artifact("an artifact is recorded twice", first, "tag", "v1.0")

    def flawed_governance(self) -> None:
        known = self.task_ids[0]
        gone = "01MISSINGTASK0000000000000"
        self.verdict(known, "perhaps", self.assignment(known))
        self.flaw("a decision is no word that is known", "verdicts", "set_aside")
        self.verdict(gone, "approve", self.assignment(gone))
        self.flaw("a verdict's task is gone", "verdicts", "set_aside")
        # An assignment stays where it is when its verdict does.
        self.unused_assignments += 2 * self.agentos
        self.verdict(known, "warn", "assignment_gone", reasons_json="{}", verdict_json="{")
        self.flaw("a verdict's assignment is gone", "verdicts")
        if self.agentos:
            self.assignment(known)
            self.unused_assignments += 1
            self.flaw_list.append("an assignment has no verdict")

        def event(what: str, status: str, *, found: str | None = None, **values: object) -> None:
            key = f"flawed_{self.counts['supervisor_inbox']}"
            self.event(key, known, status, self.later(), found=found, **values)
            self.expected["inbox"].repaired += 1
            self.flaw_list.append(what)

        event("an event is stuck in processing", "pending", found="processing")
        event("an event's status is unknown", "parked", found="zombie")
        event("an event's payload is no JSON", "pending", payload='{"ts": "2026', payload_json='{"ts": "2026')
        event("a processed event tells no time", "processed", processed_at=None)
        self.event("event_gone", gone, "pending", self.later())
        self.flaw("an event's task is gone", "inbox", "set_aside")
