"""What of a message is searched: what is said and thought, and what tools answered; not what they were asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentos_store.conversations.content import (
    AUDIO,
    FILE,
    IMAGE,
    REASONING,
    TEXT,
    TOOL_RESULT,
    TOOL_USE,
    VIDEO,
    type_of_block,
)
from agentos_store.search.parts import Indexed, indexed

KIND = "message"

_NO_TEXT = (TOOL_USE, IMAGE, AUDIO, VIDEO, FILE)


def texts_of(content: Any) -> list[str]:
    """Return the content when it is a string; else the text and the reasoning of its blocks, and of tools' results."""
    if isinstance(content, str):
        return [content]
    return [text for block in content for text in _texts_of_block(block)] if isinstance(content, list) else []


def document(key: str, content: Any) -> Indexed:
    """Return a message as it is indexed."""
    return indexed(key, texts_of(content))


def _texts_of_block(block: Any) -> Iterator[str]:
    kind = type_of_block(block)
    if kind in (TEXT, REASONING):
        yield from _said(block)
    elif kind == TOOL_RESULT:
        yield from _texts_of_result(block.get("content"))


def _said(block: Any) -> Iterator[str]:
    """Yield what a block of text or of reasoning says, by whatever name its provider has it."""
    for name in ("text", "refusal", "reasoning", "thinking", "summary", "content"):
        said = block.get(name)
        # OpenAI's reasoning is told in pieces.
        for piece in said if isinstance(said, list) else [said]:
            text = piece.get("text") if isinstance(piece, dict) else piece
            if isinstance(text, str):
                yield text


def _texts_of_result(content: Any) -> Iterator[str]:
    """Yield the strings of a result, which may be any JSON; of the blocks in it those that are text."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, dict):
            kind = type_of_block(value)
            if kind in (TEXT, REASONING):
                yield from _said(value)
            elif kind not in _NO_TEXT:
                waiting += reversed([each for name, each in value.items() if name != "type"])
