"""What is kept in memory of embeddings: it is what the database holds, and no more than there is room for."""

from __future__ import annotations

import builtins
import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agentos_store import Store, UsageError, ensure_migrations
from agentos_store.engine.session import Session
from agentos_store.knowledge import vectors as loading
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.knowledge.repository import KnowledgeRepository
from agentos_store.operation import Blocking, Repository, writes
from agentos_store.search import vectors
from agentos_store.search.vectors import KEPT, Matrix, Wanted
from tests.engine.gather import PROCESSES
from tests.knowledge.shelf import Run, found, keys, lengths, shelve

METRICS = ("cosine", "dot", "l2")


def plain_score(vector: Any, wanted: Any, metric: str) -> float:
    a, b = vector.astype(float), wanted.astype(float)
    if metric == "l2":
        return -float(np.sqrt(((a - b) ** 2).sum()))
    dot = float((a * b).sum())
    return dot if metric == "dot" else min(1.0, max(-1.0, dot / float(np.sqrt((a * a).sum()) * np.sqrt((b * b).sum()))))


def plain_nearest(rows: dict[str, Any], wanted: Any, metric: str) -> list[tuple[str, float]]:
    """Return all of them, one by one and in Python's own order."""
    scores = [(key, plain_score(row, wanted, metric)) for key, row in rows.items()]
    return sorted(scores, key=lambda each: (-each[1], each[0]))


def matrix_of(rows: dict[str, Any]) -> Matrix:
    listed = sorted(rows)
    return Matrix(listed, ["r"] * len(rows), [rows[key].tobytes() for key in listed], len(next(iter(rows.values()))))


SCALES = st.sampled_from([1.0, 1.0, 1e-30, 1e30, 3e-4, 1e-38])


@given(
    rows=st.integers(1, 6).flatmap(
        lambda dimensions: arrays.arrays(
            np.float32,
            st.tuples(st.integers(2, 40), st.just(dimensions)),
            elements=st.floats(-8, 8, width=32).map(lambda number: number if abs(number) > 1e-3 else 1.0),
        )
    ),
    scales=st.lists(SCALES, min_size=40, max_size=40),
    count=st.integers(1, 45),
    chosen=st.one_of(st.none(), st.sets(st.integers(0, 45))),
)
@settings(deadline=None, max_examples=60)
def test_the_nearest_are_those_of_comparing_one_by_one(
    rows: Any, scales: list[float], count: int, chosen: set[int] | None
) -> None:
    rows = (rows.astype(float) * np.array(scales)[: len(rows), None]).astype("f4")
    wanted, by_key = rows[0], {f"{number:02}": row for number, row in enumerate(rows) if number}
    among = None if chosen is None else [f"{number:02}" for number in chosen]
    expected = {key: row for key, row in by_key.items() if among is None or key in among}
    for metric in METRICS:
        best = matrix_of(by_key).nearest(Wanted(wanted.tobytes(), metric), count, among)
        plain = plain_nearest(expected, wanted, metric)
        assert len(best) == min(count, len(expected))
        assert best == sorted(best, key=lambda each: (-each[1], each[0]))
        for (key, score), (_, wanted_score) in zip(best, plain, strict=False):
            assert score == pytest.approx(wanted_score, rel=1e-9, abs=1e-12)
            assert score == pytest.approx(plain_score(by_key[key], wanted, metric), rel=1e-9, abs=1e-12)


def test_a_vector_has_one_score_whatever_it_is_compared_with() -> None:
    rng = np.random.default_rng(2)
    rows = {f"{number:04}": rng.normal(size=70).astype("f4") for number in range(500)}
    for metric in METRICS:
        wanted = Wanted(rng.normal(size=70), metric)
        scores = dict(matrix_of(rows).nearest(wanted, 500))
        for size in (1, 2, 3, 7, 64):
            some = dict(list(rows.items())[size : 2 * size])
            assert all(scores[key] == score for key, score in matrix_of(some).nearest(wanted, 500))
        assert dict(matrix_of(rows).nearest(wanted, 5)).items() <= scores.items()
        assert dict(matrix_of(rows).nearest(wanted, 99, list(rows)[::7])).items() <= scores.items()


