"""The command line: which works, for how long, and where the results go."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from time import perf_counter

from benchmarks import machine, report
from benchmarks.agents.works import WORKS as OF_AGENTS
from benchmarks.backups import backups
from benchmarks.conversations.works import WORKS as OF_CONVERSATIONS
from benchmarks.conversations.writers import append_messages
from benchmarks.events.works import WORKS as OF_EVENTS
from benchmarks.measure import Contest, Outcome, hold
from benchmarks.places import Place, open_place
from benchmarks.queue.claims import claim_tasks
from benchmarks.retention import retention
from benchmarks.search.works import WORKS as OF_SEARCH
from benchmarks.startup import STARTS
from benchmarks.works import WORKS
from benchmarks.writers import Chore, Crowd, crowd, record_audits

RESULTS = Path(__file__).with_name("RESULTS.md")
BACKENDS = ("sqlite", "postgresql")
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
ON_SQLITE_ONLY = {"process", "threads", "processes", "append-processes", "backups"}


def main() -> None:
    """Run what the command line asks for."""
    arguments = _parse()
    # What the environment says about some database must not change what is measured.
    for name in [name for name in os.environ if name.upper().startswith("DATABASE_")]:
        del os.environ[name]
    _leave_memory()
    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix="agentos-benchmarks-") as directory:
        text = _run(arguments, Path(directory))
    print(f"\n{text}\n{perf_counter() - started:.0f} s")
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    elif arguments.only or arguments.backend:
        print(f"{RESULTS.name} is only written by a run of everything")
    else:
        RESULTS.write_text(text, encoding="utf-8")


def _run(arguments: argparse.Namespace, directory: Path) -> str:
    facts = [("date", f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC")]
    facts += [("command", f"`{shlex.join(['python', '-m', 'benchmarks', *sys.argv[1:]])}`")]
    facts += [("rounds", f"{arguments.rounds}, of {arguments.seconds:g} s for the contestants of a work together")]
    facts += machine.describe(directory)
    facts.append(("at the start", machine.busyness(directory)))
    outcomes: list[Outcome] = []
    crowds: list[Crowd] = []
    for backend in [arguments.backend] if arguments.backend else BACKENDS:
        with open_place(backend, directory) as place:
            facts.append((backend, place.version))
            for name in _chosen(arguments, backend):
                print(f"{backend}: {name} …", flush=True)
                if name in CROWDS:
                    make, kind = CROWDS[name]
                    chore = make(place)
                    crowds.append(crowd(place, chore, kind, rounds=arguments.rounds, seconds=arguments.seconds))
                    continue
                if name in BESIDE:
                    crowds.append(BESIDE[name](place))
                    continue
                with CONTESTS[name](place) as contest:
                    outcomes.append(hold(contest, rounds=arguments.rounds, seconds=arguments.seconds))
    facts.append(("at the end", machine.busyness(directory)))
    return report.render(facts, outcomes, crowds)


def _chosen(arguments: argparse.Namespace, backend: str) -> Iterator[str]:
    for name in (*CONTESTS, *CROWDS, *BESIDE):
        if (not arguments.only or name in arguments.only) and (backend == "sqlite" or name not in ON_SQLITE_ONLY):
            yield name


_ONLY = f"some works of {', '.join([*CONTESTS, *CROWDS, *BESIDE])}; the results are only printed"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each work (5)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of a round, all contestants together (1.5)")
    parser.add_argument("--only", nargs="+", choices=[*CONTESTS, *CROWDS, *BESIDE], metavar="WORK", help=_ONLY)
    parser.add_argument("--backend", choices=BACKENDS, help="one database; the results are only printed")
    parser.add_argument("--output", type=Path, help=f"where the results go ({RESULTS.name}, for a run of everything)")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.seconds <= 0:
        parser.error("there must be a round, and it must take some time")
    return arguments


def _leave_memory() -> None:
    """See that databases lie on a disk: what is in memory syncs for nothing."""
    for candidate in (tempfile.gettempdir(), "/var/tmp", Path.cwd()):
        if machine.filesystem(Path(candidate)) not in machine.IN_MEMORY:
            # The server's files go there too.
            tempfile.tempdir = str(candidate)
            return
    sys.exit("there is no directory on a disk; set TMPDIR")
