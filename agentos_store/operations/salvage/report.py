"""What was salvaged, and what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentos_store.operations.consistency import ConsistencyReport
from agentos_store.tasks.verification import Verification

EXAMPLES = 20


@dataclass(slots=True)
class SalvagedTable:
    """One table."""

    read: int = 0
    """Rows that could be read."""
    kept: int = 0
    """Rows that are in the new file."""
    lost: int | None = 0
    """Rows that are known to be gone; None where nothing tells how many they are."""
    lost_is_exact: bool = True
    """Whether more may be gone than that."""
    lost_keys: list[object] = field(default_factory=list)
    """Keys of the first 20 of them that an index still has."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Rows that could be read and cannot be kept, by the reason."""
    unlinked: dict[str, int] = field(default_factory=dict)
    """Rows that are kept without a row to which they referred, by the column that is NULL now."""

    def leave_out(self, why: str) -> None:
        """Count a row that is not kept."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


@dataclass(frozen=True, slots=True)
class SalvageReport:
    """What came of a damaged file."""

    path: str
    target: str
    size_bytes: int
    found_revision: str | None
    """Of the damaged file; None where it could not be read any more."""
    revision: str
    """Of the new file."""
    tables: Mapping[str, SalvagedTable]
    notes: Sequence[str]
    """What whoever reads the result should know."""
    left_out_path: str | None
    """Where the rows are that could be read and cannot be kept, as JSON lines; None when there is none."""
    repaired: ConsistencyReport
    """Counters and numbers that were put right after what was lost."""
    audits: Verification
    """The chains of audits as they are now: one that lost an entry says so for good."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is known to be gone and nothing was left out."""
        return not self.notes and all(
            each.lost == 0 and not each.left_out and not each.unlinked for each in self.tables.values()
        )
