from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agentos_store import InvalidValueError, NotFoundError, Store
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.search.fusion import fuse
from tests.knowledge.shelf import found, keys, lengths, pieces, shelve


@pytest.fixture
def filled(store: Store) -> Store:
    store.projects.create(path="/p", id="p")
    store.kb.refresh(
        source_path="/a.md",
        content_hash="1",
        metadata={"tags": ["ops", "db"], "lang": "zh"},
        chunks=[
            NewChunk("数据库迁移要先备份", "指南 > 安装", 1, 2),
            NewChunk("今天北京天气很好", metadata={"tags": ["weather"]}),
        ],
    )
    store.kb.refresh(
        source_path="/b.md",
        content_hash="2",
        project_id="p",
        metadata={"lang": "en"},
        chunks=[NewChunk("the database 数据库", metadata={"tags": ["db"]}), NewChunk("another 天气 report")],
    )
    return store


def test_a_hit_has_its_chunk_its_source_and_its_place(filled: Store) -> None:
    (hit,) = filled.kb.search("备份")
    assert hit.chunk.to_dict() == filled.kb.get_chunk(hit.chunk.chunk_id).to_dict()
    assert hit.source.to_dict() == filled.kb.get_source(hit.source.source_id).to_dict()
    assert (hit.source_path, hit.chunk.start_line, hit.snippet) == ("/a.md", 1, "数据库迁移要先«备份»")
    assert hit.score > 0
    (hit,) = filled.kb.search("安装", marks=("[", "]"))
    assert hit.snippet == "指南 > [安装]"
    shelved = NewChunk("install it", "Guide > Install")
    filled.kb.refresh(source_path="/c.md", content_hash="3", chunks=[shelved])
    assert [hit.snippet for hit in filled.kb.search("install")] == ["«install» it"]


def test_what_is_found_by_words_can_be_narrowed(filled: Store) -> None:
    def first(query: str, **filters: Any) -> set[str]:
        return {text[:4] for text in found(filled, query, **filters)}

    assert first("数据库") == {"数据库迁", "the "}
    assert first("数据库", project_id="p") == {"the "}
    assert first("数据库", source_id=filled.kb.list_sources(project_id="p").items[0].source_id) == {"the "}
    assert first("数据库", tags=["db"]) == {"数据库迁", "the "}
    assert first("数据库", tags=["db", "ops"]) == {"数据库迁"}
    assert first("天气", tags=["ops"]) == {"今天北京"}
    assert first("天气", tags=["weather"]) == {"今天北京"}
    assert first("天气", metadata={"lang": "en"}) == {"anot"}
    assert first("数据库", metadata={"lang": "en"}, tags=["db"]) == set()
    assert first("数据库", metadata={}, tags=[]) == {"数据库迁", "the "}
    assert first("图书馆") == set()


def test_what_is_near_can_be_narrowed_and_as_many_are_found_as_there_are(filled: Store) -> None:
    filled.kb.embed("m", embedder=lengths)

    def near(**filters: Any) -> set[str]:
        by_vector = {text[:4] for text in found(filled, vector=[5, 1, 1], model_name="m", **filters)}
        by_both = {text[:4] for text in found(filled, "x", vector=[5, 1, 1], model_name="m", **filters)}
        assert by_vector == by_both
        return by_vector

    assert near() == {"数据库迁", "今天北京", "the ", "anot"}
    assert near(project_id="p") == {"the ", "anot"}
    assert near(tags=["ops"]) == {"数据库迁", "今天北京"}
    assert near(tags=["db"]) == {"数据库迁", "今天北京", "the "}
    assert near(tags=["weather"], project_id="p") == set()
    assert near(metadata={"lang": "zh"}, source_id=filled.kb.list_sources(prefix="/a").items[0].source_id) == {
        "数据库迁",
        "今天北京",
    }
    assert near(project_id="nobody") == set()


def test_hits_come_best_first_and_in_pages(filled: Store) -> None:
    filled.kb.embed("m", embedder=lengths)
    asked: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("数据库",), {}),
        ((), {"vector": [5, 1, 1], "model_name": "m"}),
        (("天气",), {"vector": [5, 1, 1], "model_name": "m", "metric": "l2"}),
    ]
    for query, options in asked:
        hits = filled.kb.search(*query, **options)
        order = [(-hit.score, hit.chunk.chunk_id) for hit in hits]
        assert order == sorted(order)
        pages = [filled.kb.search(*query, **options, limit=1, offset=at) for at in range(len(hits) + 1)]
        assert [(-hit.score, hit.chunk.chunk_id) for page in pages for hit in page] == order
        assert pages[-1] == []


