"""What of a memory item is searched, and what makes two of them the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from agentos_store.errors import InvalidValueError
from agentos_store.search.estimate import estimate_tokens
from agentos_store.search.parts import Indexed, indexed
from agentos_store.search.tokenizer import fold, terms
from agentos_store.types.exact_json import dumps_exact

KIND = "memory"


def texts_of(content: Any, tags: Sequence[str]) -> list[str]:
    """Return every string value of the content, in its order, and the tags."""
    return [*_strings(content), *(tag for tag in tags if isinstance(tag, str))]


def document(key: str, content: Any, tags: Sequence[str]) -> Indexed:
    """Return an item as it is indexed."""
    return indexed(key, texts_of(content, tags))


def check_content(content: Any) -> None:
    """Refuse what is no content, or no JSON."""
    if content is None:
        raise InvalidValueError("content", "is None, which there is nothing to remember of")
    dumps_exact(content, "content")


def content_hash(content: Any) -> str:
    """Return the SHA-256 of the content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def likeness(content: Any) -> str:
    """Return what two contents share that say the same but for case, marks, and what stands between words."""
    return json.dumps(_folded(content), sort_keys=True)


def _folded(value: Any) -> Any:
    if isinstance(value, str):
        # What has no words is told apart by its characters.
        return " ".join(terms(value)) or fold(value)
    if isinstance(value, list):
        return [_folded(each) for each in value]
    if isinstance(value, dict):
        return {key: _folded(each) for key, each in value.items()}
    return value


def _strings(content: Any) -> Iterator[str]:
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += reversed(value)
        elif isinstance(value, dict):
            waiting += reversed(value.values())


def tokens_of(content: Any) -> int:
    """Return about how many tokens of a language model a content takes."""
    return estimate_tokens(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
