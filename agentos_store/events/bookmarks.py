"""Bookmarks: where a subscriber goes on, as a text that it keeps wherever it likes."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from agentos_store.errors import InvalidValueError

FORM = 1
"""Of what a bookmark consists; another number means another form."""

LONGEST = 1024
"""Characters; what we make is much shorter."""

_GREATEST = 2**63 - 1


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in the order of events: behind everything that is not greater."""

    transaction: int
    position: int


START = Place(0, 0)


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What a bookmark says."""

    order_id: str
    """The order of events that it belongs to."""
    filters: str
    """The mark of the subscription's filters: others would have skipped what it counts as seen."""
    place: Place
    event: str | None
    """The mark of the event at this place; None where there was none."""

    def write(self) -> str:
        """Return the text. It tells nobody anything, and a slip in it shows."""
        place = self.place
        content = json.dumps(
            [FORM, self.order_id, self.filters, place.transaction, place.position, self.event], separators=(",", ":")
        ).encode()
        whole = zlib.crc32(content).to_bytes(4, "big") + content
        return base64.urlsafe_b64encode(whole).decode().rstrip("=")


def read_bookmark(text: object, filters: str) -> Bookmark:
    """Return what the text says.

    Raises InvalidValueError for what is no bookmark, and for one of a subscription with other filters.
    """
    found = _read(text)
    if found is None:
        raise InvalidValueError("bookmark", "is not a bookmark of a subscription")
    if found.filters != filters:
        raise InvalidValueError("bookmark", "belongs to a subscription with other filters; they must stay the same")
    return found


def mark_of_filters(filters: Mapping[str, object]) -> str:
    """Return what tells these filters from others."""
    given = sorted((name, value) for name, value in filters.items() if value is not None)
    return sha256(json.dumps(given).encode()).hexdigest()[:12]


def mark_of_event(event_id: str) -> str:
    """Return what tells an event from another one at its place."""
    return sha256(event_id.encode()).hexdigest()[:12]


def _read(text: object) -> Bookmark | None:
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
        return None
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        content = json.loads(whole[4:]) if zlib.crc32(whole[4:]).to_bytes(4, "big") == whole[:4] else None
    except (ValueError, binascii.Error, RecursionError):
        return None
    match content:
        case [form, str(order_id), str(filters), transaction, position, str() | None as event]:
            numbers = (form, transaction, position)
            if all(type(each) is int and 0 <= each <= _GREATEST for each in numbers) and form == FORM:
                return Bookmark(order_id, filters, Place(transaction, position), event)
    return None