def test_a_thousand_that_are_alike_come_in_the_order_of_their_keys() -> None:
    rows = {f"{number:04}": np.array([1, 2, 3], "f4") for number in range(1000)}
    for metric in METRICS:
        best = matrix_of(rows).nearest(Wanted([3, 2, 1], metric), 5)
        assert [key for key, _ in best] == ["0000", "0001", "0002", "0003", "0004"]


class Model:
    """A plain dictionary that is changed like the store."""

    def __init__(self) -> None:
        self.vectors: dict[str, Any] = {}

    def judge(self, store: Any, rng: Any) -> None:
        wanted = rng.normal(size=3).astype("f4")
        metric = METRICS[rng.integers(3)]
        hits = store.kb.search(vector=wanted, model_name="m", metric=metric, limit=5)
        expected = plain_nearest(self.vectors, wanted, metric)[:5]
        assert [hit.chunk.chunk_id for hit in hits] == [key for key, _ in expected]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], rel=1e-9)


def test_after_any_change_a_search_finds_what_the_database_holds(store: Store, url: str) -> None:
    rng, model = np.random.default_rng(11), Model()
    names = [f"/{number}" for number in range(6)]

    def replace(to: Any) -> None:
        texts = [str(rng.integers(30)) for _ in range(rng.integers(8))]
        to.kb.refresh(source_path=str(rng.choice(names)), content_hash=None, chunks=[NewChunk(text) for text in texts])
        there = {chunk.chunk_id for chunk in to.kb.iterate_chunks()}
        model.vectors = {key: vector for key, vector in model.vectors.items() if key in there}

    def delete(to: Any) -> None:
        source = to.kb.find_source(None, str(rng.choice(names)))
        if source is not None:
            for chunk in to.kb.iterate_chunks(source_id=source.source_id):
                model.vectors.pop(chunk.chunk_id, None)
            to.kb.delete_source(source.source_id)

    def embed(to: Any) -> None:
        there = [chunk.chunk_id for chunk in to.kb.iterate_chunks()]
        chosen = [key for key in there if rng.random() < 0.4]
        given = {key: rng.normal(size=3).astype("f4") for key in chosen}
        to.kb.embed("m", given)
        model.vectors |= given

    first = shelve(store, "/0", "a").source
    store.kb.embed("m", {key: np.array([1, 2, 3], "f4") for key in keys(store).values()})
    store.kb.delete_source(first.source_id)
    with Store.open(url) as other:
        for _ in range(80):
            writer = (store, other)[rng.integers(2)]
            work = (replace, delete, embed, embed)[rng.integers(4)]
            if rng.random() < 0.3:
                before = dict(model.vectors)
                try:
                    with writer.transaction() as tx:
                        work(tx)
                        model.judge(tx, rng)
                        if rng.random() < 0.5:
                            raise OSError  # noqa: TRY301  the transaction is left by it
                except OSError:
                    model.vectors = before
            else:
                work(writer)
            for reader in (store, other):
                if rng.random() < 0.7:
                    model.judge(reader, rng)


def test_nothing_is_read_again_that_is_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    shelve(store, "/a", *(f"a{number}" for number in range(10)))
    store.kb.embed("m", embedder=lengths)
    asked: dict[str, Any] = {"vector": [3, 2, 1], "model_name": "m"}
    assert len(found(store, **asked)) == 10
    read: list[int] = []
    monkeypatch.setattr(loading, "_read_all", lambda *_: pytest.fail("all of them were read again"))
    batch = loading._matrix
    monkeypatch.setattr(loading, "_matrix", lambda rows, size: read.append(len(rows)) or batch(rows, size))  # type: ignore[func-returns-value]
    for _ in range(3):
        assert len(found(store, **asked)) == 10
    assert read == []
    store.kb.embed("m", {keys(store)["a3"]: [30, 20, 10.5]})
    assert found(store, **asked, metric="dot")[0] == "a3"
    assert read == [1]
    with store.transaction() as tx:
        assert len(tx.kb.search(**asked)) == 10
    assert read == [1]
    shelve(store, "/a", *(f"a{number}" for number in range(9)))
    assert len(found(store, **asked)) == 9
    assert read == [1, 0]