def test_both_rankings_are_fused_by_rank(store: Store) -> None:
    texts = ["cat", "cat dog", "cat dog bird", "dog", "bird", "cat cat"]
    shelve(store, "/a", *texts)
    by_text = keys(store)
    rng = np.random.default_rng(3)
    # The last one has no embedding.
    store.kb.embed("m", {by_text[text]: rng.normal(size=4) * 10**place for place, text in enumerate(texts[:-1])})
    asked: dict[str, Any] = {"vector": [1, 2, 3, 4], "model_name": "m"}
    for metric in ("cosine", "dot", "l2"):
        words = [hit.chunk.chunk_id for hit in store.kb.search("cat")]
        near = [hit.chunk.chunk_id for hit in store.kb.search(**asked, metric=metric)]
        both = [(hit.chunk.chunk_id, hit.score) for hit in store.kb.search("cat", **asked, metric=metric)]
        assert both == fuse([words, near], 20)
        scores = dict(both)
        # Ranked by its words alone, however large the others' products are.
        assert scores[by_text["cat cat"]] == 1 / (60 + 1 + words.index(by_text["cat cat"]))
        assert scores[by_text["dog"]] == 1 / (60 + 1 + near.index(by_text["dog"]))
    assert found(store, "", **asked) == found(store, **asked)
    assert found(store, "nothing", **asked) == found(store, **asked)
    hit = store.kb.search("bird", **asked, limit=6)[-1]
    assert "«" not in hit.snippet


def test_ranks_make_the_score_and_keys_break_ties() -> None:
    assert fuse([["b", "a"], ["a", "b"]], 9) == [("a", 1 / 61 + 1 / 62), ("b", 1 / 61 + 1 / 62)]
    assert fuse([["c"], ["b"], []], 9) == [("b", 1 / 61), ("c", 1 / 61)]
    assert [key for key, _ in fuse([["x", "y"], ["y", "z"]], 9)] == ["y", "x", "z"]


def test_the_best_of_two_rankings_are_the_first_of_all() -> None:
    rng = np.random.default_rng(5)
    for size in (1, 7, 40):
        rankings = [[f"k{key}" for key in rng.permutation(size)[: rng.integers(1, size + 1)]] for _ in range(3)]
        every = fuse(rankings, 3 * size)
        assert len(every) == len({key for ranking in rankings for key in ranking})
        for count in range(len(every) + 1):
            assert fuse(rankings, count) == every[:count]


BAD: list[tuple[str, dict[str, Any]]] = [
    ("query", {}),
    ("query", {"query": 7}),
    ("limit", {"limit": 0}),
    ("limit", {"limit": 1001}),
    ("limit", {"limit": True}),
    ("offset", {"offset": -1}),
    ("offset", {"offset": 1001}),
    ("width", {"width": 0}),
    ("tags", {"tags": "x"}),
    ("tags", {"tags": ["x"], "metadata": {"tags": ["y"]}}),
    ("metadata", {"metadata": ["x"]}),
    ("metadata.x", {"metadata": {"x": float("nan")}}),
    ("project_id", {"project_id": ""}),
    ("source_id", {"source_id": 7}),
    ("metric", {"vector": [1, 1, 1], "metric": "x", "model_name": "m"}),
    ("metric", {"vector": [1, 1, 1], "metric": [], "model_name": "m"}),
    ("model_name", {"vector": [1, 1, 1]}),
    ("model_name", {"vector": [1, 1, 1], "model_name": 7}),
    ("vector", {"vector": [1, 1], "model_name": "m"}),
    ("vector", {"vector": [], "model_name": "m"}),
    ("vector", {"vector": "x", "model_name": "m"}),
    ("vector[1]", {"vector": [1, float("nan"), 1], "model_name": "m"}),
]


def test_a_bad_option_is_refused(filled: Store) -> None:
    filled.kb.embed("m", embedder=lengths)
    query: dict[str, Any]
    for warm in (False, True):
        for name, options in BAD:
            query = {} if "vector" in options or name == "query" else {"query": "数据库"}
            with pytest.raises(InvalidValueError) as caught:
                filled.kb.search(**query, **options)
            assert caught.value.name == name, options
        if not warm:
            filled.kb.search(vector=[1, 1, 1], model_name="m")
    with pytest.raises(NotFoundError) as missing:
        filled.kb.search(vector=[1, 1, 1], model_name="nobody")
    assert (missing.value.entity, missing.value.key) == ("embedding model", "nobody")


