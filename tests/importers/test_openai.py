"""Conversations in OpenAI's format come in whole or not at all, in whatever file they stand, and only once."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from agentos_store import Settings, Store, ensure_migrations
from agentos_store.conversations.messages import MessageRepository
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError
from agentos_store.importers.openai import pieces
from agentos_store.importers.openai.load import import_transcripts
from agentos_store.importers.openai.reading import open_transcripts
from agentos_store.importers.openai.records import LostTranscript, Transcript
from agentos_store.importers.report import ImportReport
from agentos_store.models import metadata
from agentos_store.operation import Blocking, F, Repository, reads_together
from tests.importers.killing import kill_at

TAU = Path(__file__).parents[2].parent / "shared" / "data" / "tau-bench" / "gpt-4o-airline.json.gz"

Rows = list[dict[str, Any]]
Write = Callable[..., Path]

CALL = {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"query": "天气"}'}}
TURNS: Rows = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "今天天气怎么样？"},
    {"content": None, "role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "name": "search", "content": "晴"},
    {"role": "assistant", "content": "晴天。"},
]


class Dump(Repository[F]):
    """Every row of the tables that transcripts fill."""

    name = "dump"

    @reads_together
    def all(self, session: Session) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for name in ("sessions", "messages", "tool_call_records", "tasks"):
            table = metadata.tables[name]
            everything: Statement[Any] = Statement(select(table).order_by(*table.primary_key.columns), lasting=False)
            names = table.columns.keys()
            found[name] = [dict(zip(names, row, strict=True)) for row in session.all(everything)]
        return found


def dump(store: Store) -> dict[str, Rows]:
    return store.bind(Dump[Blocking]).all()


def timeless(tables: dict[str, Rows]) -> dict[str, Rows]:
    """The dump without times, which transcripts do not tell."""
    plain = {
        name: [{key: value for key, value in row.items() if not key.endswith("_at")} for row in rows]
        for name, rows in tables.items()
    }
    for row in plain["tool_call_records"]:
        row["audit_trail"] = [entry["state"] for entry in row["audit_trail"]]
    return plain


def histories(store: Store) -> list[Rows]:
    """What was said in each session of the store, in no order that means something."""
    messages = store.bind(MessageRepository[Blocking])
    return [list(messages.history(row["id"], last=None)) for row in dump(store)["sessions"]]


def assert_accounted(report: ImportReport) -> None:
    for counts in report.counts.values():
        assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged


def numbers(report: ImportReport) -> list[int]:
    return [report.counts[kind].imported for kind in ("sessions", "messages", "tool_calls", "tasks")]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Makes a file of a text, or of bytes."""

    def make(content: str | bytes, name: str = "transcripts") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


