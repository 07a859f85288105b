"""A power cut, replayed: any sectors written since the last sync of a file may be there, and any may not."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.engine.recorded_vfs import Step

SECTOR = 512
"""Bytes that a disk writes whole, or not at all."""


def after_cut(before: Mapping[str, bytes], steps: Sequence[Step], chance: random.Random) -> dict[str, bytes]:
    """Return the files as they are found after a cut behind the last of these steps.

    What was written before a sync began that has come back is there.
    """
    files = {name: bytearray(content) for name, content in before.items()}
    last_sync = {step.name: step.offset for step in steps if step.kind == "sync"}
    # A disk that keeps much, or little: the ends are where mistakes hide.
    kept = chance.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    for place, step in enumerate(steps):
        synced = place < last_sync.get(step.name, 0)
        if step.kind == "write":
            _write(files.setdefault(step.name, bytearray()), step, 1.0 if synced else kept, chance)
        elif step.kind == "truncate" and (synced or chance.random() < kept):
            file = files.setdefault(step.name, bytearray())
            del file[step.offset :]
            file.extend(bytes(step.offset - len(file)))
        elif step.kind == "delete" and (step.offset or chance.random() < kept):
            files.pop(step.name, None)
    return {name: bytes(content) for name, content in files.items()}


def _write(file: bytearray, step: Step, kept: float, chance: random.Random) -> None:
    at = 0
    while at < len(step.content):
        # Up to the end of the sector that the offset lies in.
        end = min(len(step.content), at + SECTOR - (step.offset + at) % SECTOR)
        if kept >= 1 or chance.random() < kept:
            start = step.offset + at
            if len(file) < start:
                file.extend(bytes(start - len(file)))
            file[start : step.offset + end] = step.content[at:end]
        at = end


def lay_down(files: Mapping[str, bytes], names: Mapping[str, Path]) -> None:
    """Write the files under their new names; those that are not among them are removed."""
    for name, path in names.items():
        path.unlink(missing_ok=True)
        if name in files:
            path.write_bytes(files[name])
