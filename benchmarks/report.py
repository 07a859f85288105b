"""The results as Markdown: only what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import writers
from benchmarks.growth.works import Growth
from benchmarks.measure import Line, Outcome, Spread
from benchmarks.targets import AT_LEAST, TARGETS, Figure, Limit, Result, Verdict, judge
from benchmarks.works import OURS, RAW
from benchmarks.writers import Crowd

HEADING = "# Results\n"

TARGETS_MET = """\
Written by one run of the command below; nothing here was typed by hand. Each target is held against what the same run
measured beside it: a ratio is the median of several rounds, and of several contestants the worst. {met} of {measured}
are met; why the others are not is explained in [LIMITS.md](LIMITS.md).
"""

INTRODUCTION = """\
## How it was measured

Contestants take turns in small blocks of one run, in a random order. A time is the median operation of a round, and of
these the median over the rounds. A ratio, to the contestant that has 1.00, is made within each round; its spread is
that of the rounds. "Own CPU" is the processor time that an operation takes in the client's process, which waiting for
the disk and for the server does not hide. "raw driver" is sqlite3 or psycopg alone writing the same rows with the same
indexes and the same durability (SQLite: WAL, `synchronous=FULL`; PostgreSQL: prepared statements, one round trip, two
where a list is read, compared and added to).

Afterwards the rows were counted: each contestant had written as many as the others (of sixteen writers: as many as it
said), and readers had read the same tasks, sessions, messages and tool calls. The library verified every audit chain,
those of the other contestants too. The messages of each conversation were numbered without a gap, its counters were
right, and the last ones were alike, whoever had written them. Every tool call had ended once, with its steps in its
trail and the duration that its times tell, and the saved agent was the same.
"""

GROWTH = """\
## As the store grows

Stores of three sizes took turns:

{sizes}

One session has a tenth of the messages, the others twenty each; a user has half of the sessions. The stores were filled
by SQL into the same tables and indexes, and the index of the search by the library. The ratio is that of the largest
store to the smallest, made within each round; the driver's own shows what grows in the database itself. What finds more
the more there is ranks all of it.
"""

NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(slots=True)
class Run:
    """What a run has measured, in the order in which it was."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    """What is to be said about the machine and the versions: a name and a text each."""
    results: dict[tuple[str, str], Result] = field(default_factory=dict)
    """By the name that the command line takes, and the backend."""
    everything: bool = False
    """Whether nothing was left out, so that a target which was not measured is missing."""
    growths: list[Growth] = field(default_factory=list)
    pictures: Mapping[str, str] = field(default_factory=dict)
    """What the pictures show, by the names of their files."""

    @property
    def outcomes(self) -> list[Outcome]:
        """Return those of one caller."""
        return [result for result in self.results.values() if isinstance(result, Outcome)]

    @property
    def crowds(self) -> list[Crowd]:
        """Return those of many writers."""
        return [result for result in self.results.values() if isinstance(result, Crowd)]


def render(run: Run) -> str:
    """Return the whole page."""
    parts = [_targets(run)]
    parts += [f"![{text}]({name})\n" for name, text in run.pictures.items()]
    parts += [INTRODUCTION, "\n".join(f"- {name}: {text}" for name, text in run.facts) + "\n"]
    parts += [_growth(run.growths)] if run.growths else []
    for work in dict.fromkeys(outcome.work for outcome in run.outcomes):
        same = [outcome for outcome in run.outcomes if outcome.work == work]
        parts.append(f"## {_titled(work)}\n\n" + "\n".join(_table(each) for each in same))
    parts += [_crowd_table(each) for each in run.crowds]
    return "\n".join(parts)


def _targets(run: Run) -> str:
    lines = [_row(["work", "database", "target", "this run", "beside it", ""]), _row(["---"] * 6)]
    met: list[bool] = []
    for target in TARGETS:
        for backend, limits in target.limits.items():
            verdict = judge(target, backend, run.results)
            cells = [target.title, NAMES[backend], ", ".join(_limit(limit, target.beside) for limit in limits)]
            if verdict.found:
                met.append(verdict.met)
                told = "met" if verdict.met else f"[**not met**](LIMITS.md#{target.anchor})"
                lines.append(_row([*cells, _ours(verdict), _beside(verdict.baseline), told]))
            elif run.everything:
                lines.append(_row([*cells, "", "", "not measured"]))
    if not met:
        return HEADING
    return "\n".join([HEADING, TARGETS_MET.format(met=sum(met), measured=len(met)), *lines, ""])


def _limit(limit: Limit, beside: str) -> str:
    if limit.figure == "errors":
        return "no error"
    bound = "≥" if limit.figure in AT_LEAST else "≤"
    return {
        "times": f"{bound} {limit.value:g} × {beside}",
        "share": f"{bound} {limit.value:g} of the rate of the {beside}",
        "seconds": f"{bound} {_time(limit.value)}",
        "rate": f"{bound} {limit.value:,.0f}/s",
        "p99": f"p99 {bound} {_time(limit.value)}",
        "longest": f"longest {bound} {_time(limit.value)}",
    }[limit.figure]


def _ours(verdict: Verdict) -> str:
    told = [_figure(limit.figure, found) for limit, found in verdict.found]
    times = [line.seconds.middle for line in verdict.ours if isinstance(line, Line)]
    if times and verdict.found[0][0].figure != "seconds":
        told.append(_time(max(times)))
    return ", ".join(told)


def _figure(figure: Figure, value: float) -> str:
    return {
        "times": f"{value:.2f}",
        "share": f"{value:.2f}",
        "seconds": _time(value),
        "rate": f"{value:,.0f}/s",
        "p99": f"p99 {_time(value)}",
        "longest": f"longest {_time(value)}",
        "errors": f"{value:.0f} errors",
    }[figure]


def _beside(line: Line | writers.Line | None) -> str:
    if line is None:
        return ""
    if isinstance(line, Line):
        return f"{line.name}: {_time(line.seconds.middle)}"
    waits = f"p99 {_time(line.nearly_all)}, longest {_time(line.longest)}"
    return f"{line.name}: {line.rate.middle:,.0f}/s, {waits}, {line.errors} errors"


def _growth(growths: Sequence[Growth]) -> str:
    amounts = {growth.unit: growth.amounts for growth in growths}
    stores = [
        ", ".join(f"{many:,} {unit}" for unit, many in zip(amounts, each, strict=True))
        for each in zip(*amounts.values(), strict=True)
    ]
    parts = [GROWTH.format(sizes="\n".join(f"- {store}" for store in stores))]
    for backend in dict.fromkeys(growth.outcome.backend for growth in growths):
        columns = [
            NAMES[backend],
            "small",
            "larger",
            "largest",
            "ratio",
            "least – most",
            "the driver's",
            "least – most",
        ]
        lines = [_row(columns), _row(["---", *["---:"] * (len(columns) - 1)])]
        for growth in growths:
            if growth.outcome.backend != backend:
                continue
            ours, raw = growth.lines(OURS), growth.lines(RAW)
            name = _titled(growth.outcome.work) + (": finds more" if growth.finds_more else "")
            ratios = [*_ratio(ours[-1].ratio), *(_ratio(raw[-1].ratio) if raw else ("", ""))]
            lines.append(_row([name, *(_time(line.seconds.middle) for line in ours), *ratios]))
        parts.append("\n".join(lines) + "\n")
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