@pytest.fixture
def target(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """A store on SQLite; that the other database takes the same records is shown elsewhere."""
    path = shutil.copy(sqlite_template, tmp_path / "store.sqlite")
    with Store.open(f"sqlite:///{path}") as store:
        yield store


@pytest.mark.skipif(not TAU.exists(), reason="the sample is not at hand")
def test_all_trajectories_of_the_sample_come_back_as_they_were(store: Store) -> None:
    source = json.loads(gzip.decompress(TAU.read_bytes()))
    raw = TAU.read_bytes()
    report = import_transcripts(store, TAU)
    assert numbers(report) == [200, 5308, 1164, 200]
    assert report.set_aside == []
    tables = dump(store)
    messages = store.bind(MessageRepository[Blocking])
    with open_transcripts(TAU) as file:
        found = [item for item in file.transcripts() if isinstance(item, Transcript)]
    sessions = {row["id"]: row for row in tables["sessions"]}
    tasks = {row["session_id"]: row for row in tables["tasks"]}
    calls: dict[str, Rows] = {}
    for row in tables["tool_call_records"]:
        calls.setdefault(row["session_id"], []).append(row)
    repeating = 0
    for record, transcript in zip(source, found, strict=True):
        key = transcript.session_id
        back = messages.history(key, last=None)
        assert back == record["traj"]
        assert [turn.keys() for turn in back] == [turn.keys() for turn in record["traj"]]
        others = {name: value for name, value in record.items() if name != "traj"}
        assert sessions[key]["metadata"] == others
        assert (sessions[key]["channel"], sessions[key]["message_count"]) == ("openai", len(record["traj"]))
        task = tasks[key]
        assert (task["task_type"], task["status"], task["result"]) == (
            "trajectory",
            "completed",
            {"reward": record["reward"]},
        )
        assert task["metadata"] == {name: record[name] for name in ("task_id", "trial", "info")}
        # By hand: in this sample each call is answered by the next message.
        said = [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]), record["traj"][place + 1])
            for place, turn in enumerate(record["traj"])
            for call in turn.get("tool_calls", ())
        ]
        kept = sorted(calls.get(key, []), key=lambda row: int(row["id"].split("/")[1]))
        assert [(row["tool_call_id"].partition("#")[0], row["tool_name"], row["input"]) for row in kept] == [
            each[:3] for each in said
        ]
        assert [row["output"] for row in kept] == [answer["content"] for *_, answer in said]
        assert len({row["tool_call_id"] for row in kept}) == len(kept)
        assert {row["state"] for row in kept} <= {"completed"}
        names = [each[0] for each in said]
        repeating += len(set(names)) < len(names)
    assert repeating == 49
    assert report.counts["tool_calls"].repaired == sum(
        "#" in row["tool_call_id"] for row in tables["tool_call_records"]
    )
    again = import_transcripts(store, TAU)
    assert again.imported == 0
    assert_accounted(again)
    assert dump(store) == tables
    assert TAU.read_bytes() == raw


RECORD = {"messages": TURNS, "reward": 1.0, "task_id": 7, "trial": 2}
OTHER = {"messages": TURNS[:2]}


