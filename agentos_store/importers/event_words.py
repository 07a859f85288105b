"""What systems call an event and how severe they say it is, as the store has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

LONGEST: Final = 255
"""Characters of a type."""
NO_TYPE: Final = "(unknown)"
INFO: Final = "info"

_UNUSABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SEVERITIES: Final[Mapping[str, str]] = {
    "info": "info",
    "warning": "warning",
    "error": "error",
    "critical": "critical",
    # What KODE and others say.
    "warn": "warning",
    "fatal": "critical",
    "debug": "info",
}


def event_type_of(found: object) -> tuple[str, str | None]:
    """Return a type as the store takes it, and what is to be said about that."""
    if found is None or found == "":
        return NO_TYPE, f"it was missing, so it became {NO_TYPE!r}"
    if not isinstance(found, str):
        return NO_TYPE, f"{shown(found)} is no text, so it became {NO_TYPE!r}"
    clean = _UNUSABLE.sub("\ufffd", found)
    if len(clean) > LONGEST:
        return clean[:LONGEST], f"it was cut to {LONGEST} characters: {clean[:1000]!r}"
    return clean, None if clean == found else "control characters became U+FFFD"


def severity_of(found: object) -> tuple[str, str | None]:
    """Return the severity that a word stands for, and what is to be said about that; without a word it is ``info``."""
    if found is None or found == "":
        return INFO, None
    severity = _SEVERITIES.get(found.strip().casefold()) if isinstance(found, str) else None
    if severity is None:
        return INFO, f"{shown(found)} is not known, so it became {INFO!r}"
    return severity, None if severity == found else f"{shown(found)} was read as {severity!r}"


def shown(found: object) -> str:
    """Return a value as a report shows it."""
    text = repr(found)
    return text if len(text) <= 40 else f"{text[:37]}..."
