"""The Markdown and text files of installed packages, indexed, give what a plain scan of their chunks gives.

``AGENTOS_STORE_PACKAGES=all`` takes all of them with those of the standard library, and asks more; else it is a sample.
"""

from __future__ import annotations

import os
import random
import sysconfig
import time
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import pytest

import agentos_store.search.query
from agentos_store import Store
from agentos_store.importers.files import Files, add_files, find_files
from agentos_store.knowledge.reading import read_text_file
from agentos_store.knowledge.walking import Selection
from agentos_store.search.query import parse
from agentos_store.search.tokenizer import terms

IS_LONG = os.environ.get("AGENTOS_STORE_PACKAGES") == "all"
SAMPLE = 80
LARGEST_OF_SAMPLE = 50_000
QUERIES = 60 if IS_LONG else 24
MOST = 1000
"""Hits of one page."""

TEXTS = Selection(
    include=["*.md", "*.rst", "*.txt", "METADATA", "README*", "LICENSE*", "NOTICE*", "AUTHORS*", "COPYING*"],
    exclude=["*.py", "*.gz"],
    ignore=False,
)

Key = tuple[str, int]
Texts = dict[Key, list[str]]


@pytest.fixture(scope="module")
def files() -> Files:
    paths = sysconfig.get_paths()
    if IS_LONG:
        return find_files([paths["purelib"], paths["stdlib"]], TEXTS)
    found = find_files([paths["purelib"]], TEXTS)
    small = [path for path in found.found.files if path.stat().st_size <= LARGEST_OF_SAMPLE]
    found.found.files = random.Random(7).sample(small, min(SAMPLE, len(small)))
    return found


def texts_of(store: Store) -> Texts:
    paths = {source.source_id: source.source_path for source in store.kb.iterate_sources()}
    return {
        (paths[chunk.source_id], chunk.chunk_index): [text for text in (chunk.heading, chunk.content) if text]
        for chunk in store.kb.iterate_chunks()
    }


def queries(texts: Texts) -> Iterator[str]:
    """Yield words, pairs of words, phrases, beginnings, exclusions and pieces of what was written."""
    chance = random.Random(11)
    contents = [texts[key][-1] for key in sorted(texts)]
    marked = [text for text in contents if not text.isascii()] or contents
    while True:
        text = chance.choice(contents)
        words = text.split()
        at = chance.randrange(len(words))
        other = chance.choice(chance.choice(contents).split())
        yield words[at]
        yield f"{words[at]} {chance.choice(words)}"
        yield '"' + " ".join(words[at : at + 4]).replace('"', "") + '"'
        yield f"{words[at][:3]}* {chance.choice(words)}"
        yield f"{chance.choice(words)} -{other}"
        text = chance.choice(marked)
        start = chance.randrange(len(text))
        yield text[start : start + chance.randrange(1, 7)]


def hits(store: Store, query: str) -> dict[Key, float]:
    return {
        (hit.source_path, hit.chunk.chunk_index): hit.score
        for offset in (0, MOST)
        for hit in store.kb.search(query, limit=MOST, offset=offset)
    }


def test_what_is_found_is_what_a_plain_scan_finds(
    both: list[Store], files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    for store in both:
        began = time.process_time()
        report = add_files(store, files)
        said.append(f"{report.chunks_added:,} chunks in {time.process_time() - began:.1f} s of the processor")
        assert report.added + len(report.skipped) == len(files.found.files)
        assert report.added > len(files.found.files) // 2
        began = time.process_time()
        again = add_files(store, files)
        said.append(f"again in {time.process_time() - began:.1f} s of the processor")
        assert (again.added, again.changed, again.unchanged) == (0, 0, report.added)
        assert store.search.check()["chunk"].stale == store.search.check()["chunk"].missing == 0
    texts, others = map(texts_of, both)
    assert texts == others
    for path in {path for path, _ in texts}:
        whole = read_text_file(Path(path)).text
        assert "".join(whole.removeprefix("\ufeff").split()) == "".join(
            "".join("".join(texts[key][-1] for key in sorted(texts) if key[0] == path).split())
        )
    # Each text is asked often, and has the same tokens each time.
    monkeypatch.setattr(agentos_store.search.query, "terms", cache(terms))
    print("; ".join(said), flush=True)  # noqa: T201
    found = 0
    for query in islice(queries(texts), QUERIES):
        asked = parse(query)
        wanted = {key for key, each in texts.items() if asked.matches(each)}
        sqlite, postgresql = (hits(store, query) for store in both)
        assert sqlite == postgresql, query
        assert sqlite.keys() == wanted if len(wanted) <= 2 * MOST else len(sqlite.keys() & wanted) == 2 * MOST, query
        found += len(wanted)
    assert found > QUERIES
    print(f"{len(files.found.files):,} files, {len(texts):,} chunks, {found:,} hits of {QUERIES} queries")  # noqa: T201
