"""The long forms of the tests that kill, cut, pause and draw at random, one after another until the time is over.

``make soak MINUTES=30`` runs them, as many files at once as there are cores. A round takes each once, in a process of
its own; sizes stay the same, what is drawn at random differs. It ends after the tests that are running when the time is
over, or when one has failed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WORKS: tuple[tuple[str, dict[str, str]], ...] = (
    ("tests/store/test_one_model.py", {"EXAMPLES": "5000"}),
    ("tests/importers/test_import_memory.py", {"MANY": "1"}),
    ("tests/operations/test_archive_making.py", {"MANY": "1"}),
    ("tests/test_values.py", {"PAYLOAD": "100000000"}),
    ("tests/store/test_history.py", {"HISTORY": "60"}),
    ("tests/store/test_async.py", {}),
    ("tests/engine/test_disk_full.py", {}),
    ("tests/engine/test_interrupts.py", {"INTERRUPTS": "200"}),
    ("tests/engine/test_power_cut.py", {"POWER_CUTS": "300"}),
    ("tests/engine/test_full_file_system.py", {"FULL_DISKS": "10"}),
    ("tests/store/test_every_operation_fails.py", {}),
    ("tests/store/test_cancel_storm.py", {"CANCELLATIONS": "6000"}),
    ("tests/operations/test_backups.py", {"BACKUPS": "8"}),
    ("tests/operations/test_salvage.py", {"SALVAGES": "8"}),
    ("tests/leases/test_late_writers.py", {"PAUSES": "20"}),
    ("tests/postgresql/test_failover.py", {"FAILOVER": "5"}),
    ("tests/postgresql/test_replica.py", {"REPLICA_READS": "5000"}),
    ("tests/postgresql/test_retry_cuts.py", {"CUTS": "1000"}),
    ("tests/postgresql/test_event_cuts.py", {"CUTS": "60"}),
    ("tests/migrate/test_ensure.py", {"KILLS": "10"}),
    ("tests/migrate/test_down_and_up.py", {}),
    ("tests/governance/test_inbox.py", {"TEST_EVENTS": "1000"}),
    ("tests/worker/test_crowd.py", {"TEST_TASKS": "1000"}),
    ("tests/events/test_subscription_races.py", {"SUBSCRIPTIONS": "10"}),
    ("tests/events/test_pgbouncer.py", {"SUBSCRIPTIONS": "10"}),
    ("tests/events/test_event_kills.py", {"KILLS": "10"}),
    ("tests/conversations/test_message_search_races.py", {"KILLS": "60"}),
    ("tests/conversations/test_message_search_oracle.py", {"SEARCH_STEPS": "1000"}),
    ("tests/agents/test_turns.py", {"KILLS": "60"}),
    ("tests/importers/test_load.py", {"KILLS": "10"}),
    ("tests/importers/test_damage.py", {"DAMAGES": "200"}),
    ("tests/importers/test_loading_damage.py", {"DAMAGES": "100"}),
    ("tests/operations/test_upkeep_killed.py", {"KILLS": "60"}),
    ("tests/operations/test_moving_kills.py", {"KILLS": "10"}),
    ("tests/store/test_tenants.py", {"SEEDS": "3"}),
    ("tests/migrate/test_many_schemas.py", {"TENANTS": "20"}),
    ("tests/store/test_walking_memory.py", {"MANY": "1"}),
    ("tests/engine/test_crash.py", {"KILLS": "500"}),
    ("tests/operations/test_moving_copies.py", {"MANY": "1"}),
    ("tests/importers/test_file_sources.py", {"PACKAGES": "all"}),
    ("tests/knowledge/test_installed_packages.py", {"PACKAGES": "all"}),
)
"""A file of tests, and what AGENTOS_STORE_… variables make of it; those that take longest come first."""


class _Soak:
    """Rounds of the works, several at once, until the time is over or one has failed."""

    def __init__(self, seconds: float) -> None:
        self.begun = time.monotonic()
        self.failed = False
        self._seconds = seconds
        self._left = ((number, *work) for number in itertools.count(1) for work in WORKS)
        self._lock = threading.Lock()
        self._next = next(self._left)

    def run(self) -> None:
        """Take one work after the other."""
        while True:
            with self._lock:
                if self.failed or time.monotonic() - self.begun > self._seconds:
                    return
                number, path, sizes = self._next
                self._next = next(self._left)
            started = time.monotonic()
            passed = False
            try:
                passed = _passes(path, sizes)
            finally:
                # What could not even be started has not passed.
                self.failed = self.failed or not passed
                how = f"passed in {_minutes(started)}" if passed else "FAILED"
                print(f"round {number}: {path} {how}", flush=True)

    def report(self) -> None:
        """Say how far it came."""
        number, path, _ = self._next
        print(f"clean after {number - 1} whole rounds and {_minutes(self.begun)}", flush=True)
        if number == 1:
            paths = [path for path, _ in WORKS]
            print("not reached:", *paths[paths.index(path) :], flush=True)


def main() -> int:
    """Run rounds until the time is over; return 1 when a test has failed."""
    parser = argparse.ArgumentParser(description="Run the long forms of the tests until the time is over.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="files at once (as many as cores)")
    given = parser.parse_args()
    soak = _Soak(given.minutes * 60)
    lanes = [threading.Thread(target=soak.run) for _ in range(max(given.at_once, 1))]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    if soak.failed:
        return 1
    soak.report()
    return 0


def _passes(path: str, sizes: dict[str, str]) -> bool:
    variables = {f"AGENTOS_STORE_{name}": value for name, value in sizes.items()}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", path]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return done.returncode == 0


def _minutes(since: float) -> str:
    seconds = round(time.monotonic() - since)
    return f"{seconds // 60} min {seconds % 60} s"


if __name__ == "__main__":
    sys.exit(main())
