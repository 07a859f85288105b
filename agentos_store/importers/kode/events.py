"""The events of one channel: a log, and a write-ahead log of lines that may not be in it yet."""

from __future__ import annotations

from contextlib import closing
from hashlib import blake2b
from typing import Final

from agentos_store.importers.kode.files import Gone, Refused, Tree
from agentos_store.importers.kode.item import Findings
from agentos_store.importers.kode.json_files import parse_text
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
        for attempt in (1, 2):
            lines, noted, settled = _read(tree, path)
            if settled or attempt == 2:
                break
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


def _read(tree: Tree, path: str) -> tuple[list[bytes], Findings, bool]:
    """Return the digests of the lines, what there is to say about them, and whether nobody wrote meanwhile."""
    findings = Findings()
    try:
        reader = tree.lines(path, LONGEST)
    except Gone:
        # Its lines were moved to the log.
        return [], findings, True
    except Refused as refused:
        findings.problem(KIND, path, refused.reason)
        return [], findings, True
    digests: list[bytes] = []
    faults: list[tuple[int, str]] = []
    last, unlisted = (0, ""), 0
    number = 0
    try:
        with closing(reader):
            for number, line in enumerate(reader, 1):
                reason = _fault(line)
                if reason is None:
                    digests.append(blake2b(line, digest_size=16).digest())
                    continue
                if last[0]:
                    unlisted += len(faults) >= _LISTED
                    faults += [last] * (len(faults) < _LISTED)
                last = (number, reason)
            settled = reader.settled
    except (OSError, MemoryError):
        findings.problem(KIND, path, f"it cannot be read beyond line {number:,}")
        return digests, findings, True
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
    return digests, findings, settled


def _fault(line: bytes) -> str | None:
    try:
        value, _ = parse_text(line.decode("utf-8", "replace"))
    except Refused as refused:
        return refused.reason
    if not isinstance(value, dict) or not isinstance(value.get("event"), dict):
        return "it is no event"
    return None
