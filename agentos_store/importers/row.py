"""One row of the source on its way to a record: its values are taken one by one, and each repair is noted."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Final

from agentos_store.importers.jsontext import JSON, UNSTORABLE, parse_json, scrub
from agentos_store.importers.problems import Repair, SetAside
from agentos_store.importers.source import Found, Value
from agentos_store.importers.times import EPOCH, LATEST, parse_time

KEY_LENGTH: Final = 255

_CONTROL: Final = re.compile("[\x01-\x1f\x7f-\x9f]")
_DIGITS: Final = re.compile("[0-9]{1,18}")
_WHOLE: Final = re.compile("[+-]?[0-9]{1,18}")
_ULID: Final = re.compile("[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Row:
    """A row, its values, and what has been repaired so far."""

    def __init__(
        self,
        found: Found,
        key_column: str | None,
        values: Mapping[str, Value] | None = None,
        *,
        origin: str = "agentos",
    ) -> None:
        self.table = found.table
        self.rowid = found.rowid
        self._values = found.values if values is None else values
        self._repairs: list[Repair] = []
        self.origin = origin
        """The key in the free JSON of a record under which stands what has no field of its own."""
        self._kept: dict[str, JSON] = {}
        self.key = f"rowid {found.rowid}"
        if key_column is None:
            self.key = str(found.rowid)
        elif key := _as_text(self._values.get(key_column)):
            self.key = UNSTORABLE.sub("\ufffd", key)[:KEY_LENGTH]

    @property
    def repairs(self) -> tuple[Repair, ...]:
        """What has been repaired so far."""
        return tuple(self._repairs)

    def repaired(self, what: str) -> None:
        """Note a repair, once."""
        repair = Repair(self.table, self.key, what)
        if repair not in self._repairs:
            self._repairs.append(repair)

    def keep(self, name: str, value: JSON) -> None:
        """Keep a value that has no field of its own; ``with_origin`` puts it into the record's free JSON."""
        self._kept[name] = value

    def has_column(self, column: str) -> bool:
        """Tell whether the table has the column at all."""
        return column in self._values

    def is_null(self, column: str) -> bool:
        """Tell whether there is nothing in the column."""
        return self._values.get(column) is None

    def text(self, column: str) -> str | None:
        """Return a text as the store takes it, or None."""
        text = _as_text(self._values.get(column))
        if text is None or not UNSTORABLE.search(text):
            return text
        self.repaired(f"{column}: bytes that are no text, or U+0000, became U+FFFD")
        return _without_damage(text)

    def identifier(self, column: str) -> str:
        """Return a key of the store; set the row aside when this can be none."""
        text = self.text(column)
        if not text:
            raise SetAside(f"it has no {column}")
        return self._usable(column, text)

    def required(self, column: str, length: int) -> str:
        """Return a text that is not empty nor longer than that; set the row aside when there is none."""
        text = self.text(column)
        if not text:
            raise SetAside(f"it has no {column}")
        if len(text) > length:
            raise SetAside(f"its {column} is longer than {length} characters")
        return text

    def reference(self, column: str) -> str | None:
        """Return a key of the store or None; one that can be none is dropped and noted."""
        text = self.text(column)
        if not text:
            return None
        try:
            return self._usable(column, text)
        except SetAside as aside:
            self.repaired(f"{aside.reason}, so it is left out: {text[:1000]!r}")
            self.keep(column, text)
            return None

    def cut(self, column: str, text: str, length: int) -> str:
        """Return as much of the text as its field holds; all of it is kept."""
        if len(text) <= length:
            return text
        self.repaired(f"{column}: it was cut to {length} characters; all of it is kept")
        self.keep(column, text)
        return text[:length]

    def word(self, column: str) -> str:
        """Return a word of an enumeration, case folded; empty when there is none."""
        return (self.text(column) or "").strip().casefold()

    def time(self, column: str) -> dt.datetime | None:
        """Return a time, or None; what is no time is noted and dropped."""
        value = self._values.get(column)
        if isinstance(value, bytes):
            value = _as_text(value)
        if value is None or value == "":
            return None
        try:
            moment, repaired = parse_time(value)
        except ValueError as error:
            self.repaired(f"{column}: {_shown(value)} is left out: {error}")
            return None
        if repaired:
            self.repaired(f"{column}: {_shown(value)} was read as {moment.isoformat()}")
        return moment

    def first_time(self, column: str, *others: str, otherwise: dt.datetime) -> dt.datetime:
        """Return the time in a column that must have one; if it has none the first of the others, noted."""
        for name in (column, *others):
            moment = self.time(name)
            if moment is not None:
                if name != column and self.has_column(column):
                    self.repaired(f"{column}: it was missing, so it was taken from {name}")
                return moment
        self.repaired(f"{column}: it was missing, so it was taken from what is around it")
        return otherwise

    def json(self, column: str) -> JSON:
        """Return the value of a JSON text as plain JSON of the store; what is no JSON is kept as text and noted."""
        text = self.text(column)
        if text is None:
            return None
        if not text.strip():
            self.repaired(f"{column}: an empty text is no JSON")
            return None
        try:
            value, repeated = parse_json(text)
        except ValueError:
            self.repaired(f"{column}: it is no JSON; its text is kept")
            self.keep(column, text)
            return None
        return self._scrubbed(column, value, repeated=repeated)

    def object(self, column: str) -> dict[str, JSON] | None:
        """Return the object of a JSON text; anything else is kept aside and noted."""
        value = self.json(column)
        if value is None or isinstance(value, dict):
            return value
        self.repaired(f"{column}: it is JSON but no object; its value is kept")
        self.keep(column, value)
        return None

    def exact_text(self, column: str) -> str | None:
        """Return a text with all that exact JSON holds, U+0000 included, or None."""
        text = _as_text(self._values.get(column))
        if text is None:
            return None
        clean = _without_damage(text, keep_nul=True)
        if clean != text:
            self.repaired(f"{column}: bytes that are no text became U+FFFD")
        return clean

    def exact_json(self, column: str) -> JSON:
        """Return the value of a JSON text as it is; what is no JSON becomes ``{"unparsed": text}`` and is noted."""
        found = self._values.get(column)
        if isinstance(found, int) or (isinstance(found, float) and math.isfinite(found)):
            return found
        text = _as_text(found)
        if text is None:
            return None
        clean = _without_damage(text, keep_nul=True)
        if clean != text:
            self.repaired(f"{column}: bytes that are no text became U+FFFD")
        try:
            value, repeated = parse_json(clean)
        except ValueError:
            self.repaired(f"{column}: it is no JSON; its text is kept as 'unparsed'")
            return {"unparsed": clean}
        if repeated:
            self.repaired(f"{column}: of a key that was there twice the last value is kept")
        return value

    def loose_json(self, column: str) -> JSON:
        """Return the value of a JSON text as plain JSON of the store; no JSON becomes ``{"unparsed": text}``, noted."""
        text = self.text(column)
        if text is None:
            return None
        try:
            value, repeated = parse_json(text)
        except ValueError:
            self.repaired(f"{column}: it is no JSON; its text is kept as 'unparsed'")
            return {"unparsed": text}
        return self._scrubbed(column, value, repeated=repeated)

    def count(self, column: str) -> int:
        """Return a whole number that is not negative, 0 when there is none; anything else is noted."""
        text = self.text(column)
        if text is None:
            return 0
        if _DIGITS.fullmatch(text.strip()):
            return int(text)
        self.repaired(f"{column}: {_shown(text)} is no count, so it became 0")
        return 0

    def truth(self, column: str, *, otherwise: bool) -> bool:
        """Return a truth value; what is none is noted."""
        word = self.word(column)
        if word in {"1", "true", "yes"}:
            return True
        if word in {"0", "false", "no"}:
            return False
        if self.has_column(column):
            self.repaired(f"{column}: {self.text(column)!r} became {str(otherwise).lower()}")
        return otherwise

    def whole(self, column: str, *, otherwise: int, least: int | None = None) -> int:
        """Return a whole number of 64 bits; what is none, is missing, or is below the least becomes ``otherwise``."""
        found = self._values.get(column)
        number: int | None = None
        if isinstance(found, int):
            number = found
        elif isinstance(found, float) and found.is_integer() and abs(found) < 2**63:
            number = int(found)
        elif found is not None and (text := _WHOLE.fullmatch((self.text(column) or "").strip())):
            number = int(text[0])
        if number is not None and (least is None or number >= least):
            return number
        if found is not None:
            self.repaired(f"{column}: {_shown(found)} became {otherwise}")
            self.keep(column, self.shown(column))
        elif self.has_column(column):
            self.repaired(f"{column}: it was missing, so it became {otherwise}")
        return otherwise

    def real(self, column: str) -> float | None:
        """Return a finite number, or None; what is none is noted and dropped."""
        found = self._values.get(column)
        if found is None:
            return None
        try:
            number = float(found if isinstance(found, int | float) else self.text(column) or "")
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
        self.repaired(f"{column}: {_shown(found)} is no number, so it is left out")
        return None

    def raw(self, column: str) -> Value:
        """Return a value as it was found."""
        return self._values.get(column)

    def shown(self, column: str) -> JSON:
        """Return a value as it was found, as far as plain JSON of the store holds it."""
        found = self._values.get(column)
        if isinstance(found, int) or (isinstance(found, float) and math.isfinite(found)):
            return found
        text = _as_text(found)
        return None if text is None else _without_damage(text)

    def plain(self, column: str, value: JSON) -> JSON:
        """Return a value that was read in another way as plain JSON of the store."""
        return self._scrubbed(column, value, repeated=False)

    def with_origin(self, free: dict[str, JSON] | None) -> dict[str, JSON] | None:
        """Return the free JSON together with what was kept; None only when there is neither."""
        return add_origin(free, self.origin, self._kept) if self._kept else free

    def _scrubbed(self, column: str, value: JSON, *, repeated: bool) -> JSON:
        if repeated:
            self.repaired(f"{column}: of a key that was there twice the last value is kept")
        clean, changed = scrub(value)
        if changed:
            self.repaired(f"{column}: U+0000 or a lone surrogate became U+FFFD")
        return clean

    def _usable(self, column: str, text: str) -> str:
        if len(text) > KEY_LENGTH:
            raise SetAside(f"its {column} is longer than {KEY_LENGTH} characters")
        if _CONTROL.search(text):
            raise SetAside(f"its {column} has control characters")
        return text


def add_origin(free: Mapping[str, JSON] | None, origin: str, kept: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the free JSON together with what was kept, under the first free one of origin, origin_1, origin_2, …"""
    whole = dict(free or {})
    name, number = origin, 0
    while name in whole:
        number += 1
        name = f"{origin}_{number}"
    whole[name] = dict(kept)
    return whole


def ulid_time(identifier: str) -> dt.datetime | None:
    """Return the time that a ULID was made at; None for any other identifier."""
    if not _ULID.fullmatch(identifier):
        return None
    milliseconds = 0
    for letter in identifier[:10]:
        milliseconds = milliseconds * 32 + _CROCKFORD.index(letter)
    try:
        return min(EPOCH + dt.timedelta(milliseconds=milliseconds), LATEST)
    except OverflowError:
        return None


def _as_text(value: Value) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value)


def _without_damage(text: str, *, keep_nul: bool = False) -> str:
    """Turn bytes that were no UTF-8 into U+FFFD, one for each broken sequence, and U+0000 as well."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text if keep_nul else text.replace("\x00", "\ufffd")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "..."
