"""JSON as text: what both JSON types share.

The C encoder writes and the C decoder reads back, and when both agree there is nothing to refuse; that is the way of
almost every value. Only on a doubt does a walk in Python look for the fault and name the path to it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from math import isfinite, isnan
from typing import TypeVar

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import kind_of

A = TypeVar("A")
B = TypeVar("B")

MAX_DEPTH = 500
"""Levels of arrays and objects; a scalar has none."""

MAX_DIGITS = 4300
"""Digits of an integer: as many as Python reads unless told otherwise."""

_TOO_LARGE = 10**MAX_DIGITS
_BITS_IN_DOUBT = 14_284
"""An integer with fewer bits has at most MAX_DIGITS digits."""

TextFault = Callable[[str], str | None]
"""Tells what is wrong with a string or a key, or None."""

# A circle needs no check of its own: it is deeper than any stack.
write = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
"""Return the JSON text of a value, whatever it is; raise TypeError, ValueError or RecursionError where it has none."""

_decode = json.JSONDecoder().decode
_scan: Callable[[str, int], tuple[object, int]] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # in C


def encode(value: object, name: str, finish: Callable[[str], str], text_fault: TextFault) -> str:
    """Return the value as JSON text; raise InvalidValueError, named after the path, for what would come back changed.

    ``finish`` changes the text that the encoder wrote into the text that is stored, or raises ``ValueError`` when it
    may hold a string that ``text_fault`` refuses.
    """
    try:
        text = finish(write(value))
        if _is_safe(text, value):
            return text
    except (TypeError, ValueError, RecursionError):
        pass
    refuse(value, name, text_fault)
    # The walk found no fault: the doubt was unfounded, or the caller's stack had too little room left.
    try:
        text, same = on_empty_stack(lambda checked: _write(checked, finish), value)
    except (TypeError, ValueError):
        same = False
    if not same:
        raise InvalidValueError(name, "would not come back as it is")
    return text


def decode(text: str) -> object:
    """Return the value of a text that was stored."""
    if text == "{}":
        # Most metadata are.
        return {}
    try:
        value, end = _scan(text, 0)
    except (StopIteration, ValueError):
        return _decode(text)
    except RecursionError:
        return on_empty_stack(_decode, text)
    # Whatever stands around the value, or is no value, is for the decoder to judge.
    return value if end == len(text) else _decode(text)


def refuse(value: object, name: str, text_fault: TextFault) -> None:
    """Walk through the value in order; raise InvalidValueError, named after the path, for the first fault."""
    path: list[str | int] = []
    stack: list[Iterator[tuple[str | int | None, object]]] = [iter([(None, value)])]
    while stack:
        step = next(stack[-1], None)
        if step is None:
            stack.pop()
            if path:
                path.pop()
            continue
        key, child = step
        why = _fault(key, child, text_fault)
        is_container = isinstance(child, dict | list)
        if why is None and is_container and len(stack) > MAX_DEPTH:
            why = f"is nested deeper than {MAX_DEPTH} levels"
        if why is not None:
            raise InvalidValueError(path_text(name, path if key is None else [*path, key]), why)
        if is_container:
            if key is not None:
                path.append(key)
            stack.append(_children(child))


def path_text(name: str, path: list[str | int]) -> str:
    """Return the path to a value, such as ``metadata.scores[3]`` or ``metadata["we ird"]``."""
    return name + "".join(_segment(key) for key in path)


def on_empty_stack(function: Callable[[A], B], argument: A) -> B:
    """Call a recursive function where all the stack is free: in a thread of its own."""
    results: list[B] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function(argument))
        except BaseException as fault:  # noqa: BLE001  raised again in the caller's thread
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    return results[0]


def _write(value: object, finish: Callable[[str], str]) -> tuple[str, bool]:
    text = finish(write(value))
    return text, _decode(text) == value


def _is_safe(text: str, value: object) -> bool:
    """Tell whether the text reads back equal and is certainly within the limits."""
    # The encoder's own text has no space around the value to look for.
    loaded, _ = _scan(text, 0)
    if loaded != value:
        return False
    if len(text) > MAX_DIGITS and not 0 < sys.get_int_max_str_digits() <= MAX_DIGITS:
        return False
    return text.count("[") + text.count("{") <= MAX_DEPTH or not _is_deep(loaded)


def _is_deep(loaded: object) -> bool:
    """Go through a decoded value level by level, which is several times faster than the walk that knows the path."""
    level = [loaded] if type(loaded) in _CONTAINERS else []
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)  # type: ignore[attr-defined]
            if type(child) in _CONTAINERS
        ]
        if not level:
            return False
    return True


_CONTAINERS = frozenset((dict, list))


class _BadKey:
    def __init__(self, key: object) -> None:
        self.kind = kind_of(key)


def _children(parent: object) -> Iterator[tuple[str | int | None, object]]:
    if isinstance(parent, list):
        yield from enumerate(parent)
    elif isinstance(parent, dict):
        for key, child in parent.items():
            yield (key, child) if issubclass(type(key), str) else (None, _BadKey(key))


def _fault(key: str | int | None, value: object, text_fault: TextFault) -> str | None:
    if isinstance(key, str):
        why = text_fault(key)
        if why is not None:
            return f"the key {why}"
    if not issubclass(type(value), _POSSIBLE):
        # Though it may pass for one that is.
        return f"is of type {kind_of(value)}, which JSON does not have"
    if value is None or isinstance(value, bool | dict | list):
        return None
    if isinstance(value, str):
        return text_fault(value)
    if isinstance(value, int):
        is_large = value.bit_length() >= _BITS_IN_DOUBT and abs(value) >= _TOO_LARGE
        return f"has more than {MAX_DIGITS:,} digits" if is_large else None
    if isinstance(value, float):
        return None if isfinite(value) else "is NaN" if isnan(value) else "is infinite"
    if isinstance(value, _BadKey):
        return f"has a key of type {value.kind}, which would come back as a str"
    return "is a tuple, which would come back as a list"


_POSSIBLE = (type(None), bool, int, float, str, dict, list, tuple, _BadKey)
"""The types of JSON's values, and those of which there is more to say than that they are none."""


def _segment(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if key.isidentifier():
        return f".{key}"
    # What cannot be printed is escaped, so that the message can be.
    quoted = json.dumps(key, ensure_ascii=not key.isprintable())
    return f"[{quoted}]"
