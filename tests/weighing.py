"""How much memory a piece of work takes beyond what the process had when it began."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tests.engine.gather import PROCESSES


def peak() -> int:
    """Return the most memory that this process ever had, in megabytes."""
    # macOS tells bytes, and Linux kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024**2 if sys.platform == "darwin" else 1024)


def growth(work: Callable[..., object], small: tuple[Any, ...], large: tuple[Any, ...]) -> int:
    """Do the work twice in a process of its own; return the megabytes by which the large one went beyond the small."""
    reader, writer = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=_weigh, args=(work, small, large, writer), daemon=True)
    child.start()
    writer.close()
    with reader:
        try:
            grown: int = reader.recv()
        finally:
            child.join()
    return grown


def _weigh(work: Callable[..., object], small: tuple[Any, ...], large: tuple[Any, ...], answer: Connection) -> None:
    work(*small)
    before = peak()
    work(*large)
    answer.send(peak() - before)
