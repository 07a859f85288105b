"""``agentos-store search``: what is known, remembered and said, found by words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from agentos_store import Store
from agentos_store.cli.exits import WRONG_USAGE
from agentos_store.cli.output import AsJSON, complain, console, echo, print_json, visible
from agentos_store.cli.where import where
from agentos_store.knowledge.models import KbChunk
from agentos_store.search.query import Query, parse
from agentos_store.search.snippets import MARKS
from agentos_store.search.tokenizer import terms

# Characters that Unicode sets aside for a program's own use stand in no text that is searched.
_MARKS = ("\ufdd0", "\ufdd1")
_MARKED = re.compile("\ufdd0([^\ufdd1]*)\ufdd1")

MOST_PHRASES = 32
"""Of a query that are looked for to tell the line of a hit."""

MATCH = "bold red"
"""How a match looks on a terminal."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched for."""

    query: str
    project: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class Hit:
    """What was found, of whatever kind."""

    kind: str
    score: float
    key: str
    snippet: str
    where: str
    """Where it is, as a person would go there."""
    about: str | None
    facts: Mapping[str, object]
    """What a program needs to go there."""


def _memory(store: Store, asked: Asked) -> Iterable[Hit]:
    for hit in store.memory.search(asked.query, project_id=asked.project, limit=asked.limit, marks=_MARKS):
        item = hit.item
        scope = item.scope if item.scope_id is None else f"{item.scope} {item.scope_id}"
        facts = {"id": item.id, "scope": item.scope, "scope_id": item.scope_id, "type": item.type}
        yield Hit("memory", hit.score, item.id, hit.snippet, f"memory {item.id}", f"{scope}, {item.type}", facts)


def _chunks(store: Store, asked: Asked) -> Iterable[Hit]:
    query = parse(asked.query)
    for hit in store.kb.search(asked.query, project_id=asked.project, limit=asked.limit, marks=_MARKS):
        chunk, path = hit.chunk, hit.source_path
        line = _line(chunk, query)
        facts = {
            "path": path,
            "line": line,
            "start_line": chunk.start_line,
            "end_line": chunk.end_line,
            "heading": chunk.heading,
            "source_id": chunk.source_id,
            "chunk_id": chunk.chunk_id,
        }
        place = path if line is None else f"{path}:{line}"
        yield Hit("chunk", hit.score, chunk.chunk_id, hit.snippet, place, chunk.heading, facts)


def _messages(store: Store, asked: Asked) -> Iterable[Hit]:
    if asked.project is not None:
        # Conversations belong to no project.
        return
    for hit in store.messages.search(asked.query, limit=asked.limit, marks=_MARKS):
        message = hit.message
        facts = {
            "session_id": message.session_id,
            "seq": message.seq,
            "message_id": message.id,
            "role": message.role,
            "created_at": message.created_at,
        }
        place = f"session {message.session_id} #{message.seq}"
        about = f"{message.role}, {message.created_at:%Y-%m-%d %H:%M}"
        yield Hit("message", hit.score, message.id, hit.snippet, place, about, facts)


class Kind(StrEnum):
    """What is searched."""

    MEMORY = "memory"
    CHUNK = "chunk"
    MESSAGE = "message"


KINDS: Mapping[Kind, Callable[[Store, Asked], Iterable[Hit]]] = {
    Kind.MEMORY: _memory,
    Kind.CHUNK: _chunks,
    Kind.MESSAGE: _messages,
}
"""How each kind is searched; a new one is added here."""


def search(
    context: typer.Context,
    words: Annotated[
        list[str], typer.Argument(help="Words that must all be there; '\"a phrase\"', 'begin*' and -without too.")
    ],
    kind: Annotated[list[Kind] | None, typer.Option(help="Only this kind; may be repeated.")] = None,
    project: Annotated[str | None, typer.Option(help="Only what belongs to this project.")] = None,
    limit: Annotated[int, typer.Option(help="How many hits at most.")] = 20,
    as_json: AsJSON = False,
) -> None:
    """Search memories, files and conversations, the best hits first."""
    for word in words:
        # Words that begin with a hyphen are let through, and with them slips in the names of options.
        if re.match("--[a-z]", word):
            complain("error", f"No such option: {word}")
            raise typer.Exit(WRONG_USAGE)
    asked = Asked(" ".join(words), project, limit)
    with where(context).open() as store:
        hits = [hit for each in dict.fromkeys(kind or KINDS) for hit in KINDS[each](store, asked)]
    # A score has the same meaning for every kind: how often the words are there, and how long the text is.
    hits.sort(key=lambda hit: (-hit.score, hit.kind, hit.key))
    hits = hits[:limit]
    if as_json:
        print_json({"query": asked.query, "hits": [_as_json(hit) for hit in hits]})
    elif hits:
        _show(hits)
    elif parse(asked.query):
        echo("nothing found")
    else:
        echo("nothing found: nothing was asked for that must be there")


def _as_json(hit: Hit) -> dict[str, Any]:
    return {
        "kind": hit.kind,
        "score": hit.score,
        "where": hit.where,
        "snippet": _MARKED.sub(rf"{MARKS[0]}\1{MARKS[1]}", hit.snippet),
        **hit.facts,
    }


def _show(hits: Sequence[Hit]) -> None:
    shown = console()
    is_styled = shown.is_terminal and not shown.no_color
    for hit in hits:
        head = Text(visible(hit.where), style="bold cyan" if is_styled else "")
        if hit.about:
            head.append(f"  {visible(hit.about)}", style="not bold default" if is_styled else "")
        head.append(f"  ({hit.kind} {hit.score:.2f})", style="not bold dim default" if is_styled else "")
        shown.print(head, soft_wrap=True)
        shown.print(Text("    ").append_text(_marked(hit.snippet, is_styled=is_styled)), soft_wrap=True)


def _marked(snippet: str, *, is_styled: bool) -> Text:
    text = Text()
    for number, part in enumerate(_MARKED.split(snippet)):
        is_match = number % 2 == 1
        if is_match and not is_styled:
            text.append(MARKS[0] + visible(part) + MARKS[1])
        else:
            text.append(visible(part), style=MATCH if is_match else "")
    return text


def _line(chunk: KbChunk, query: Query) -> int | None:
    """Return the line of the chunk that has most of what was searched for."""
    if chunk.start_line is None:
        return None
    phrases = query.required[:MOST_PHRASES]
    counts = []
    for line in chunk.content.split("\n"):
        tokens = terms(line)
        present = frozenset(tokens)
        joined = f" {' '.join(tokens)} "
        counts.append(sum(phrase.is_in(joined, present) for phrase in phrases))
    return chunk.start_line + counts.index(max(counts))
