"""Forgetting: a person or an agent is erased everywhere, in steps so short that writers hardly notice."""

from agentos_store.operations.forgetting.report import Erased, ForgetReport
from agentos_store.operations.forgetting.run import forget

__all__ = ["Erased", "ForgetReport", "forget"]
