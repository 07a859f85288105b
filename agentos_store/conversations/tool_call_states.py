"""The life of a tool call: which state may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TRANSITIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # A hook may answer in the tool's place, so that a call can end without having been executed.
        "pending": ("approval_required", "approved", "executing", "completed", "failed", "denied", "sealed"),
        "approval_required": ("approved", "failed", "denied", "sealed"),
        # A decision stands: who wants to stop an approved call seals it. So of two that decide at once one is heard.
        "approved": ("executing", "failed", "sealed"),
        "executing": ("completed", "failed", "sealed"),
        "completed": (),
        "failed": (),
        "denied": (),
        "sealed": (),
    }
)
"""By state, the states that may follow."""

STATES = tuple(TRANSITIONS)
ENDED = tuple(state for state, following in TRANSITIONS.items() if not following)
OPEN = tuple(state for state, following in TRANSITIONS.items() if following)


def sources(target: str) -> tuple[str, ...]:
    """Return the states from which the target can be reached in one step."""
    return tuple(state for state, following in TRANSITIONS.items() if target in following)


def means_error(state: str) -> bool | None:
    """Tell what a state says about failure where nobody said anything: None while the call has not ended."""
    return state != "completed" if state in ENDED else None
