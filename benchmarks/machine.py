"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

IN_MEMORY = {"tmpfs", "ramfs"}


def describe(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield what there is to say, a name and a text each."""
    yield "machine", f"{os.cpu_count()} cores, {_processor()}, {_memory()}, {platform.system()} {platform.machine()}"
    yield "file system", filesystem(directory) or "unknown"
    yield "Python", f"{platform.python_implementation()} {platform.python_version()}"
    for package in ("sqlalchemy", "psycopg", "agentos-store"):
        yield package, version(package)


def busyness(directory: Path) -> str:
    """Return how busy the machine is, and how long every commit waits for its disk: it is asked before and after."""
    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    return f"{load}write of 4 KiB and fdatasync {_sync(directory)}"


def filesystem(directory: Path) -> str | None:
    """Return the type of the file system; None where the system does not tell."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    real = directory.resolve()
    types = {Path(fields[1]): fields[2] for fields in (line.split(" ") for line in mounts.splitlines())}
    found = [point for point in types if real.is_relative_to(point)]
    return types[max(found, key=lambda point: len(point.parts))] if found else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown processor"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return "unknown memory"


def _sync(directory: Path) -> str:
    sync = os.fsync if sys.platform in {"darwin", "win32"} else os.fdatasync
    times = []
    path = directory / "sync"
    with path.open("wb", buffering=0) as file:
        for number in range(220):
            started = perf_counter()
            file.write(bytes(4096))
            sync(file.fileno())
            if number >= 20:
                times.append(perf_counter() - started)
    path.unlink()
    return f"{median(times) * 1e3:.2f} ms (median of {len(times)})"
