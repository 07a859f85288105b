"""AIOS's ``events.jsonl``, read: one object on each line, with a ``type``.

A line has no key. It is known by its bytes and, among lines that are alike, by which of them it is: the file may grow,
be moved, and lose its oldest lines, and what came in once is recognised.
"""

from __future__ import annotations

import datetime as dt
import functools
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from hashlib import blake2b
from pathlib import Path
from typing import Final

from agentos_store.errors import InvalidValueError
from agentos_store.importers.aios.reading import is_key, task_of
from agentos_store.importers.aios.records import EventRecord
from agentos_store.importers.database import Opened
from agentos_store.importers.event_words import event_type_of, severity_of, shown
from agentos_store.importers.jsontext import JSON, parse_json
from agentos_store.importers.keys import KeySets
from agentos_store.importers.lines import LineReader
from agentos_store.importers.opening import unreadable
from agentos_store.importers.problems import Problem, Repair, SetAside
from agentos_store.importers.times import EPOCH, parse_time

KIND: Final = "events"
LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a line; a longer one is left out."""

_TYPES: Final = ("type", "event_type")
_TIMES: Final = ("timestamp", "ts", "time", "created_at")
_BOM: Final = b"\xef\xbb\xbf"
_HEAD: Final = 100
"""Lines in which an object must begin, or the file is no log of events."""


class EventLog(Opened):
    """An open ``events.jsonl``; close it, or use it in a ``with`` block. The file stays as it is."""

    shape: Final = "jsonl"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.changed = False
        """Whether what was read is not to be relied on, for somebody wrote into it meanwhile; growing does no harm."""
        self.problems: tuple[Problem, ...] = ()
        self.repairs: list[Repair] = []
        """Of the file as a whole, once its events were read."""
        self.share = 0.0
        """How much of the file is read, from 0 to 1."""
        with ExitStack() as stack:
            self._check()
            self._keys = stack.enter_context(KeySets())
            self._stack = stack.pop_all()

    def events(self) -> Iterator[EventRecord | Problem]:
        """Give the events in the order of their lines; a line that is none comes as a Problem."""
        alike = self._keys.fresh("line")
        self.repairs = []
        last: dt.datetime | None = None
        with closing(self._open()) as reader:
            for line in reader:
                self.share = reader.share
                where = f"line {reader.number}"
                try:
                    item = _Line(line, where)
                except SetAside as aside:
                    if reader.is_torn:
                        yield Problem(KIND, where, f"the last line is torn, so it is left out: {aside.reason}")
                    else:
                        yield Problem(KIND, where, aside.reason)
                    continue
                number = self._keys.tally(alike, item.digest)
                last = item.time or last or self._first_time
                yield item.record(number, last)
            for _ in range(reader.too_long):
                yield Problem(KIND, "*", f"a line is longer than {LONGEST:,} bytes, so it is left out")
            if reader.has_nul:
                self.repairs.append(Repair(KIND, "*", "NUL bytes, which a crash leaves, were dropped"))
            if not reader.settled:
                self.changed = not reader.has_grown
                if reader.has_grown:
                    self.repairs.append(
                        Repair(KIND, "*", "it grew while it was read; what came later is for the next run")
                    )

    @functools.cached_property
    def _first_time(self) -> dt.datetime:
        """The first time that a line tells, for those before it; else when the file was last written to."""
        with closing(self._open()) as reader:
            for line in reader:
                try:
                    moment = _Line(line, "").time
                except SetAside:
                    continue
                if moment is not None:
                    return moment
        try:
            return parse_time(self.path.stat().st_mtime)[0]
        except (OSError, ValueError):
            return EPOCH

    def _open(self) -> LineReader:
        try:
            return LineReader(os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), LONGEST)
        except OSError as error:
            raise unreadable(self.path, error) from None

    def _check(self) -> None:
        """Refuse what is no log of events; one that is empty, or holds nothing but NUL bytes, is one."""
        number = 0
        with closing(self._open()) as reader:
            for number, line in enumerate(reader, 1):
                if line.removeprefix(_BOM).lstrip().startswith(b"{"):
                    return
                if number == _HEAD:
                    break
        if number:
            raise InvalidValueError("path", "it is neither a database of AIOS nor a log of events, one on each line")


class _Line:
    """One line on its way to a record."""

    def __init__(self, line: bytes, where: str) -> None:
        self._where = where
        self._repairs: list[Repair] = []
        bare = line.removeprefix(_BOM)
        self.digest = blake2b(bare, digest_size=16).hexdigest()
        try:
            text = bare.decode()
        except UnicodeDecodeError:
            text = bare.decode("utf-8", "replace")
            self._repaired("bytes that are no UTF-8 became U+FFFD")
        try:
            value, repeated = parse_json(text)
        except ValueError as error:
            raise SetAside(f"it is no JSON that can be stored: {error}") from None
        if not isinstance(value, dict):
            raise SetAside("it is no JSON object")
        if repeated:
            self._repaired("of a key that was there twice the last value is kept")
        self._value = value

    @functools.cached_property
    def time(self) -> dt.datetime | None:
        """When it happened, as far as the line tells."""
        for name in _TIMES:
            if (found := self._value.get(name)) is None:
                continue
            try:
                # A list or an object is no form of time either.
                return parse_time(found)[0]
            except ValueError as error:
                self._repaired(f"{name}: {shown(found)} is left out: {error}")
        return None

    def record(self, number: int, moment: dt.datetime) -> EventRecord:
        """Make the record; it is the so-and-so-many-th line that is exactly like this."""
        if self.time is None:
            self._repaired("timestamp: it was missing, so it was taken from what is around it")
        found: JSON = next((self._value[name] for name in _TYPES if self._value.get(name) is not None), None)
        event_type, wrong = event_type_of(found)
        if wrong is not None:
            self._repaired(f"type: {wrong}")
        severity, wrong = severity_of(self._value.get("severity"))
        if wrong is not None:
            self._repaired(f"severity: {wrong}")
        agent_id = self._agent()
        ending = "" if number == 1 else f"-{number}"
        return EventRecord(
            table=KIND,
            source_key=self._where,
            event_id=f"aios-{self.digest}{ending}",
            event_type=event_type,
            agent_id=agent_id,
            task_id=task_of(self._value),
            severity=severity,
            # All of it, as AIOS's own migration from the log to the table does.
            data=self._value,
            created_at=moment,
            repairs=tuple(self._repairs),
        )

    def _agent(self) -> str | None:
        found = self._value.get("agent_id")
        if found is None or found == "":
            return None
        if isinstance(found, str) and is_key(found):
            return found
        self._repaired("agent_id: it can be no key, so it is in the data only")
        return None

    def _repaired(self, what: str) -> None:
        repair = Repair(KIND, self._where, what)
        if repair not in self._repairs:
            self._repairs.append(repair)
