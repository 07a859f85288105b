"""The results as Markdown: only what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.measure import Outcome, Spread
from benchmarks.writers import Crowd

INTRODUCTION = """\
# Results

Written by the command below; nothing here was typed by hand. Contestants take turns in small blocks of one run. A time
is the median operation of a round, and of these the median over the rounds. A ratio, to the contestant that has 1.00,
is made within each round; its spread is that of the rounds. "Own CPU" is the processor time that an operation takes in
the client's process, which waiting for the disk and for the server does not hide. "raw driver" is sqlite3 or psycopg
alone writing the same rows with the same indexes and the same durability (SQLite: WAL, `synchronous=FULL`; PostgreSQL:
prepared statements, one round trip, two where a list is read, compared and added to).

Afterwards the rows were counted: each contestant had written as many as the others (of sixteen writers: as many as it
said), and readers had read the same tasks, sessions, messages and tool calls. The library verified every audit chain,
those of the other contestants too. The messages of each conversation were numbered without a gap, its counters were
right, and the last ones were alike, whoever had written them. Every tool call had ended once, with its steps in its
trail and the duration that its times tell, and the saved agent was the same.
"""


def render(facts: Iterable[tuple[str, str]], outcomes: Sequence[Outcome], crowds: Sequence[Crowd]) -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "\n".join(f"- {name}: {text}" for name, text in facts) + "\n"]
    for work in dict.fromkeys(outcome.work for outcome in outcomes):
        same = [outcome for outcome in outcomes if outcome.work == work]
        parts.append(f"## {_titled(work)}\n\n" + "\n".join(_table(each) for each in same))
    parts += [_crowd_table(each) for each in crowds]
    return "\n".join(parts)


def _table(outcome: Outcome) -> str:
    columns = [f"{outcome.backend}, {outcome.operations:,} operations each", "time", "ratio", "least – most"]
    if outcome.own_cpu:
        columns += ["own CPU", "ratio", "least – most"]
    lines = [_row(columns), _row(["---", *["---:"] * (len(columns) - 1)])]
    for line in outcome.lines:
        cells = [line.name, _time(line.seconds.middle), *_ratio(line.ratio)]
        if outcome.own_cpu:
            cells += [_time(line.cpu.middle), *_ratio(line.cpu_ratio)]
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ratio(spread: Spread) -> tuple[str, str]:
    return f"{spread.middle:.2f}", f"{spread.least:.2f} – {spread.largest:.2f}"


def _crowd_table(crowd: Crowd) -> str:
    columns = ["", f"{crowd.unit}/s", "least – most", "ratio", "least – most", "p50", "p99", "longest", "errors"]
    lines = [_row(columns), _row(["---", *["---:"] * (len(columns) - 1)])]
    for line in crowd.lines:
        rate = [f"{line.rate.middle:,.0f}", f"{line.rate.least:,.0f} – {line.rate.largest:,.0f}"]
        waits = [_time(time) for time in (line.middle, line.nearly_all, line.longest)]
        lines.append(_row([line.name, *rate, *_ratio(line.ratio), *waits, str(line.errors)]))
    where = "in one SQLite file" if crowd.backend == "sqlite" else f"on {crowd.backend}"
    return f"## {crowd.kind} {crowd.what} {where}\n\n" + "\n".join(lines) + "\n"


def _titled(work: str) -> str:
    return work[0].upper() + work[1:]


def _time(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s"
