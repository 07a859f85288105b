"""One JSON object of a file on its way to a record: its values are taken one by one, and each repair is noted."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from agentos_store.importers.jsontext import JSON, UNSTORABLE, scrub
from agentos_store.importers.kode.files import shown
from agentos_store.importers.kode.json_files import SHALLOW, is_deeper
from agentos_store.importers.problems import Problem, Repair, SetAside
from agentos_store.importers.times import EARLIEST, EPOCH, LATEST, parse_time
from agentos_store.types.json_text import on_empty_stack

CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
KEY_LENGTH: Final = 255
"""Characters of an identifier, which holds no control character."""

KODE: Final = "kode"
"""Where in the free JSON of a record stands what has no field of its own."""


STRAY: Final = "stray_files"
LISTED: Final = 1000
"""Strays that are listed one by one."""


class Findings:
    """What there is to say about one folder: what does not arrive, and what arrives otherwise than it was found."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.repairs: list[Repair] = []
        self.ignored = 0
        """Files that a crash left behind and that nobody needs."""
        self.strays = 0
        """Files that are none of KODE's, of which the first are among the problems."""

    def problem(self, kind: str, file: str, reason: str) -> None:
        """Note what does not arrive."""
        self.problems.append(Problem(kind, shown(file), reason))

    def add(self, others: Findings) -> None:
        """Note what was found elsewhere too."""
        self.problems += others.problems
        self.repairs += others.repairs
        self.ignored += others.ignored
        self.strays += others.strays

    def stray(self, file: str, reason: str) -> None:
        """Note a file that is none of KODE's; there may be a whole source tree of them."""
        self.strays += 1
        if self.strays <= LISTED:
            self.problem(STRAY, file, reason)

    def repaired(self, kind: str, file: str, what: str) -> None:
        """Note a repair, once."""
        repair = Repair(kind, shown(file), what)
        if repair not in self.repairs[-20:]:
            self.repairs.append(repair)


class Item:
    """An object, where it stands, and what has been repaired."""

    def __init__(self, value: JSON, findings: Findings, kind: str, file: str, place: str = "") -> None:
        if not isinstance(value, dict):
            raise SetAside("it is no JSON object")
        self.value = value
        self._findings = findings
        self._kind = kind
        self._where = f"{file} {place}" if place else file

    def repaired(self, what: str) -> None:
        """Note a repair."""
        self._findings.repaired(self._kind, self._where, what)

    def text(self, name: str, *, longest: int | None = None) -> str | None:
        """Return a text as the store takes it, or None; what is no text, or too long, is noted."""
        value = self.value.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self.repaired(f"{name}: it is no text, so it is left out")
            return None
        return self._cut(name, self._clean(name, value), longest)

    def key(self, name: str, longest: int = KEY_LENGTH) -> str:
        """Return a text that is not empty; raise SetAside when there is none, or when it is too long."""
        value = self.value.get(name)
        if not isinstance(value, str) or not value:
            raise SetAside(f"it has no {name}")
        if len(value) > longest:
            raise SetAside(f"its {name} is longer than {longest} characters")
        return self._clean(name, value)

    def exact(self, name: str) -> JSON:
        """Return a value as it is; raise SetAside when it is nested deeper than the store takes it."""
        value = self.value.get(name)
        if is_deeper(value):
            raise SetAside(f"its {name} is nested too deep")
        return value

    def object(self, name: str) -> dict[str, JSON] | None:
        """Return an object as plain JSON of the store, or None; anything else is noted and left out."""
        value = self.value.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.repaired(f"{name}: it is no object, so it is left out")
            return None
        if is_deeper(value):
            self.repaired(f"{name}: it is nested too deep, so it is left out")
            return None
        clean = self.plain(name, value)
        assert isinstance(clean, dict)
        return clean

    def plain(self, name: str, value: JSON) -> JSON:
        """Return a value as plain JSON of the store; what is nested too deep for it is noted and becomes None."""
        if is_deeper(value):
            self.repaired(f"{name}: it is nested too deep, so it is left out")
            return None
        clean, changed = scrub(value) if not is_deeper(value, SHALLOW) else on_empty_stack(scrub, value)
        if changed:
            self.repaired(f"{name}: U+0000 or a lone surrogate became U+FFFD")
        return clean

    def texts(self, name: str) -> list[str]:
        """Return a list of texts, without what is none."""
        value = self.value.get(name)
        if value is None:
            return []
        found = [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
        if not isinstance(value, list) or len(found) < len(value):
            self.repaired(f"{name}: what is no text in it is left out")
        return [self._clean(name, each) for each in found]

    def count(self, name: str, least: int, otherwise: int) -> int:
        """Return a whole number of at least that, or the other one; anything else is noted."""
        value = self.value.get(name)
        if value is None:
            return otherwise
        if isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63:
            return value
        self.repaired(f"{name}: it is no such number, so it became {otherwise}")
        return otherwise

    def milliseconds(self, name: str) -> float | None:
        """Return a duration in milliseconds, or None; what is none is noted."""
        value = self.value.get(name)
        if value is None:
            return None
        # What passes for a number may be one that no float holds.
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e300:
            return float(value)
        self.repaired(f"{name}: it is no duration, so it is left out")
        return None

    def flag(self, name: str) -> bool | None:
        """Return a truth value, or None; what is none is noted."""
        value = self.value.get(name)
        if value is None or isinstance(value, bool):
            return value
        self.repaired(f"{name}: it is no truth value, so it is left out")
        return None

    def time(self, name: str) -> dt.datetime | None:
        """Return a time, from ISO text or milliseconds since 1970, or None; what is no time is noted."""
        value = self.value.get(name)
        if value is None:
            return None
        moment = moment_of(value)
        if moment is None:
            self.repaired(f"{name}: it is no time, so it is left out")
        return moment

    def _clean(self, name: str, text: str) -> str:
        clean = UNSTORABLE.sub("\ufffd", text)
        if clean != text:
            self.repaired(f"{name}: U+0000 or a lone surrogate became U+FFFD")
        return clean

    def _cut(self, name: str, text: str, longest: int | None) -> str:
        if longest is None or len(text) <= longest:
            return text
        self.repaired(f"{name}: it was cut to {longest} characters")
        return text[:longest]


def moment_of(value: JSON) -> dt.datetime | None:
    """Return the time of ISO text or of milliseconds since 1970; None for anything else."""
    if isinstance(value, str):
        try:
            return parse_time(value)[0]
        except ValueError:
            return None
    # Farther than any date, and what no float holds is left alone.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(10**15) < value < 10**15:
        return None
    try:
        moment = EPOCH + dt.timedelta(microseconds=round(value * 1000))
    except OverflowError:
        return None
    return moment if EARLIEST <= moment <= LATEST else None


def with_rest(own: dict[str, JSON], rest: dict[str, JSON]) -> dict[str, JSON]:
    """Return the user's own object with what has no field, under ``"kode"`` or the next name that is free."""
    if not rest:
        return own
    name, number = KODE, 0
    while name in own:
        number += 1
        name = f"{KODE}_{number}"
    return {**own, name: rest}
