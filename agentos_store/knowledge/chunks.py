"""A piece of a source, before it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NewChunk:
    """A piece of a source that can be found on its own."""

    content: str
    heading: str | None = None
    """The headings above it, the outermost first: ``Guide > Install``."""
    start_line: int | None = None
    """The first line of the source that it is of, counted from 1."""
    end_line: int | None = None
    """The last one, included."""
    token_count: int | None = None
    """About how many tokens of a language model it takes."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
