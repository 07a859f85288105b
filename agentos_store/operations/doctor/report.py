"""What an examination says: its findings, the gravest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "warning", "error"]

GRAVITY: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is the same of all findings of a code."""

    severity: Severity
    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, weak, or worth knowing."""

    code: str
    """What kind of thing it is; it stays the same from version to version."""
    severity: Severity
    found: str
    """The facts; no value of a row is among them."""
    meaning: str
    """What comes of it."""
    remedy: str
    """What to do, with a command where there is one."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What an examination found."""

    database: str
    """Where it is, without its password."""
    server: str
    """SQLite or PostgreSQL and its version; "unknown" when it could not be opened."""
    deep: bool
    checks: int
    """How many checks were made to their end."""
    findings: Sequence[Finding]
    """The gravest first."""

    @property
    def worst(self) -> Severity | None:
        """The gravest severity there is; None when nothing was found."""
        return self.findings[0].severity if self.findings else None

    @property
    def ok(self) -> bool:
        """Whether there is nothing but notes."""
        return self.worst in (None, "note")

    def codes(self, *severities: Severity) -> set[str]:
        """Return the codes that were found, or those of some severities."""
        return {each.code for each in self.findings if not severities or each.severity in severities}


def amount(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def span(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, length in (("s", 60.0), ("min", 60.0), ("h", 24.0)):
        if seconds < 2 * length:
            return f"{seconds:.0f} {unit}"
        seconds /= length
    return f"{seconds:,.0f} days"


def some(names: Sequence[str], most: int = 5) -> str:
    """Return names in a row, not too many of them."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
