"""Messages that tools and drivers hand us."""

from __future__ import annotations

from agentos_store.types.text import UNSTORABLE, Text, plain_str


class ErrorText(Text):
    """Text that is repaired where Text refuses: U+0000 and lone surrogates become U+FFFD. Stored like Text.

    A message from a tool is evidence of a failure. To refuse it would lose the failure for the sake of one byte that
    nobody reads. A value that is no ``str``, or too long, is refused still.
    """

    cache_ok = True

    def check(self, value: object, name: str) -> str:
        """Return the text with U+FFFD for what neither database would hold."""
        text = plain_str(value, name)
        if "\0" in text or not text.isascii():
            text = UNSTORABLE.sub("\ufffd", text)
        self.check_length(text, name)
        return text