class Forgetful(Repository[Blocking]):
    """Deletes, looks, and thinks better of it."""

    name = "forgetful"

    @writes
    def delete(self, session: Session, kb: Any, source_id: str) -> None:
        KnowledgeRepository.delete_source(kb, session, source_id)
        assert len(KnowledgeRepository.search(kb, session, vector=[3, 2, 1], model_name="m")) == 1
        raise OSError


def test_what_was_seen_of_a_deletion_that_was_rolled_back_hides_nothing(store: Store, url: str) -> None:
    source = shelve(store, "/a", "a0").source
    shelve(store, "/b", "b1")
    store.kb.embed("m", embedder=lengths)
    with contextlib.suppress(OSError), store.transaction() as tx:
        tx.kb.delete_source(source.source_id)
        assert len(tx.kb.search(vector=[3, 2, 1], model_name="m")) == 1
        raise OSError
    assert sorted(found(store, vector=[3, 2, 1], model_name="m")) == ["a0", "b1"]
    with pytest.raises(OSError):  # noqa: PT011  its own
        store.bind(Forgetful).delete(store.kb, source.source_id)
    with Store.open(url) as other:
        for each in (store, other):
            assert sorted(found(each, vector=[3, 2, 1], model_name="m")) == ["a0", "b1"]


def test_a_copy_of_the_database_has_its_own_vectors(tmp_path: Path, sqlite_url: str) -> None:
    ensure_migrations(sqlite_url)
    with Store.open(sqlite_url) as store:
        for name in "ab":
            shelve(store, f"/{name}", name)
        store.kb.embed("m", embedder=lengths)
    copy = tmp_path / "copy.sqlite"
    shutil.copy(sqlite_url.removeprefix("sqlite:///"), copy)
    with Store.open(sqlite_url) as store, Store.open(f"sqlite:///{copy}") as other:
        for each, gone in ((store, "/a"), (other, "/b")):
            source = each.kb.find_source(None, gone)
            assert source is not None
            each.kb.delete_source(source.source_id)
        assert found(store, vector=[3, 2, 1], model_name="m") == ["b"]
        assert found(other, vector=[3, 2, 1], model_name="m") == ["a"]
        assert found(store, vector=[3, 2, 1], model_name="m") == ["b"]


def test_more_than_there_is_room_for_is_searched_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    shelve(store, "/a", *(f"t{number}" for number in range(50)))
    source = shelve(store, "/b", *(f"u{number}" for number in range(5))).source
    rows = {key: rng.normal(size=4).astype("f4") for key in keys(store).values()}
    store.kb.embed("m", rows)
    wanted = rng.normal(size=4).astype("f4")

    def asked(**options: Any) -> list[tuple[str, float]]:
        hits = store.kb.search(vector=wanted, model_name="m", limit=7, **options)
        return [(hit.chunk.chunk_id, hit.score) for hit in hits]

    kept = [asked(metric=metric) for metric in METRICS]
    some, both = asked(source_id=source.source_id), asked(query="t7")
    assert len(some) == 5
    monkeypatch.setattr(vectors, "MOST_BYTES", 100)
    monkeypatch.setattr(loading, "BATCH", 9)
    KEPT.after_fork()
    assert [asked(metric=metric) for metric in METRICS] == kept
    assert asked(source_id=source.source_id) == some
    assert asked(query="t7") == both
    assert len(KEPT) == 0


