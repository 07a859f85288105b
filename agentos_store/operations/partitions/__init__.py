"""Events divided by their positions, where the database can: an option for those who log many and keep few.

Old events then go by dropping a table, which costs the same however many they are. Partitions are made before they are
needed, and a default partition catches what comes behind them all, so that no writer ever meets a missing one.

All of it is done by catalogue changes under a lock that is waited for briefly, and asked for again: whoever wants a
table alone stops all that come after, too.
"""

from agentos_store.operations.partitions.desk import Partition
from agentos_store.operations.partitions.dividing import AHEAD, ROWS, PartitionReport, partition_events
from agentos_store.operations.partitions.upkeep import drop_old, keep_ahead

__all__ = ["AHEAD", "ROWS", "Partition", "PartitionReport", "drop_old", "keep_ahead", "partition_events"]
