"""JSON files of KODE, read as leniently as Node reads them, and as strictly as JSON is defined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from agentos_store.importers.jsontext import DEPTH, JSON
from agentos_store.importers.kode.files import Refused
from agentos_store.types.json_text import on_empty_stack

SHALLOW: Final = 100
"""Levels for which any caller has room on the stack."""

_BOM: Final = b"\xef\xbb\xbf"
_OTHER_BOMS: Final = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_BLANK: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Read:
    """The value of a file."""

    value: JSON
    repairs: tuple[str, ...] = ()
    """What was passed over or replaced to read it."""


def parse_file(content: bytes) -> Read:
    """Return the value of a file; raise Refused for what is no JSON, NaN and infinities included."""
    if content.startswith(_OTHER_BOMS):
        raise Refused("it is written in UTF-16 or UTF-32, not in UTF-8")
    repairs: list[str] = []
    if content.startswith(_BOM):
        content = content[len(_BOM) :]
        repairs.append("a byte order mark before its text was passed over")
    bare = content.rstrip(b"\0" + _BLANK)
    if not bare:
        raise Refused("it holds nothing but NUL bytes" if b"\0" in content else "it is empty")
    if b"\0" in content[len(bare) :]:
        repairs.append("NUL bytes behind its end were passed over")
    try:
        text = bare.decode()
    except UnicodeDecodeError:
        text = bare.decode("utf-8", "replace")
        repairs.append("bytes that are no UTF-8 became U+FFFD, as KODE itself reads them")
    value, repeated = parse_text(text)
    if repeated:
        repairs.append("of a key that is there twice in one object the last value is kept, as KODE does")
    return Read(value, tuple(repairs))


def parse_text(text: str) -> tuple[JSON, bool]:
    """Return the value, and whether an object in it names a key twice; raise Refused for what is no JSON."""
    try:
        try:
            return _parse(text)
        except RecursionError:
            # The caller's own stack may have left too little room for what is nested no deeper than allowed.
            return on_empty_stack(_parse, text)
    except RecursionError:
        raise Refused("it is nested too deep") from None
    except MemoryError:
        raise Refused("it does not fit into memory") from None
    except json.JSONDecodeError as error:
        # Neither the message nor the place quotes what stands there.
        broken = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
        raise Refused("its JSON breaks off" if broken else f"it is no JSON, from character {error.pos:,} on") from None
    except _Number as error:
        raise Refused(str(error)) from None


def is_deeper(value: JSON, limit: int = DEPTH) -> bool:
    """Tell whether lists and objects are nested deeper than the limit."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            inner
            for holder in level
            for inner in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def _parse(text: str) -> tuple[JSON, bool]:
    repeated = False

    def build(pairs: Sequence[tuple[str, JSON]]) -> dict[str, JSON]:
        nonlocal repeated
        built = dict(pairs)
        repeated = repeated or len(built) < len(pairs)
        return built

    value: JSON = json.loads(
        text, object_pairs_hook=build, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
    )
    return value, repeated


class _Number(ValueError):
    """A number that is none, or that nothing holds."""


def _no_constant(constant: str) -> NoReturn:
    raise _Number(f"it holds {constant}, which is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise _Number("it holds a number that is too large")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 4300:
        raise _Number("it holds a number of too many digits")
    return int(digits)
