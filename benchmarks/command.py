"""The command line: which works, for how long, and where the results go."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter

from benchmarks import machine, pictures, report
from benchmarks.agents.works import WORKS as OF_AGENTS
from benchmarks.backups import backups
from benchmarks.conversations.works import WORKS as OF_CONVERSATIONS
from benchmarks.conversations.writers import append_messages
from benchmarks.events.works import WORKS as OF_EVENTS
from benchmarks.growth.fill import BYTES_PER_MESSAGE
from benchmarks.growth.works import LARGEST, LEAST, growth
from benchmarks.measure import Contest, hold
from benchmarks.places import Place, open_place
from benchmarks.profiles import profile
from benchmarks.queue.claims import claim_tasks
from benchmarks.retention import retention
from benchmarks.search.works import WORKS as OF_SEARCH
from benchmarks.startup import STARTS
from benchmarks.targets import BACKENDS
from benchmarks.works import WORKS
from benchmarks.writers import Chore, Crowd, crowd, record_audits

RESULTS = Path(__file__).with_name("RESULTS.md")
CONTESTS: dict[str, Callable[[Place], AbstractContextManager[Contest]]] = {
    **WORKS,
    **OF_CONVERSATIONS,
    **OF_AGENTS,
    **OF_EVENTS,
    **OF_SEARCH,
    **STARTS,
}
CROWDS: dict[str, tuple[Callable[[Place], Chore], str]] = {
    "threads": (record_audits, "threads"),
    "processes": (record_audits, "processes"),
    "append-threads": (append_messages, "threads"),
    "append-processes": (append_messages, "processes"),
    "claim-threads": (claim_tasks, "threads"),
    "claim-processes": (claim_tasks, "processes"),
}
"""What sixteen writers do, and what they are."""
BESIDE: dict[str, Callable[[Place], Crowd]] = {"retention": retention, "backups": backups}
"""What writers are measured beside; the rounds are not asked for."""
GROWTH = "growth"
"""Stores of several sizes."""
ON_SQLITE_ONLY = {"process", "threads", "processes", "append-processes", "backups"}


def main() -> None:
    """Run what the command line asks for."""
    arguments = _parse()
    # What the environment says about some database must not change what is measured.
    for name in [name for name in os.environ if name.upper().startswith("DATABASE_")]:
        del os.environ[name]
    _leave_memory()
    started = perf_counter()
    everything = not (arguments.only or arguments.backend or arguments.profile)
    if arguments.growth and (everything or GROWTH in (arguments.only or ())):
        _see_room(arguments.growth * BYTES_PER_MESSAGE * 1.2)
    if (everything or arguments.output is not None) and not pictures.available():
        # Better now than when all is measured.
        sys.exit("the pictures need matplotlib: pip install --group bench")
    with tempfile.TemporaryDirectory(prefix="agentos-benchmarks-") as directory:
        if arguments.profile:
            _profile(arguments, Path(directory))
            return
        run = _run(arguments, Path(directory))
    output: Path | None = arguments.output or (RESULTS if everything else None)
    if output is not None:
        # The figures are kept, whatever happens to the pictures.
        output.write_text(report.render(run), encoding="utf-8")
        run.pictures = pictures.draw(run, output.parent)
        output.write_text(report.render(run), encoding="utf-8")
    print(f"\n{report.render(run)}\n{perf_counter() - started:.0f} s")
    if output is None:
        print(f"{RESULTS.name} is only written by a run of everything")


def _see_room(needed: float) -> None:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        sys.exit(f"{free / 1e9:.0f} GB are free, and about {needed / 1e9:.0f} are needed; take a smaller --growth")


def _profile(arguments: argparse.Namespace, directory: Path) -> None:
    for backend in _backends(arguments):
        with open_place(backend, directory) as place:
            profile(CONTESTS[arguments.profile], place, arguments.seconds)


def _backends(arguments: argparse.Namespace) -> Sequence[str]:
    return [arguments.backend] if arguments.backend else BACKENDS


def _run(arguments: argparse.Namespace, directory: Path) -> report.Run:
    run = report.Run(everything=not (arguments.only or arguments.backend))
    facts, results = run.facts, run.results
    facts += [("date", f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC")]
    facts += [("command", f"`{shlex.join(['python', '-m', 'benchmarks', *sys.argv[1:]])}`")]
    facts += [("rounds", f"{arguments.rounds}, of {arguments.seconds:g} s for the contestants of a work together")]
    facts += machine.describe(directory)
    facts.append(("at the start", machine.busyness(directory)))
    rounds = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    for backend in _backends(arguments):
        with open_place(backend, directory) as place:
            facts.append((backend, place.version))
            for name in _chosen(arguments, backend):
                print(f"{backend}: {name} …", flush=True)
                if name == GROWTH:
                    run.growths += growth(place, arguments.growth, **rounds)
                elif name in CROWDS:
                    make, kind = CROWDS[name]
                    results[name, backend] = crowd(place, make(place), kind, **rounds)
                elif name in BESIDE:
                    results[name, backend] = BESIDE[name](place)
                else:
                    with CONTESTS[name](place) as contest:
                        results[name, backend] = hold(contest, **rounds)
    facts.append(("at the end", machine.busyness(directory)))
    return run


def _chosen(arguments: argparse.Namespace, backend: str) -> Iterator[str]:
    for name in NAMES:
        left_out = (backend != "sqlite" and name in ON_SQLITE_ONLY) or (name == GROWTH and not arguments.growth)
        if (not arguments.only or name in arguments.only) and not left_out:
            yield name


NAMES = [*CONTESTS, *CROWDS, *BESIDE, GROWTH]
_ONLY = f"some works of {', '.join(NAMES)}; the results are only printed"
_GROWTH = f"messages of the largest store, a multiple of {LEAST:,}, or 0 to leave the growth out ({LARGEST:,})"
_PROFILE = "print where the time of one work goes, instead of measuring; any work of one caller"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each work (5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of a round, all contestants together (1.5)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="WORK", help=_ONLY)
    parser.add_argument("--growth", type=int, default=LARGEST, metavar="MESSAGES", help=_GROWTH)
    parser.add_argument("--profile", choices=[*CONTESTS], metavar="WORK", help=_PROFILE)
    parser.add_argument("--backend", choices=BACKENDS, help="one database; the results are only printed")
    parser.add_argument("--output", type=Path, help=f"where the results go ({RESULTS.name}, for a run of everything)")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("there must be a round, and it must take some time")
    # Of any other number the smaller stores would be no whole part.
    if arguments.growth < 0 or arguments.growth % LEAST:
        parser.error(f"the messages of the largest store must be a multiple of {LEAST:,}")
    return arguments


def _leave_memory() -> None:
    """See that databases lie on a disk: what is in memory syncs for nothing."""
    for candidate in (tempfile.gettempdir(), "/var/tmp", Path.cwd()):
        if machine.filesystem(Path(candidate)) not in machine.IN_MEMORY:
            # The server's files go there too.
            tempfile.tempdir = str(candidate)
            return
    sys.exit("there is no directory on a disk; set TMPDIR")
