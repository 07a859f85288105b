"""Keys that come from outside."""

from __future__ import annotations

import re

from agentos_store.errors import InvalidValueError
from agentos_store.types.text import Text

LONGEST = 255
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")


class Identifier(Text):
    """A key of 1 to 255 characters, such as ``parent/fork-1795240070871``; stored like Text.

    Control characters (U+0000 to U+001F and U+007F to U+009F) are refused: they do not show, so two keys that look
    alike would differ, and they break the lines of logs and command lines that keys end up in. An empty key is
    refused because nobody can tell it from a missing one; a longer one would not fit an index comfortably.
    """

    cache_ok = True

    def __init__(self) -> None:
        super().__init__(1, LONGEST)

    def check(self, value: object, name: str) -> str:
        """Return the key without a change."""
        # A text that can be printed holds no control character and no surrogate; most keys go no further.
        if type(value) is str and 0 < len(value) <= LONGEST and value.isprintable():
            return value
        text = super().check(value, name)
        found = CONTROL.search(text)
        if found:
            why = f"holds the control character U+{ord(found.group()):04X} at character {found.start()}"
            raise InvalidValueError(name, why)
        return text
