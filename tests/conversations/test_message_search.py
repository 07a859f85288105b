"""Searching what was said: what is found, in which order, and when it is indexed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sqlite3
from typing import Any

import pytest

from agentos_store import AsyncStore, InvalidValueError, NotFoundError, Settings, Store
from agentos_store.conversations import message_index, message_search
from agentos_store.conversations.message_texts import texts_of
from agentos_store.testing.postgres import connect
from tests.engine.gather import threads
from tests.standing import owners_work


def say(store: Any, session_id: str, *contents: Any, **values: Any) -> None:
    for content in contents:
        store.messages.append(session_id, role=values.pop("role", "user"), content=content, **values)


def found(store: Any, query: str, **filters: Any) -> list[Any]:
    return [hit.message.content for hit in store.messages.search(query, **filters)]


def shown(hits: Any) -> list[tuple[str, float, str]]:
    return [(hit.message.id, hit.score, hit.snippet) for hit in hits]


@pytest.fixture
def filled(store: Store) -> Store:
    user = store.users.create(name="Ada", id="ada")
    store.agents.save("a")
    store.sessions.create(id="s", user_id=user.id)
    store.sessions.create(id="t")
    say(store, "s", "今天北京天气很好", "数据库迁移要先备份", agent_id="a")
    say(store, "s", "我用Python写数据库", role="assistant")
    say(store, "t", "外面天气不好", created_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    return store


def test_words_are_found_in_chinese_sentences(filled: Store) -> None:
    assert sorted(found(filled, "天气")) == ["今天北京天气很好", "外面天气不好"]
    assert found(filled, "数据库") == ["我用Python写数据库", "数据库迁移要先备份"]
    assert found(filled, "用Python写") == ["我用Python写数据库"]
    assert found(filled, "气 -外") == ["今天北京天气很好"]
    assert found(filled, "图书馆") == []


def test_a_hit_has_its_message_its_score_and_its_place(filled: Store) -> None:
    for _ in range(2):
        (hit,) = filled.messages.search("北京天气")
        assert hit.message.to_dict() == filled.messages.get(hit.message.id).to_dict()
        assert hit.snippet == "今天«北京天气»很好"
        assert hit.score > 0
        (hit,) = filled.messages.search("python", marks=("[", "]"))
        assert hit.snippet == "我用[Python]写数据库"


def test_what_is_found_can_be_narrowed(filled: Store) -> None:
    middle = dt.datetime(2021, 1, 1, tzinfo=dt.UTC)
    for _ in range(2):
        assert found(filled, "天气", session_id="t") == ["外面天气不好"]
        assert found(filled, "数据库", role="assistant") == ["我用Python写数据库"]
        assert found(filled, "数据库", agent_id="a") == ["数据库迁移要先备份"]
        assert found(filled, "天气", user_id="ada") == ["今天北京天气很好"]
        assert found(filled, "天气", created_before=middle) == ["外面天气不好"]
        assert found(filled, "天气", created_after=middle) == ["今天北京天气很好"]
        everything: dict[str, Any] = {"session_id": "s", "agent_id": "a", "user_id": "ada", "role": "user"}
        assert found(filled, "天气", **everything, created_after=middle) == ["今天北京天气很好"]
        assert found(filled, "天气", session_id="unknown") == []


def test_a_search_within_one_session_leaves_the_others_as_they_are(filled: Store) -> None:
    assert found(filled, "数据库", session_id="s") == ["我用Python写数据库", "数据库迁移要先备份"]
    assert [filled.sessions.get(key).unindexed_from for key in "st"] == [None, 0]


def test_hits_come_best_first_and_in_pages(filled: Store) -> None:
    hits = filled.messages.search("数据库 -天气")
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.message.id))
    keys = [hit.message.content for hit in hits]
    assert [found(filled, "数据库", limit=1, offset=at) for at in range(3)] == [*([key] for key in keys), []]


def test_a_query_that_asks_for_nothing_finds_nothing(filled: Store) -> None:
    for query in ("", " ", '"', "*", "-", "-数据库", "+++", "\0", "\ud800", "'", "¶"):
        assert filled.messages.search(query) == []


BAD: list[tuple[str, dict[str, Any]]] = [
    ("query", {"query": None}),
    ("limit", {"limit": 0}),
    ("limit", {"limit": 1001}),
    ("offset", {"offset": -1}),
    ("width", {"width": 0}),
    ("role", {"role": "x"}),
    ("session_id", {"session_id": 7}),
    ("created_after", {"created_after": dt.datetime(2020, 1, 1)}),  # noqa: DTZ001  which is what is wrong with it
]


@pytest.mark.parametrize("indexed", [False, True])
def test_a_bad_option_is_refused(filled: Store, indexed: bool) -> None:
    if indexed:
        filled.messages.search("x")
    for name, options in BAD:
        with pytest.raises(InvalidValueError) as caught:
            filled.messages.search(**{"query": "数据库", **options})
        assert caught.value.name == name


CONTENTS: list[tuple[Any, list[str]]] = [
    ("plain", ["plain"]),
    (None, []),
    ([], []),
    (
        [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, {"type": "refusal", "refusal": "c"}],
        [*"abc"],
    ),
    ([{"type": "thinking", "thinking": "a", "signature": "no"}, {"type": "redacted_thinking", "data": "no"}], ["a"]),
    ([{"type": "reasoning", "reasoning": "a"}], ["a"]),
    ([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}], "encrypted_content": "no"}], ["a"]),
    ([{"type": "tool_use", "id": "no", "name": "no", "input": {"city": "no"}}], []),
    ([{"type": "tool_result", "tool_use_id": "no", "content": "a"}], ["a"]),
    (
        [
            {
                "type": "tool_result",
                "content": [
                    {"type": "text", "text": "a", "annotations": ["no"]},
                    {"type": "image", "source": {"data": "no"}},
                    {"type": "table", "rows": [["b", 1], ["c", None]]},
                    "d",
                ],
            }
        ],
        [*"abcd"],
    ),
    ([{"type": "tool_result", "content": {"ok": True, "data": {"x": "a", "y": ["b"]}}}], ["a", "b"]),
    ([{"type": "tool_result"}, {"type": "image_url", "image_url": {"url": "no"}}, {"type": "own", "text": "no"}], []),
    ([{"type": "text", "text": 7}, {"type": "text"}, {"type": "reasoning", "summary": [7, {"text": None}]}], []),
]


@pytest.mark.parametrize(("content", "texts"), CONTENTS)
def test_what_is_said_and_thought_and_answered_is_searched(content: Any, texts: list[str]) -> None:
    assert texts_of(content) == texts


def test_what_tools_are_asked_is_not_searched(store: Store) -> None:
    session_id = store.sessions.create().id
    use = {"type": "tool_use", "id": "1", "name": "weather", "input": {"city": "北京"}}
    say(store, session_id, [{"type": "text", "text": "让我看看"}, use], role="assistant")
    say(store, session_id, [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "晴天"}]}])
    (hit,) = store.messages.search("晴天")
    assert (hit.message.seq, hit.snippet) == (1, "«晴天»")
    assert len(store.messages.search("看看")) == 1
    assert store.messages.search("北京") == store.messages.search("weather") == []


def test_nothing_is_indexed_before_a_search(filled: Store) -> None:
    report = filled.search.check("message")["message"]
    assert (report.documents, report.missing, report.ok, report.lags) == (4, 4, True, True)
    filled.messages.search("anything")
    assert filled.search.check("message")["message"].missing == 0
    before = filled.sessions.get("s")
    filled.messages.append("s", role="user", content="new")
    assert filled.sessions.get("s").unindexed_from == 3
    say(filled, "s", "newer")
    assert filled.search.check("message")["message"].missing == 2
    assert found(filled, "newer") == ["newer"]
    after = filled.sessions.get("s")
    assert (before.unindexed_from, after.unindexed_from) == (None, None)
    # A search is no change of the conversation.
    updated = after.updated_at
    assert found(filled, "newer") == ["newer"]
    assert filled.sessions.get("s").updated_at == updated


def test_only_what_conversations_consist_of_now_is_found(filled: Store) -> None:
    assert len(found(filled, "天气")) == 2
    history = filled.messages.history("s")
    filled.messages.save("s", [{"role": "system", "content": "谈过天气预报"}, *history[1:]])
    assert sorted(found(filled, "天气")) == ["外面天气不好", "谈过天气预报"]
    filled.messages.save("s", history[2:])
    assert found(filled, "天气") == ["外面天气不好"]
    assert found(filled, "数据库") == ["我用Python写数据库"]
    filled.sessions.delete("t")
    assert found(filled, "天气") == []
    filled.sessions.restore("t")
    assert found(filled, "天气") == ["外面天气不好"]


def test_what_was_deleted_before_it_was_indexed_is_found_when_it_is_restored(filled: Store) -> None:
    filled.sessions.delete("t")
    assert found(filled, "天气") == ["今天北京天气很好"]
    assert filled.sessions.get("t", include_deleted=True).unindexed_from == 0
    filled.sessions.restore("t")
    assert len(found(filled, "天气")) == 2


def test_a_message_that_moved_before_it_was_indexed_is_found(store: Store) -> None:
    store.sessions.create(id="s")
    say(store, "s", *(f"old{n}" for n in range(6)))
    assert found(store, "old3") == ["old3"]
    say(store, "s", "fresh", "fresher")
    history = store.messages.history("s")
    # It moves to a place below those that are known to be indexed; nothing is new.
    store.messages.save("s", [history[0], *history[6:]])
    assert store.sessions.get("s").unindexed_from == 1
    assert (found(store, "fresh"), found(store, "fresher"), found(store, "old1")) == (["fresh"], ["fresher"], [])


def test_forks_are_found_beside_what_they_were_made_of(store: Store) -> None:
    store.sessions.create(id="s")
    store.agents.save("a", session_id="s")
    say(store, "s", "天气", "数据库", agent_id="a")
    assert len(found(store, "天气")) == 1
    fork = store.agents.fork("a", up_to_seq=0)
    assert len(found(store, "天气")) == 2
    assert len(found(store, "数据库")) == 1
    assert len(found(store, "天气", agent_id=fork.agent_id)) == 1
    empty = store.agents.fork("a", up_to_seq=-1)
    assert store.sessions.get(str(empty.session_id)).unindexed_from is None


def test_purging_a_session_takes_its_documents_along(filled: Store) -> None:
    filled.messages.search("x")
    filled.messages.save("s", [{"role": "user", "content": "short"}])
    filled.sessions.purge("s")
    filled.agents.purge("a")
    report = filled.search.check("message")["message"]
    assert (report.documents, report.orphaned) == (1, 0)
    assert filled.search.rebuild("message").removed == 0


def test_a_rebuilding_indexes_all_and_takes_out_what_was_closed(filled: Store) -> None:
    filled.messages.search("x")
    filled.messages.save("s", [{"role": "user", "content": "天气 short"}])
    assert filled.search.check("message")["message"].orphaned == 3
    rebuilt = filled.search.rebuild("message")
    assert (rebuilt.documents, rebuilt.removed) == ({"message": 2}, 3)
    report = filled.search.check("message")["message"]
    assert (report.missing, report.stale, report.orphaned) == (0, 0, 0)
    assert filled.sessions.get("s").unindexed_from == 0
    assert sorted(found(filled, "天气")) == ["外面天气不好", "天气 short"]


def behind_its_back(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as raw:
            raw.execute(statement)
    else:
        with connect(url) as server:
            server.execute(statement.encode())


def test_what_was_taken_out_behind_its_back_is_overdue(filled: Store, url: str) -> None:
    assert len(found(filled, "天气")) == 2
    say(filled, "s", "not yet")
    report = filled.search.check("message")["message"]
    assert (report.missing, report.overdue, report.ok) == (1, 0, True)
    behind_its_back(url, "DELETE FROM search_documents")
    report = filled.search.check("message")["message"]
    assert (report.missing, report.overdue, report.ok) == (5, 4, False)
    filled.search.rebuild("message")
    assert filled.search.check("message")["message"].missing == 0


def test_counters_that_are_put_right_hide_nothing(filled: Store, url: str) -> None:
    filled.messages.search("x")
    behind_its_back(url, "UPDATE sessions SET message_count = 9, next_seq = 9, unindexed_from = 9 WHERE id = 's'")
    filled.repair()
    say(filled, "s", "天气预报")
    assert found(filled, "预报") == ["天气预报"]


def test_renumbering_a_conversation_keeps_its_messages_to_be_found(store: Store, url: str) -> None:
    store.sessions.create(id="s")
    say(store, "s", *(f"old{n}" for n in range(4)))
    store.messages.search("x")
    say(store, "s", "fresh")
    behind_its_back(url, "DELETE FROM messages WHERE seq IN (1, 2)")
    store.repair()
    assert [each.content for each in store.messages.iterate("s")] == ["old0", "old3", "fresh"]
    assert found(store, "fresh") == ["fresh"]


# --- in batches


def test_a_long_conversation_is_indexed_in_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_index, "SOME", 7)
    monkeypatch.setattr(message_index, "LOOKED_AT", 10)
    for key in "abc":
        store.sessions.create(id=key)
        store.messages.append_many(key, [{"role": "user", "content": f"word{n} 天气"} for n in range(23)])
    assert sorted(found(store, "word22")) == ["word22 天气"] * 3
    assert len(found(store, "天气", limit=100)) == 69
    assert [store.sessions.get(key).unindexed_from for key in "abc"] == [None] * 3
    # Something new at the front: everything behind it is looked at, and is there.
    store.messages.save("b", [{"role": "system", "content": "front"}, *store.messages.history("b")])
    assert found(store, "front") == ["front"]
    assert store.search.check("message")["message"].missing == 0


def test_large_messages_are_indexed_one_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_index, "MOST_STORED", 50)
    store.sessions.create(id="s")
    say(store, "s", *(f"large{n} {'天气很好 ' * 30}" for n in range(4)))
    steps: list[str] = []
    after: str | None = ""
    while after is not None:
        steps.append(after)
        after, done = store.messages._index(after, None, wait=False)
        assert done == 1
    assert steps == [""] * 4
    assert len(found(store, "天气很好")) == 4


# --- in transactions


def test_a_transaction_finds_what_it_appended(filled: Store) -> None:
    for indexed in (False, True):
        with filled.transaction() as tx:
            say(tx, "s", f"天气预报{indexed}")
            assert len(found(tx, "天气预报")) == 1 + indexed
            tx.messages.save("s", [])
            assert found(tx, "天气") == ["外面天气不好"]
            tx.messages.save("s", [{"role": "user", "content": f"天气预报{number}"} for number in range(1 + indexed)])
            assert len(found(tx, "天气预报")) == 1 + indexed
        assert len(found(filled, "天气预报")) == 1 + indexed


def test_what_is_rolled_back_is_not_found(filled: Store) -> None:
    filled.messages.search("x")

    def fail() -> None:
        with filled.transaction() as tx:
            say(tx, "s", "天气预报")
            assert found(tx, "天气预报") == ["天气预报"]
            tx.sessions.get("unknown")

    with pytest.raises(NotFoundError):
        fail()
    assert found(filled, "天气预报") == []
    say(filled, "s", "天气晚报")
    assert found(filled, "天气晚报") == ["天气晚报"]


@pytest.mark.parametrize("most", [0, 2000])
def test_a_transaction_that_only_reads_finds_everything(
    filled: Store, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(message_search, "MOST_READ", most)
    with filled.transaction(read_only=True) as tx:
        assert sorted(found(tx, "天气")) == ["今天北京天气很好", "外面天气不好"]
        say(filled, "s", "天气预报")
        assert len(found(tx, "天气")) == 2
        second = shown(tx.messages.search("数据库", limit=1, offset=1))
    assert filled.sessions.get("s").unindexed_from == 0
    assert shown(filled.messages.search("数据库", limit=1, offset=1)) == second


def test_a_search_holds_nobody_up_who_writes_meanwhile(filled: Store, url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("a transaction holds the queue of writers there")
    with filled.transaction() as tx, Store.open(url, settings=Settings.load(lock_timeout=0.2, retries=0)) as other:
        assert len(found(tx, "天气")) == 2
        say(other, "s", "written beside")
        other.sessions.purge("t")


def test_a_search_waits_for_nobodys_transaction(filled: Store, url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("whoever searches waits in the queue of writers there, up to its limit")
    with filled.transaction() as tx, Store.open(url, settings=Settings.load(lock_timeout=0.2, retries=0)) as other:
        say(tx, "s", "天气 not committed")
        assert sorted(found(other, "天气")) == ["今天北京天气很好", "外面天气不好"]
        assert [other.sessions.get(key).unindexed_from for key in "st"] == [0, None]
        assert sorted(found(other, "天气")) == ["今天北京天气很好", "外面天气不好"]
    assert len(found(filled, "天气")) == 3


def test_a_writer_that_does_not_end_keeps_nothing_from_being_found(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_search, "MOST_READ", 0)
    with Store.open(url, settings=Settings.load(lock_timeout=0.2, retries=0)) as store:
        store.sessions.create(id="s")
        say(store, "s", "天气")
        with store.transaction() as tx:
            say(tx, "s", "天气 not committed")
            with threads([lambda: found(store, "天气")]) as outcomes:
                pass
            assert outcomes == [["天气"]]
        assert len(found(store, "天气")) == 2


def test_a_transaction_indexes_when_there_is_too_much_to_read(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_search, "MOST_READ", 2)
    with filled.transaction() as tx:
        assert len(found(tx, "天气")) == 2
        assert tx.sessions.get("s").unindexed_from is None
    assert filled.search.check("message")["message"].missing == 0


@owners_work
def test_a_role_that_may_only_read_finds_everything(filled: Store, url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("there are no roles")
    name = "agentos_test_reader"
    with connect(url) as server:
        server.execute(f"DROP OWNED BY {name}".encode() if _exists(server, name) else b"SELECT 1")
        server.execute(f"DROP ROLE IF EXISTS {name}".encode())
        server.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'right'".encode())
        schema = server.execute("SELECT current_schema()").fetchone()[0]  # type: ignore[index]
        server.execute(f"GRANT USAGE ON SCHEMA {schema} TO {name}".encode())
        server.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}".encode())
    from agentos_store.engine.urls import parse_url

    reader_url = parse_url(url).set(username=name, password="right").render_as_string(hide_password=False)
    with Store.open(reader_url) as reader:
        for _ in range(2):
            assert sorted(found(reader, "天气")) == ["今天北京天气很好", "外面天气不好"]
            assert found(reader, "数据库", limit=1, offset=1) == ["数据库迁移要先备份"]
            assert found(reader, "天气", user_id="ada") == ["今天北京天气很好"]
            say(filled, "s", "一个新的")
        assert filled.sessions.get("s").unindexed_from == 0
        answer = shown(reader.messages.search("数据库"))
        assert len(answer) == 2
        assert shown(filled.messages.search("数据库")) == answer == shown(reader.messages.search("数据库"))
    with connect(url) as server:
        server.execute(f"DROP OWNED BY {name}".encode())
        server.execute(f"DROP ROLE {name}".encode())


def _exists(server: Any, name: str) -> bool:
    return server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None


# --- long queries, long texts


def test_a_query_beyond_what_an_index_is_asked_is_answered(store: Store) -> None:
    words = [f"w{number}" for number in range(300)]
    store.sessions.create(id="s")
    said = [" ".join(words), " ".join(words[:-1]), " ".join(reversed(words))]
    for mode in range(2):
        say(store, "s", *said[mode:][: 1 + mode])
        with store.transaction(read_only=True) as tx:
            assert sorted(found(tx, " ".join(words))) == sorted({0: said[:1], 1: [said[0], said[2]]}[mode])
        assert sorted(found(store, " ".join(words))) == sorted({0: said[:1], 1: [said[0], said[2]]}[mode])
    assert found(store, f'"{" ".join(words)}"') == said[:1]


def test_a_message_of_a_megabyte_is_found(store: Store) -> None:
    store.sessions.create(id="s")
    say(store, "s", "天气很好 " * 70_000 + "needle")
    (hit,) = store.messages.search("needle")
    assert hit.snippet.endswith("«needle»")


# --- both databases, both faces


def test_both_databases_give_the_same_hits_in_the_same_order_indexed_or_not(both: list[Store]) -> None:
    answers: list[list[Any]] = []
    for store in both:
        store.sessions.create(id="s")
        contents = [
            f"{'数据库 ' * (number % 5)}cat {'dog ' * (number % 7)}天气{'很好' * (number % 3)} {number}"
            for number in range(60)
        ]
        contents.append("dog " * 300 + "数据库 " * 300 + "cat")
        store.messages.append_many(
            "s", [{"role": "user", "content": content, "id": f"k{n:02}"} for n, content in enumerate(contents)]
        )
        asked = ["cat", "dog 数据库", "天气", "气", "d*", "cat -dog", '"dog 天气很好"', "很好很", "3*", "cat dog 天 -5"]

        def ask(reader: Any, asked: list[str] = asked) -> list[Any]:
            return [
                each
                for query in asked
                for options in ({"limit": 7}, {"limit": 7, "offset": 7}, {"role": "user", "limit": 1000})
                for each in shown(reader.messages.search(query, **options))
            ]

        with store.transaction(read_only=True) as tx:
            answers.append(ask(tx))
        answers.append(ask(store))
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert len(answers[0]) > 200


def test_the_asynchronous_store_searches(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            session = await store.sessions.create()
            await asyncio.gather(
                *(store.messages.append(session.id, role="user", content=f"天气 {n}") for n in range(20))
            )
            answers = await asyncio.gather(*(store.messages.search("天气", limit=100) for _ in range(5)))
            assert all(len(answer) == 20 for answer in answers)
            async with store.transaction() as tx:
                await tx.messages.append(session.id, role="user", content="天气 inside")
                (hit,) = await tx.messages.search("inside", session_id=session.id)
            assert (await store.messages.search("inside"))[0].message.id == hit.message.id
            async with store.transaction(read_only=True) as tx:
                assert len(await tx.messages.search("天气", limit=100)) == 21
            with pytest.raises(InvalidValueError):
                await store.messages.search("天气", limit=0)

    asyncio.run(main())
