"""What became of an agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentos_store.importers.kode.events import KIND as EVENTS
from agentos_store.importers.kode.records import AgentRecord
from agentos_store.importers.kode.survey import AGENTS, CALLS, DOCUMENTS, MESSAGES, SNAPSHOTS
from agentos_store.importers.report import Counts, Note
from agentos_store.importers.writing import Outcome


@dataclass(slots=True)
class Written:
    """What became of an agent."""

    counts: dict[str, Counts] = field(default_factory=dict)
    """By kind: what was imported, was there, or was set aside here."""
    changed: list[Note] = field(default_factory=list)
    refused: list[Note] = field(default_factory=list)
    is_in: bool = True
    """Whether the agent is in the store, so that its events may follow."""

    def of(self, kind: str) -> Counts:
        """Return the counts of a kind, to be added to."""
        return self.counts.setdefault(kind, Counts())

    def add(self, kind: str, outcome: Outcome, number: int) -> None:
        """Count what became of so many rows."""
        counts = self.of(kind)
        counts.imported += outcome.imported
        counts.set_aside += len(outcome.refused)
        counts.repeated += number - outcome.imported - len(outcome.refused)
        self.refused += outcome.refused.values()


def all_set_aside(record: AgentRecord, why: str) -> Written:
    """Tell that nothing of an agent came in."""
    written = Written(refused=[Note(AGENTS, record.agent_id, why)], is_in=False)
    for kind, number in numbers_of(record).items():
        written.of(kind).set_aside = number
    return written


def numbers_of(record: AgentRecord) -> dict[str, int]:
    """Return how much an agent has of each kind."""
    numbers = {
        AGENTS: 1,
        MESSAGES: len(record.messages or ()),
        CALLS: len(record.calls or ()),
        SNAPSHOTS: len(record.snapshots),
        EVENTS: sum(channel.distinct for channel in record.events.values()),
    }
    for kind, called in DOCUMENTS.items():
        numbers[called] = sum(each.kind == kind for each in record.documents)
    return {kind: number for kind, number in numbers.items() if number}
