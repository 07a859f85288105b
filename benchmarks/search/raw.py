"""The search engines of the databases alone, each with an index of its own over the same items."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.drivers import PostgreSQLDriver, SQLiteDriver
from benchmarks.search import content

CHUNKS = "SELECT c.*, s.* FROM kb_chunks AS c JOIN kb_sources AS s ON s.source_id = c.source_id WHERE c.chunk_id "

Texts = Sequence[tuple[str, str]]
"""Key and tokens of each text, the tokens between spaces."""


class RawSQLite(SQLiteDriver):
    """FTS5 with an index of nothing but tokens, ranked by its bm25."""

    def index(self, texts: Texts) -> None:
        """Make the index."""
        # As much memory as the library's readers have.
        self.connection.execute("PRAGMA cache_size=-8192")
        self.connection.execute("CREATE VIRTUAL TABLE raw_index USING fts5 (tokens, content = '', detail = full)")
        self.connection.execute("CREATE TABLE raw_keys (number INTEGER PRIMARY KEY, key TEXT NOT NULL)")
        with self._transaction():
            for number, (key, tokens) in enumerate(texts):
                self.connection.execute("INSERT INTO raw_index (rowid, tokens) VALUES (?, ?)", (number, tokens))
                self.connection.execute("INSERT INTO raw_keys VALUES (?, ?)", (number, key))

    def search(self, words: Sequence[str]) -> Sequence[Any]:
        """Return the best items."""
        query = """
            SELECT m.* FROM (
                SELECT rowid, rank FROM raw_index WHERE raw_index MATCH ? ORDER BY rank LIMIT ?
            ) AS found JOIN raw_keys AS k ON k.number = found.rowid JOIN memory_items AS m ON m.id = k.key
            ORDER BY found.rank"""
        asked = " ".join(f'"{word}"' for word in words)
        return self.connection.execute(query, (asked, content.LIMIT)).fetchall()

    def count(self, words: Sequence[str]) -> int:
        """Return how many texts hold all words."""
        asked = " ".join(f'"{word}"' for word in words)
        query = "SELECT count(*) FROM raw_index WHERE raw_index MATCH ?"
        return int(self.connection.execute(query, (asked,)).fetchone()[0])

    def rank(self, words: Sequence[str], limit: int) -> list[str]:
        """Return the keys of the best texts."""
        query = """
            SELECT k.key FROM (SELECT rowid, rank FROM raw_index WHERE raw_index MATCH ? ORDER BY rank LIMIT ?) AS found
            JOIN raw_keys AS k ON k.number = found.rowid ORDER BY found.rank"""
        asked = " ".join(f'"{word}"' for word in words)
        return [key for (key,) in self.connection.execute(query, (asked, limit))]

    def vectors(self) -> list[tuple[str, bytes]]:
        """Return keys and bytes of the stored vectors."""
        query = "SELECT chunk_id, embedding FROM kb_embeddings WHERE model_name = ?"
        return self.connection.execute(query, (content.MODEL,)).fetchall()

    def keys_of(self, source_id: str) -> list[str]:
        """Return the keys of a source's chunks."""
        query = "SELECT chunk_id FROM kb_chunks WHERE source_id = ?"
        return [key for (key,) in self.connection.execute(query, (source_id,))]

    def chunks(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return chunks with their sources."""
        query = CHUNKS + "IN (SELECT value FROM json_each(?))"
        return self.connection.execute(query, (json.dumps(keys),)).fetchall()


class RawPostgreSQL(PostgreSQLDriver):
    """A tsvector with GIN, ranked by ts_rank."""

    def index(self, texts: Texts) -> None:
        """Make the index."""
        self._execute('CREATE TABLE raw_index (key text COLLATE "C" PRIMARY KEY, tokens tsvector NOT NULL)', ())
        with self.cursor.copy("COPY raw_index (key, tokens) FROM STDIN") as copy:
            for key, tokens in texts:
                lexemes = " ".join(f"'{token}':{at}" for at, token in enumerate(tokens.split(), 1))
                copy.write_row((key, lexemes))
        self._execute("CREATE INDEX raw_index_tokens ON raw_index USING gin (tokens)", ())
        self._execute("VACUUM ANALYZE raw_index", ())

    def search(self, words: Sequence[str]) -> Sequence[Any]:
        """Return the best items."""
        query = """
            SELECT m.* FROM (
                SELECT key, ts_rank(tokens, asked) AS score FROM raw_index, CAST(%s AS tsquery) AS asked
                WHERE tokens @@ asked ORDER BY score DESC, key LIMIT %s
            ) AS found JOIN memory_items AS m ON m.id = found.key ORDER BY found.score DESC, found.key"""
        asked = " & ".join(f"'{word}'" for word in words)
        return self._execute(query, (asked, content.LIMIT)).fetchall()

    def count(self, words: Sequence[str]) -> int:
        """Return how many texts hold all words."""
        asked = " & ".join(f"'{word}'" for word in words)
        query = "SELECT count(*) FROM raw_index WHERE tokens @@ CAST(%s AS tsquery)"
        found = self._execute(query, (asked,)).fetchone()
        assert found is not None
        return int(found[0])

    def rank(self, words: Sequence[str], limit: int) -> list[str]:
        """Return the keys of the best texts."""
        query = """
            SELECT key FROM raw_index, CAST(%s AS tsquery) AS asked
            WHERE tokens @@ asked ORDER BY ts_rank(tokens, asked) DESC, key LIMIT %s"""
        asked = " & ".join(f"'{word}'" for word in words)
        return [key for (key,) in self._execute(query, (asked, limit))]

    def vectors(self) -> list[tuple[str, bytes]]:
        """Return keys and bytes of the stored vectors."""
        query = "SELECT chunk_id, embedding FROM kb_embeddings WHERE model_name = %s"
        return self.cursor.execute(query, (content.MODEL,), prepare=True, binary=True).fetchall()

    def keys_of(self, source_id: str) -> list[str]:
        """Return the keys of a source's chunks."""
        return [key for (key,) in self._execute("SELECT chunk_id FROM kb_chunks WHERE source_id = %s", (source_id,))]

    def chunks(self, keys: Sequence[str]) -> Sequence[Any]:
        """Return chunks with their sources."""
        return self._execute(CHUNKS + "= ANY (%s)", (keys,)).fetchall()


class RawMatrix:
    """NumPy over vectors that lie in memory, as anybody would write it."""

    def __init__(self, rows: Sequence[tuple[str, bytes]]) -> None:
        self.keys = [key for key, _ in rows]
        self.rows = np.frombuffer(b"".join(vector for _, vector in rows), "<f4").reshape(len(rows), -1)
        self.lengths = np.linalg.norm(self.rows, axis=1)
        self.places = {key: place for place, key in enumerate(self.keys)}

    def nearest(self, wanted: Any, count: int, among: Sequence[str] | None = None) -> list[str]:
        """Return the keys of the nearest by the cosine, the best first."""
        if among is None:
            scores = self.rows @ wanted / self.lengths
            best = np.argpartition(-scores, count - 1)[:count]
            return [self.keys[place] for place in best[np.argsort(-scores[best])]]
        places = [self.places[key] for key in among]
        scores = self.rows[places] @ wanted / self.lengths[places]
        return [among[place] for place in np.argsort(-scores)[:count]]


def fuse(rankings: Sequence[Sequence[str]]) -> list[str]:
    """Return the keys of several rankings, the best first, by reciprocal ranks."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for place, key in enumerate(ranking):
            scores[key] = scores.get(key, 0) + 1 / (61 + place)
    return sorted(scores, key=lambda key: -scores[key])