def test_the_least_used_vectors_go_when_room_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = vectors.Kept()
    small = matrix_of({"a": np.ones(10, "f4")})
    monkeypatch.setattr(vectors, "MOST_BYTES", 100)
    kept.put("1", small)
    kept.put("2", small)
    assert kept.get("1") is small
    kept.put("3", small)
    assert (kept.get("1"), kept.get("2"), len(kept)) == (small, None, 2)
    kept.put("4", small, instead_of="3")
    assert (kept.get("1"), kept.get("3"), kept.get("4")) == (small, None, small)


def test_vectors_that_were_deleted_past_the_library_are_not_found(store: Store, raw: Run) -> None:
    shelve(store, "/a", *(f"a{number}" for number in range(10)))
    store.kb.embed("m", embedder=lengths)
    asked: dict[str, Any] = {"vector": [2, 2, 1], "model_name": "m", "limit": 3}
    before = found(store, **asked)
    raw(
        "DELETE FROM kb_embeddings WHERE chunk_id IN (SELECT chunk_id FROM kb_chunks WHERE content IN (?, ?))",
        *before[:2],
    )
    assert found(store, **asked)[0] == before[2]
    assert len(found(store, **asked)) == 3
    # They are found by their words still, and ranked by those alone.
    (hit,) = [hit for hit in store.kb.search(before[0], **asked) if hit.chunk.content == before[0]]
    assert hit.score == 1 / 61


def test_what_is_no_vector_is_passed_over(store: Store, raw: Run) -> None:
    shelve(store, "/a", *(f"a{number}" for number in range(6)))
    by_text = keys(store)
    store.kb.embed("m", embedder=lengths)
    for text, vector in (("a1", b"\0" * 12), ("a2", b"\xff" * 12), ("a3", b"\0\0\x80?"), ("a4", b"abc")):
        raw("UPDATE kb_embeddings SET embedding = ? WHERE chunk_id = ?", vector, by_text[text])
    for metric in METRICS:
        assert found(store, vector=[2, 2, 1], model_name="m", metric=metric) == ["a0", "a5"]


def test_without_numpy_words_are_found_and_vectors_say_what_is_missing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve(store, "/a", "数据库迁移")
    (key,) = keys(store).values()
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "numpy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    store.kb.embed("m", {key: [1, 2, 3]})
    store.kb.embed("n", embedder=lengths)
    assert found(store, "数据库") == ["数据库迁移"]
    for query in ((), ("数据库",)):
        with pytest.raises(UsageError, match=r"pip install 'agentos-store\[vectors\]'"):
            store.kb.search(*query, vector=[1, 2, 3], model_name="m")


def _embed_in_a_process(url: str, key: str, vector: list[float]) -> None:
    with Store.open(url) as store:
        store.kb.embed("m", {key: vector})


def test_what_another_process_writes_is_found(store: Store, url: str) -> None:
    shelve(store, "/a", "a", "b")
    found_keys = keys(store)
    store.kb.embed("m", {key: [1, 1] for key in found_keys.values()})
    asked: dict[str, Any] = {"vector": [1, 0], "model_name": "m", "limit": 1}
    assert found(store, **asked) == ["a"]
    process = PROCESSES.Process(target=_embed_in_a_process, args=(url, found_keys["b"], [1, 0]))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert found(store, **asked) == ["b"]


# From 3.12 on Python warns of a fork while there are threads.
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_search_in_a_forked_child_has_vectors_of_its_own(store: Store, url: str) -> None:
    shelve(store, "/a", "a", "b")
    store.kb.embed("m", {key: [1, place + 1] for place, key in enumerate(keys(store).values())})
    assert found(store, vector=[1, 2], model_name="m") == ["b", "a"]
    assert len(KEPT) > 0
    child = os.fork()
    if child == 0:
        try:
            right = len(KEPT) == 0 and found(store, vector=[1, 2], model_name="m") == ["b", "a"]
            os._exit(0 if right else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