@pytest.mark.parametrize(
    ("content", "layout", "sessions"),
    [
        (json.dumps(RECORD), "json", 1),
        (json.dumps(RECORD, indent=2), "json", 1),
        (json.dumps(RECORD) + "\n", "json", 1),
        (json.dumps(RECORD) + "\n" + json.dumps(OTHER), "jsonl", 2),
        ("\ufeff\n" + json.dumps(RECORD, ensure_ascii=False) + "\r\n\r\n" + json.dumps(OTHER) + "\r\n", "jsonl", 2),
        (json.dumps([RECORD, OTHER]), "json", 2),
        (json.dumps([RECORD, OTHER], indent=0), "json", 2),
        ("[\n" + json.dumps(RECORD) + "\n]\n", "json", 1),
        (json.dumps(TURNS), "json", 1),
        (json.dumps(TURNS, indent=1), "json", 1),
        (json.dumps(TURNS) + "\n" + json.dumps(TURNS[:1]) + "\n", "jsonl", 2),
        (json.dumps([{"traj": TURNS, "reward": 0}, {"traj": TURNS[:1]}]), "json", 2),
        (json.dumps({"id": 1, "conversation": TURNS}), "json", 1),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_content_of_a_file_tells_its_form(
    target: Store, write: Write, content: str, layout: str, sessions: int, packed: bool
) -> None:
    raw = content.encode()
    report = import_transcripts(target, write(gzip.compress(raw) if packed else raw, "a name that tells nothing.csv"))
    assert (report.shape, report.set_aside, numbers(report)[0]) == (layout, [], sessions)
    assert TURNS in histories(target)


def test_each_part_of_a_transcript_has_its_row(store: Store, write: Write) -> None:
    unanswered = {"id": "call_2", "type": "function", "function": {"name": "book", "arguments": "{not json"}}
    record = {**RECORD, "messages": [*TURNS, {"role": "assistant", "content": "", "tool_calls": [unanswered]}]}
    import_transcripts(store, write(json.dumps({**record, "created_at": "2026-01-10 08:00:00", "model": "gpt-4o"})))
    tables = dump(store)
    (session,), (task,) = tables["sessions"], tables["tasks"]
    answered, open_ = tables["tool_call_records"]
    assert (session["channel"], session["model"], session["user_id"]) == ("openai", "gpt-4o", None)
    assert (session["message_count"], session["next_seq"], session["total_tokens"]) == (6, 6, 0)
    assert session["total_cost"] == Decimal(0)
    assert session["created_at"].isoformat() == "2026-01-10T08:00:00+00:00"
    assert (task["title"], task["session_id"]) == ("Trajectory, task_id 7, trial 2", session["id"])
    assert task["completed_at"] == session["updated_at"]
    assert (answered["state"], answered["input"], answered["output"]) == ("completed", {"query": "天气"}, "晴")
    assert (answered["has_output"], answered["is_error"], answered["ordinal"]) == (True, None, 0)
    assert (open_["state"], open_["input"], open_["output"], open_["has_output"]) == (
        "sealed",
        "{not json",
        None,
        False,
    )
    assert (open_["is_error"], open_["error_message"]) == (True, "the transcript has no answer to it")
    assert [entry["state"] for row in (answered, open_) for entry in row["audit_trail"]] == ["completed", "sealed"]
    by_id = {row["id"]: row for row in tables["messages"]}
    assert by_id[answered["message_id"]]["tool_calls"] == [CALL]
    assert sorted(row["created_at"] for row in by_id.values()) == [
        row["created_at"] for row in sorted(by_id.values(), key=lambda row: row["seq"])
    ]


def test_an_answer_belongs_to_its_own_call_of_a_name_that_occurs_twice(target: Store, write: Write) -> None:
    def asking(*names: str) -> dict[str, Any]:
        calls = [{"id": name, "function": {"name": "t", "arguments": f'"{name}"'}} for name in names]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def answer(name: str, content: str) -> dict[str, Any]:
        return {"role": "tool", "tool_call_id": name, "content": content}

    turns = [
        *(asking("a", "a", "a#2"), answer("a", "first"), answer("a", "second"), answer("a#2", "own")),
        *(asking("b"), asking("b"), answer("b", "of the newer"), answer("gone", "of none")),
    ]
    report = import_transcripts(target, write(json.dumps(turns)))
    rows = sorted(dump(target)["tool_call_records"], key=lambda row: (row["created_at"], row["ordinal"]))
    assert [(row["tool_call_id"], row["state"], row["output"]) for row in rows] == [
        ("a", "completed", "first"),
        ("a#3", "completed", "second"),
        ("a#2", "completed", "own"),
        ("b", "sealed", None),
        ("b#2", "completed", "of the newer"),
    ]
    assert report.counts["tool_calls"].repaired == 2
    assert histories(target) == [turns]


def test_what_has_no_field_of_its_own_is_kept_in_the_metadata(store: Store, write: Write) -> None:
    turns: Rows = [
        {"role": "developer", "content": "Be brief."},
        {"role": "assistant", "content": "ok", "refusal": None, "tool_calls": None, "name": None, "annotations": [1]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "user", "content": [{"type": "text", "text": "a\u0000b"}, {"type": "image_url", "image_url": {}}]},
    ]
    report = import_transcripts(store, write(json.dumps(turns)))
    rows = sorted(dump(store)["messages"], key=lambda row: int(row["seq"]))
    assert [row["metadata"] for row in rows] == [
        {"openai": {"role": "developer"}},
        {"openai": {"refusal": None, "tool_calls": None, "name": None, "annotations": [1]}},
        {},
        {},
    ]
    assert [note.why for note in report.repairs] == [
        "role: 'developer' became 'system'",
        "content: it was missing, so it became null",
    ]
    assert rows[3]["content"] == turns[3]["content"]


def test_exact_content_comes_back_with_surrogates_and_zeros(store: Store, write: Write) -> None:
    text = '{"messages": [{"role": "user", "content": "\\u0000 \\ud83d \\ude00\\ud83d"}], "note": "\\ud83d\\u0000"}'
    report = import_transcripts(store, write(text))
    assert histories(store) == [json.loads(text)["messages"]]
    assert dump(store)["sessions"][0]["metadata"] == {"note": "\ufffd\ufffd"}
    assert [note.table for note in report.repairs] == ["sessions"]


GOOD = json.dumps({"messages": TURNS})

BAD: dict[str, tuple[str, str]] = {
    "no JSON": ('{"messages": [', "no JSON"),
    "cut in a string": ('{"messages": [{"role": "user", "content": "abc', "no JSON"),
    "no object": ('"messages"', "neither"),
    "a number": ("17", "neither"),
    "no messages": ('{"id": 1}', "holds no list of messages"),
    "messages that are no list": ('{"messages": {"role": "user"}}', "no list"),
    "a message that is no object": ('{"messages": ["hello"]}', "message 1 is no object"),
    "no role": ('{"messages": [{"role": "user", "content": ""}, {"content": "x"}]}', "message 2 has no role"),
    "a role that is no text": ('{"messages": [{"role": 5, "content": "x"}]}', "message 1 has no role"),
    "an unknown role": ('{"messages": [{"role": "oracle", "content": "x"}]}', "a role that is not known"),
    "tool calls that are no list": (
        '{"messages": [{"role": "assistant", "content": null, "tool_calls": {"id": "a"}}]}',
        "tool_calls that are no list",
    ),
    "a tool call that is no object": (
        '{"messages": [{"role": "assistant", "content": null, "tool_calls": ["a"]}]}',
        "that is no object",
    ),
    "a tool call without an id": (
        '{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "t"}}]}]}',
        "without an id",
    ),
    "a tool call without a name": (
        '{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "a", "function": {}}]}]}',
        "without a name",
    ),
    "NaN": ('{"messages": [{"role": "user", "content": "x", "score": NaN}]}', "NaN"),
    "infinity": ('{"messages": [{"role": "user", "content": "x", "score": 1e999}]}', "float"),
    "20,000 levels": ('{"messages": [{"role": "user", "content": ' + "[" * 20_000 + "]" * 20_000 + "}]}", "too deep"),
    "600 levels": ('{"messages": [{"role": "user", "content": ' + "[" * 600 + "]" * 600 + "}]}", "too deep"),
    "U+0000 in a name": ('{"messages": [{"role": "user", "content": "x", "name": "a\\u0000"}]}', "U+0000"),
    "a lone surrogate in a call's name": (
        '{"messages": [{"role": "tool", "content": "x", "tool_call_id": "\\ud83d"}]}',
        "surrogate",
    ),
    "a name that is too long": (
        json.dumps({"messages": [{"role": "user", "content": "x", "name": "n" * 256}]}),
        "255",
    ),
    "content of another kind": ('{"messages": [{"role": "user", "content": 5}]}', "content"),
    "a digit too many": ('{"messages": [{"role": "user", "content": "x", "n": ' + "9" * 5000 + "}]}", "no JSON"),
}


@pytest.mark.parametrize(
    ("form", "what"),
    # A record that does not end takes the rest of its array along.
    [("lines", what) for what in BAD]
    + [("array", what) for what in BAD if not BAD[what][0].count("{") > BAD[what][0].count("}")],
)
def test_one_bad_record_is_set_aside_with_its_place_and_the_others_come_in(
    target: Store, write: Write, form: str, what: str
) -> None:
    bad, word = BAD[what]
    if form == "lines":
        content, place = f"{GOOD}\n{bad}\n{json.dumps(RECORD)}\n", "line 2"
    else:
        content, place = f"[{GOOD},\n{bad},\n{json.dumps(RECORD)}]", "record 2"
    report = import_transcripts(target, write(content))
    assert_accounted(report)
    (note,) = report.set_aside
    assert note.key == place
    assert word in note.why
    # Of what was set aside nothing is left, neither a session nor a message.
    assert [len(rows) for rows in dump(target).values()] == [2, 10, 2, 1]
    assert "abc" not in note.why


def test_a_transcript_that_the_store_refuses_leaves_nothing_behind(url: str, write: Write) -> None:
    large = {**RECORD, "messages": [*TURNS, {"role": "user", "content": "x" * 2000}]}
    with Store.open(url, settings=Settings.load(max_payload=1024)) as store:
        report = import_transcripts(store, write(f"{json.dumps(large)}\n{json.dumps(OTHER)}\n"))
        assert_accounted(report)
        assert [note.key for note in report.set_aside] == ["line 1"]
        assert [len(rows) for rows in dump(store).values()] == [1, 2, 0, 0]


def test_bytes_that_are_no_utf_8_are_told_of(target: Store, write: Write) -> None:
    report = import_transcripts(target, write(b"\n".join((GOOD.encode(), GOOD.encode().replace(b"help", b"h\xe9lp")))))
    assert [(note.key, note.why) for note in report.set_aside] == [("line 2", "it is no UTF-8")]


def test_a_damaged_first_line_does_not_hide_the_lines_after_it(target: Store, write: Write) -> None:
    report = import_transcripts(target, write(f"{GOOD[:40]}\n{GOOD}\n{json.dumps(RECORD)}\n"))
    assert ([note.key for note in report.set_aside], numbers(report)[0]) == (["line 1"], 2)


def test_a_cut_array_gives_what_is_whole(target: Store, write: Write) -> None:
    whole = json.dumps([RECORD, OTHER, {"messages": TURNS[:1]}])
    report = import_transcripts(target, write(whole[: whole.rindex("help")]))
    assert [(note.key, note.why) for note in report.set_aside] == [("record 3 on", "the file is cut off")]
    assert numbers(report)[0] == 2
    assert_accounted(report)


@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_cut_gzip_gives_what_is_whole(target: Store, write: Write, form: str) -> None:
    records = [
        {"messages": [{"role": "user", "content": str(n)}], "n": [hash((n, i)) for i in range(50)]} for n in range(50)
    ]
    text = json.dumps(records) if form == "array" else "\n".join(map(json.dumps, records))
    packed = gzip.compress(text.encode())
    report = import_transcripts(target, write(packed[: len(packed) // 2]))
    (note,) = report.set_aside
    assert note.why == "the compressed file is cut off"
    assert note.key.endswith(" on")
    assert 0 < numbers(report)[0] < 50
    assert_accounted(report)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"  \n\n",
        b"hello",
        b"role,content\nuser,x\n",
        gzip.compress(b"", mtime=0),
        gzip.compress(GOOD.encode(), mtime=0)[:10],
        b"\xff\xfe{\x00",
    ],
)
def test_what_is_no_transcript_at_all_is_refused(target: Store, write: Write, content: bytes) -> None:
    with pytest.raises(InvalidValueError) as refused:
        import_transcripts(target, write(content))
    assert refused.value.name == "path"


def test_a_file_that_is_not_there_or_is_a_folder_is_refused(target: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        import_transcripts(target, tmp_path / "none.json")
    with pytest.raises(InvalidValueError):
        import_transcripts(target, tmp_path)


def test_two_lists_that_could_be_the_messages_must_be_told_apart(target: Store, write: Write) -> None:
    path = write(json.dumps([{"asked": TURNS, "said": TURNS[:1]}]))
    with pytest.raises(InvalidValueError, match="'asked', 'said'") as refused:
        import_transcripts(target, path)
    assert refused.value.name == "key"
    assert dump(target)["sessions"] == []
    import_transcripts(target, path, key="said")
    assert histories(target) == [TURNS[:1]]
    report = import_transcripts(target, path, key="nothing")
    assert [note.why for note in report.set_aside] == ["it has no key 'nothing'"]


def test_equal_transcripts_of_a_file_are_two_and_stay_two(store: Store, write: Write) -> None:
    path = write(f"{GOOD}\n{GOOD}")
    assert numbers(import_transcripts(store, path))[0] == 2
    tables = dump(store)
    assert import_transcripts(store, path).imported == 0
    # A file that has grown, in another form: only the new one comes in.
    grown = write(json.dumps([OTHER, json.loads(GOOD), json.loads(GOOD)]), "grown")
    report = import_transcripts(store, grown)
    assert (numbers(report)[0], report.counts["sessions"].repeated) == (1, 2)
    there = {row["id"]: row for row in dump(store)["messages"]}
    assert [there[row["id"]] for row in tables["messages"]] == tables["messages"]


def test_both_databases_get_equal_rows(target: Store, write: Write, postgres_database: str) -> None:
    path = write(json.dumps([RECORD, OTHER, {"messages": []}]))
    ensure_migrations(postgres_database)
    with Store.open(postgres_database) as postgres:
        assert import_transcripts(target, path) == import_transcripts(postgres, path)
        assert timeless(dump(target)) == timeless(dump(postgres))


def test_a_killed_run_is_repeated_and_leaves_no_half_of_a_transcript(url: str, write: Write, target: Store) -> None:
    records = [{"messages": TURNS, "n": n, "reward": n} for n in range(6)]
    path = write("\n".join(map(json.dumps, records)))
    kill_at(import_transcripts, url, path, done=3)
    with Store.open(url) as store:
        assert [len(rows) for rows in dump(store).values()] == [3, 15, 3, 3]
        report = import_transcripts(store, path)
        assert (numbers(report)[0], report.counts["sessions"].repeated) == (3, 3)
        import_transcripts(target, path)
        assert timeless(dump(store)) == timeless(dump(target))


def test_imports_at_once_leave_what_one_would_have(store: Store, url: str, write: Write, target: Store) -> None:
    records = [{"messages": TURNS, "n": n, "reward": n} for n in range(12)]
    path = write("\n".join(map(json.dumps, records)))

    def run(_: int) -> int:
        with Store.open(url) as own:
            return import_transcripts(own, path).counts["sessions"].imported

    with ThreadPoolExecutor(4) as pool:
        imported = list(pool.map(run, range(4)))
    assert sum(imported) == 12
    import_transcripts(target, path)
    assert timeless(dump(store)) == timeless(dump(target))


def test_a_file_that_is_written_to_meanwhile_is_told_of(target: Store, write: Write) -> None:
    path = write(f"{GOOD}\n{json.dumps(OTHER)}\n")

    def progress(kind: str, done: int, total: int) -> None:
        with path.open("a") as file:
            file.write(GOOD + "\n")

    with pytest.raises(ConflictError):
        import_transcripts(target, path, progress=progress)


def test_no_more_than_one_record_is_in_memory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_CHUNK", 1000)
    for form in ("lines", "array"):
        records = [{"messages": [{"role": "user", "content": "x" * 500}], "n": n} for n in range(200)]
        path = write(json.dumps(records) if form == "array" else "\n".join(map(json.dumps, records)), form)
        with open_transcripts(path) as file:
            shares = [file.share for item in file.transcripts() if isinstance(item, Transcript)]
        assert len(shares) == 200
        assert shares == sorted(shares)
        # Lines are told from a document by their beginning, for which more is looked at once.
        assert form == "array" or shares[0] < 0.5
        assert shares[100] < 0.9 or form == "array"


def test_a_record_that_is_too_large_is_set_aside(target: Store, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGEST", 5000)
    monkeypatch.setattr(pieces, "_CHUNK", 1000)
    monkeypatch.setattr(pieces, "_HEAD", 2000)
    large = json.dumps({"messages": [{"role": "user", "content": "x" * 20_000}]})
    report = import_transcripts(target, write(f"{GOOD}\n{large}\n{json.dumps(OTHER)}\n"))
    assert [note.key for note in report.set_aside] == ["line 2"]
    assert numbers(report)[0] == 2
    report = import_transcripts(target, write(f"[{GOOD},{large}]"))
    assert [note.key for note in report.set_aside] == ["record 2 on"]


def test_a_line_that_ends_where_a_chunk_ends_is_whole(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"messages": [{"role": "user", "content": f"{n:04}"}]}) + "\n" for n in range(20)]
    monkeypatch.setattr(pieces, "_CHUNK", 2 * len(lines[0]))
    with open_transcripts(write("".join(lines))) as file:
        found = [item for item in file.transcripts() if isinstance(item, Transcript)]
    assert [transcript.messages[0].content for transcript in found] == [f"{n:04}" for n in range(20)]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_where_the_chunks_end_makes_no_difference(write: Write, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"messages": [{"role": "user", "content": 'quotes \\" and [brackets] {in} 文字 \\\\'}], "n": 1}
    forms = [
        json.dumps([odd, RECORD, OTHER], ensure_ascii=False),
        "\n".join(json.dumps(each) for each in (odd, RECORD)),
    ]
    for number, content in enumerate(forms):
        path = write(content, f"whole {number}")
        with open_transcripts(path) as file:
            whole = list(file.transcripts())
        monkeypatch.setattr(pieces, "_CHUNK", size)
        with open_transcripts(path) as file:
            assert list(file.transcripts()) == whole
        assert not any(isinstance(item, LostTranscript) for item in whole)
        monkeypatch.undo()
