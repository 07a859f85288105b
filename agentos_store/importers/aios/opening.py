"""What AIOS left behind, opened: its content tells which of the two it is, not its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from agentos_store.importers.aios.database import AiosDatabase
from agentos_store.importers.aios.event_log import EventLog
from agentos_store.importers.opening import check_file, unreadable

_DATABASE: Final = b"SQLite format 3\x00"


def open_aios(
    path: str | os.PathLike[str], *, keep_status: bool = False, keep_secrets: bool = False
) -> AiosDatabase | EventLog:
    """Open an ``aios.db`` or an ``events.jsonl`` for reading; the file stays as it is, and nothing appears beside it.

    With ``keep_status`` tasks that waited or ran come pending and running, else paused. Secrets in the statistics of
    agents are read as ``[redacted]`` unless they are to be kept. NotFoundError: there is no such file.
    InvalidValueError: it is neither, or damaged where all of it hangs on. UnavailableError: the system refuses the
    file, or somebody keeps writing to it.
    """
    file = Path(path)
    check_file(file)
    try:
        with file.open("rb") as opened:
            is_database = opened.read(len(_DATABASE)) == _DATABASE
    except OSError as error:
        raise unreadable(file, error) from None
    if is_database:
        return AiosDatabase(file, keep_status=keep_status, keep_secrets=keep_secrets)
    return EventLog(file)
