"""Retention: what is old, or more than is wanted, goes, in steps so short that writers hardly notice."""

from agentos_store.operations.retention.policies import Policy, Pruned, PruneReport
from agentos_store.operations.retention.run import STATES, prune

__all__ = ["STATES", "Policy", "PruneReport", "Pruned", "prune"]