def test_whatever_is_typed_is_answered(filled: Store) -> None:
    filled.kb.embed("m", embedder=lengths)
    for query in (
        "",
        " ",
        '"',
        "*",
        "-",
        "-数据库",
        "+++",
        "\0",
        "\ud800",
        "'; DROP TABLE kb_chunks; --",
        "a AND",
        "NOT",
    ):
        assert filled.kb.search(query) == []
        assert len(filled.kb.search(query, vector=[1, 1, 1], model_name="m")) == 4


def test_a_query_of_twenty_thousand_words_is_answered(store: Store) -> None:
    words = [f"w{number}" for number in range(20_000)]
    shelve(store, "/a", " ".join(words), " ".join(words[:-1]), " ".join(reversed(words)))
    store.kb.embed("m", embedder=lengths)
    assert len(found(store, " ".join(words))) == 2
    assert len(found(store, f'"{" ".join(words)}"')) == 1
    assert len(found(store, " ".join(words), limit=1, offset=1)) == 1
    hits = store.kb.search(f'"{" ".join(words)}"', vector=[1, 1, 1], model_name="m")
    assert hits[0].chunk.content == " ".join(words)
    assert len(hits) == 3


def test_both_databases_give_the_same_hits_in_the_same_order(both: list[Store]) -> None:
    answers = []
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(60, 24)).astype("f4")
    # Some are alike, so that keys decide.
    vectors[20:30] = vectors[7]
    wanted = rng.normal(size=(2, 24))
    for store in both:
        store.projects.create(path="/p", id="p")
        texts = [
            f"{'数据库 ' * (number % 5)}cat {'dog ' * (number % 7)}天气{'很好' * (number % 3)} {number}"
            for number in range(60)
        ]
        for half, project in ((0, None), (30, "p")):
            chunks = [NewChunk(text, metadata={"n": number % 3}) for number, text in enumerate(texts[half : half + 30])]
            store.kb.refresh(source_path=f"/{half}", content_hash="h", project_id=project, chunks=chunks)
        by_text = keys(store)
        store.kb.embed("m", {by_text[text]: vectors[number] for number, text in enumerate(texts) if number % 10})
        options: list[dict[str, Any]] = [{}, {"limit": 7, "offset": 7}, {"project_id": "p"}, {"metadata": {"n": 1}}]
        hits = [
            hit
            for query in (None, "cat", "dog 数据库", "气", "d* -很好", '"dog 天气很好"')
            for vector in (None, *wanted)
            for metric in (("cosine",) if vector is None else ("cosine", "dot", "l2"))
            for each in options
            if query is not None or vector is not None
            for hit in store.kb.search(
                query, vector=vector, metric=metric, model_name=None if vector is None else "m", **each
            )
        ]
        answers.append([(hit.chunk.content, hit.score, hit.snippet) for hit in hits])
    assert answers[0] == answers[1]
    assert len(answers[0]) > 1000


def test_a_transaction_sees_its_own_chunks_and_vectors(store: Store) -> None:
    shelve(store, "/a", "aaa", "b")
    store.kb.embed("m", embedder=lengths)
    asked: dict[str, Any] = {"vector": [3, 4, 1], "model_name": "m", "limit": 1}
    assert found(store, **asked) == ["aaa"]
    with pytest.raises(OSError), store.transaction() as tx:  # noqa: PT011, PT012  raised here
        done = tx.kb.refresh(source_path="/b", content_hash="h", chunks=pieces("new"))
        (key,) = [chunk.chunk_id for chunk in tx.kb.iterate_chunks(source_id=done.source.source_id)]
        tx.kb.embed("m", {key: [30, 40, 10]})
        assert [hit.chunk.content for hit in tx.kb.search(**{**asked, "metric": "dot"})] == ["new"]
        (other,) = [chunk.chunk_id for chunk in tx.kb.iterate_chunks() if chunk.content == "b"]
        tx.kb.embed("m", {other: [3, 4, 1.01]})
        tx.kb.delete_source(done.source.source_id)
        assert [hit.chunk.content for hit in tx.kb.search(**{**asked, "metric": "dot"})] == ["b"]
        raise OSError
    assert found(store, **asked) == ["aaa"]
    with store.transaction(read_only=True) as tx:
        before = [hit.chunk.content for hit in tx.kb.search(**{**asked, "limit": 9})]
        shelve(store, "/c", "later")
        store.kb.embed("m", embedder=lengths)
        source = store.kb.find_source(None, "/a")
        assert source is not None
        store.kb.delete_source(source.source_id)
        assert found(store, **{**asked, "limit": 9}) == ["later"]
        # It sees one moment, whatever others know by now.
        assert [hit.chunk.content for hit in tx.kb.search(**{**asked, "limit": 9})] == before == ["aaa", "b"]
