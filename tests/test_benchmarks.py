"""What the page of results claims follows from what was measured, and nothing that is missed goes unexplained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import writers
from benchmarks.command import CONTESTS, CROWDS, ON_SQLITE_ONLY
from benchmarks.growth.works import Growth
from benchmarks.measure import Line, Outcome, Spread
from benchmarks.report import Run, render
from benchmarks.targets import TARGETS, Limit, Result, Target, Verdict, judge

HERE = Path(__file__).parents[1] / "benchmarks"


def line(name: str, ratio: float, seconds: float = 0.001) -> Line:
    return Line(name, Spread((seconds,)), Spread((ratio,)), Spread((seconds,)), Spread((ratio,)))


def outcome(*lines: Line, baseline: str = "raw driver") -> Outcome:
    return Outcome("append one message", "sqlite", baseline, lines, 100, own_cpu=True)


def crowd(rate: float, ratio: float, p99: float, longest: float, errors: int) -> writers.Crowd:
    ours = writers.Line("agentos_store", Spread((rate,)), Spread((ratio,)), 0.001, p99, longest, errors)
    raw = writers.Line("raw driver", Spread((1000.0,)), Spread((1.0,)), 0.001, 0.3, 1.0, 0)
    return writers.Crowd("16 threads", "append messages", "messages", "sqlite", (ours, raw))


def judged(result: Result, *limits: Limit, contestants: tuple[str, ...] = ("agentos_store",)) -> Verdict:
    target = Target("Work", "work", {"sqlite": limits}, contestants)
    return judge(target, "sqlite", {("work", "sqlite"): result})


def test_a_ratio_is_ours_over_the_baseline_and_made_within_each_round() -> None:
    ratio = Spread((2.0, 9.0, 4.0)).over(Spread((1.0, 3.0, 4.0)))
    assert (ratio.rounds, ratio.middle, ratio.least, ratio.largest) == ((2.0, 3.0, 1.0), 2.0, 1.0, 3.0)


@pytest.mark.parametrize(("ratio", "met"), [(1.0, True), (1.4, True), (1.41, False)])
def test_a_time_is_met_up_to_its_limit(ratio: float, met: bool) -> None:
    verdict = judged(outcome(line("agentos_store", ratio), line("raw driver", 1.0)), Limit("times", 1.4))
    assert verdict.met is met
    assert verdict.baseline is not None
    assert verdict.baseline.name == "raw driver"


@pytest.mark.parametrize(("ratio", "met"), [(0.5, True), (1.25, True), (1.5, False)])
def test_a_share_of_the_rate_falls_as_the_time_grows(ratio: float, met: bool) -> None:
    assert judged(outcome(line("agentos_store", ratio)), Limit("share", 0.8)).met is met


@pytest.mark.parametrize(("seconds", "met"), [(0.0019, True), (0.0021, False)])
def test_a_time_in_seconds_is_that_of_the_median_operation(seconds: float, met: bool) -> None:
    assert judged(outcome(line("agentos_store", 9.0, seconds)), Limit("seconds", 0.002)).met is met


@pytest.mark.parametrize(
    ("result", "met"),
    [
        (crowd(10_000, 2.0, 0.010, 0.1, 0), True),
        (crowd(9_999, 2.0, 0.010, 0.1, 0), False),
        (crowd(10_000, 0.5, 0.010, 0.1, 0), False),
        (crowd(10_000, 2.0, 0.011, 0.1, 0), False),
        (crowd(10_000, 2.0, 0.010, 0.2, 0), False),
        (crowd(10_000, 2.0, 0.010, 0.1, 1), False),
    ],
)
def test_writers_meet_a_target_when_each_of_its_figures_is_good_enough(result: writers.Crowd, met: bool) -> None:
    limits = (Limit("rate", 10_000), Limit("p99", 0.01), Limit("longest", 0.1), Limit("errors", 0))
    assert judged(result, *limits, Limit("share", 0.6)).met is met


def test_the_worst_of_several_contestants_counts() -> None:
    result = outcome(line("a", 1.0), line("b", 1.2), baseline="none of them")
    assert judged(result, Limit("times", 1.1), contestants=("a",)).met
    both = judged(result, Limit("times", 1.1), contestants=("a", "b"))
    assert not both.met
    assert [found for _, found in both.found] == [1.2]
    shares = judged(result, Limit("share", 0.9), contestants=("a", "b"))
    assert [found for _, found in shares.found] == [pytest.approx(1 / 1.2)]


def test_what_was_not_measured_is_not_met() -> None:
    target = Target("Work", "work", {"sqlite": (Limit("times", 1.0),)})
    assert not judge(target, "sqlite", {}).met
    assert not judged(outcome(line("another", 1.0)), Limit("times", 9.0)).met


def test_the_page_counts_what_is_met_and_links_what_is_not() -> None:
    lines = (line("agentos_store", 1.39), line("raw driver", 1.0))
    run = Run(everything=True)
    run.results["append", "sqlite"] = outcome(*lines)
    run.results["append", "postgresql"] = outcome(*lines)
    text = render(run)
    assert "1 of 2 are met" in " ".join(text.split())
    assert "| Append one message | SQLite | ≤ 1.4 × raw driver | 1.39, 1 ms | raw driver: 1 ms | met |" in text
    assert "[**not met**](LIMITS.md#append-one-message) |" in text
    assert text.count("not measured |") == sum(len(target.limits) for target in TARGETS) - 2
    run.everything = False
    assert "not measured" not in render(run)


def test_the_growth_of_ours_and_the_drivers_stands_in_one_line() -> None:
    names = [f"{who}, {many} messages" for who in ("agentos_store", "raw driver") for many in ("10", "1,000")]
    lines = [line(name, ratio) for name, ratio in zip(names, (1.0, 1.5, 1.0, 1.2), strict=True)]
    growth = Growth(outcome(*lines, baseline=names[0]), "messages", (10, 1000))
    assert [each.ratio.middle for each in growth.lines("raw driver")] == [1.0, 1.2]
    text = render(Run(growths=[growth]))
    assert "| Append one message | 1 ms | 1 ms | 1.50 | 1.50 – 1.50 | 1.20 | 1.20 – 1.20 |" in text


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.title)
def test_every_target_is_one_that_a_run_of_everything_measures(target: Target) -> None:
    assert target.work in {**CONTESTS, **CROWDS}
    for backend, limits in target.limits.items():
        assert limits
        assert backend == "sqlite" or (backend == "postgresql" and target.work not in ON_SQLITE_ONLY)


def test_what_the_last_results_miss_is_explained() -> None:
    _, *parts = re.split(r"^## (.+)$", (HERE / "LIMITS.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    explained = {title for title, text in sections.items() if re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).strip()}
    linked = set(re.findall(r"\(LIMITS\.md#(.+?)\)", (HERE / "RESULTS.md").read_text(encoding="utf-8")))
    titles = {target.anchor: target.title for target in TARGETS}
    assert {titles[anchor] for anchor in linked} <= explained
    assert set(sections) <= {*titles.values(), "How a profile is taken", "What grows with the store"}
