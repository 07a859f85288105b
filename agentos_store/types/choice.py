"""One of a few words."""

from __future__ import annotations

from typing import Any

from agentos_store.errors import InvalidValueError
from agentos_store.types.text import Text


class Choice(Text):
    """One of the given texts; stored like Text, so that a new word needs no new database type.

    Any other text is refused, and the error names the ones that are allowed: SQLite would take whatever comes.
    """

    cache_ok = True

    def __init__(self, *values: str) -> None:
        super().__init__()
        self.values = values
        """The allowed texts, in the order given."""
        self._normal = {value: value for value in values}

    @property
    def _static_cache_key(self) -> tuple[Any, ...]:
        # SQLAlchemy takes the key from the constructor's named parameters, and *values is none: without this, two
        # choices would share one compiled statement and with it the check of whichever came first.
        return (type(self), self.values)

    def check(self, value: object, name: str) -> str:
        """Return the word as a plain ``str``."""
        if isinstance(value, str):
            found = self._normal.get(value)
            if found is not None:
                return found
        super().check(value, name)
        raise InvalidValueError(name, f"is not one of {', '.join(self.values)}")
