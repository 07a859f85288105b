"""What the import of a directory did, agent by agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentos_store.importers.report import LISTED, Counts, ImportReport


@dataclass(slots=True)
class StoreReport(ImportReport):
    """What the import of a KODE directory did."""

    agents: dict[str, dict[str, Counts]] = field(default_factory=dict)
    """The counts of each agent by kind, of the first agents only; the sums are always complete."""
    agents_unlisted: int = 0
    """Agents beyond those."""

    def add(self, agent_id: str, counts: dict[str, Counts]) -> None:
        """Add an agent's counts to the sums, and list them."""
        for kind, each in counts.items():
            whole = self.of(kind)
            whole.read += each.read
            whole.imported += each.imported
            whole.repeated += each.repeated
            whole.repaired += each.repaired
            whole.set_aside += each.set_aside
            whole.merged += each.merged
        if len(self.agents) < LISTED:
            self.agents[agent_id] = counts
        else:
            self.agents_unlisted += 1
