"""The events of one channel: a log, and a write-ahead log of lines that may not be in it yet."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from hashlib import blake2b
from typing import Final

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.kode.files import Gone, Refused, Tree
from agentos_store.importers.kode.item import Findings
from agentos_store.importers.kode.json_files import is_deeper, parse_text
from agentos_store.importers.kode.records import ChannelCounts

CHANNELS: Final = ("progress", "control", "monitor")
KIND: Final = "events"
LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a line; a longer one is left out."""
_LISTED: Final = 20
"""Lines of one file that are no events and are listed one by one."""


def count_channel(tree: Tree, folder: str, channel: str, present: set[str], findings: Findings) -> ChannelCounts:
    """Count the lines of a channel: those of the log, then those of the write-ahead log that the log does not hold.

    A line is known by its bytes, never by its number: ordinary use repeats lines, and an agent that is resumed uses
    numbers again.
    """
    counts = ChannelCounts()
    logged: set[bytes] = set()
    seen: set[bytes] = set()
    for ending in ("log", "wal"):
        name = f"{channel}.{ending}"
        if name not in present:
            continue
        path = f"{folder}/{name}"
        counts.files.append(path)
        for attempt in (1, 2):
            lines, noted, lost, settled = _read(tree, path)
            if settled or attempt == 2:
                break
        counts.lost += lost
        if not settled:
            noted.repaired(KIND, path, "it was written to while it was read, twice; what comes later is missing")
        for digest in lines:
            if ending == "wal" and digest in logged:
                continue
            counts.lines += 1
            seen.add(digest)
        if ending == "log":
            logged = set(seen)
        findings.problems += noted.problems
        findings.repairs += noted.repairs
    counts.distinct = len(seen)
    return counts


def lines_of(tree: Tree, files: list[str]) -> Generator[tuple[bytes, dict[str, JSON]]]:
    """Give the digest and the value of each line that is an event, of lines that are alike the first.

    What is no event is passed over: ``count_channel`` has told of it.
    """
    seen: set[bytes] = set()
    for path in files:
        try:
            reader = tree.lines(path, LONGEST)
        except Refused:
            continue
        with closing(reader):
            try:
                for line in reader:
                    if (digest := _digest(line)) in seen:
                        continue
                    try:
                        value = _event(line)
                    except Refused:
                        continue
                    seen.add(digest)
                    yield digest, value
            except (OSError, MemoryError):
                continue


def _read(tree: Tree, path: str) -> tuple[list[bytes], Findings, int, bool]:
    """Return the lines' digests, what there is to say, how many were lost, and whether nobody wrote meanwhile."""
    findings = Findings()
    try:
        reader = tree.lines(path, LONGEST)
    except Gone:
        # Its lines were moved to the log.
        return [], findings, 0, True
    except Refused as refused:
        findings.problem(KIND, path, refused.reason)
        return [], findings, 1, True
    digests: list[bytes] = []
    faults: list[tuple[int, str]] = []
    last, unlisted = (0, ""), 0
    number = lost = 0
    try:
        with closing(reader):
            for number, line in enumerate(reader, 1):
                try:
                    _event(line)
                except Refused as refused:
                    if last[0]:
                        unlisted += len(faults) >= _LISTED
                        faults += [last] * (len(faults) < _LISTED)
                    last = (number, refused.reason)
                    lost += 1
                else:
                    digests.append(_digest(line))
            settled = reader.settled
    except (OSError, MemoryError):
        findings.problem(KIND, path, f"it cannot be read beyond line {number:,}")
        return digests, findings, lost + 1, True
    if last[0] == number and number and reader.is_torn:
        findings.problem(KIND, path, "its last line is torn and was dropped")
    elif last[0]:
        faults.append(last)
    for place, reason in faults:
        findings.problem(KIND, f"{path} line {place}", reason)
    if unlisted:
        findings.problem(KIND, path, f"{unlisted:,} more of its lines are no events")
    if reader.has_nul:
        findings.repaired(KIND, path, "NUL bytes were dropped")
    if reader.too_long:
        findings.problem(KIND, path, f"{reader.too_long:,} lines are longer than {LONGEST:,} bytes and were dropped")
    return digests, findings, lost + reader.too_long, settled


def _digest(line: bytes) -> bytes:
    return blake2b(line, digest_size=16).digest()


def _event(line: bytes) -> dict[str, JSON]:
    """Return the value of a line that is an event; raise Refused for any other."""
    value, _ = parse_text(line.decode("utf-8", "replace"))
    if not isinstance(value, dict) or not isinstance(value.get("event"), dict):
        raise Refused("it is no event")
    if is_deeper(value["event"]):
        raise Refused("it is nested too deep")
    return value
