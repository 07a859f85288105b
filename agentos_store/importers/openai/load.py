"""Bringing transcripts into a store, one by one, so that a run that is killed is simply repeated."""

from __future__ import annotations

import os

from agentos_store.errors import ConflictError, InvalidValueError
from agentos_store.importers.openai.loader import Loader
from agentos_store.importers.openai.reading import TranscriptFile, open_transcripts
from agentos_store.importers.openai.records import LostTranscript, Transcript
from agentos_store.importers.problems import Repair
from agentos_store.importers.report import ImportReport, Note, Progress
from agentos_store.importers.run import counted
from agentos_store.operation import Blocking
from agentos_store.store.blocking import Store

KINDS = ("sessions", "messages", "tool_calls", "tasks")


def import_transcripts(
    store: Store, path: str | os.PathLike[str], *, key: str | None = None, progress: Progress | None = None
) -> ImportReport:
    """Import conversations in OpenAI's format from a file of JSON or of JSON lines, compressed or not.

    Each becomes a session with its messages and its tool calls, and with a task where its record has a reward; it
    comes in whole or is set aside with its reason. A transcript is known by its content, so a second run changes
    nothing, and a run that was killed is repeated. ``key`` names the key of the records that the messages are under,
    where it is not ``messages`` and more than one could be. Raises what ``open_transcripts`` raises, and ConflictError
    when the file was written to meanwhile.
    """
    with open_transcripts(path, key=key) as file:
        return load_transcripts(store, file, str(path), progress=progress)


def load_transcripts(
    store: Store, file: TranscriptFile, source: str, *, progress: Progress | None = None
) -> ImportReport:
    """Import from a file that is open already; ``source`` is what the report calls it."""
    report = ImportReport(source, file.layout, "")
    for kind in KINDS:
        report.of(kind)
    loader = store.bind(Loader[Blocking])
    for number, item in enumerate(file.transcripts(), start=1):
        if isinstance(item, LostTranscript):
            _set_aside(report, item.place, item.reason, messages=item.messages)
        else:
            _load(loader, report, item)
        if progress is not None:
            progress("sessions", number, max(number, round(number / (file.share or 1.0))))
    if file.changed:
        raise ConflictError("file", source, "it was written to during the import; run the import again")
    if report.imported:
        loader.remember(counted(report))
    return report


def _load(loader: Loader[Blocking], report: ImportReport, transcript: Transcript) -> None:
    try:
        added = loader.transcript(transcript)
    except InvalidValueError as error:
        messages, calls = len(transcript.messages), len(transcript.calls)
        tasks = int(transcript.task is not None)
        _set_aside(report, transcript.place, str(error), messages=messages, calls=calls, tasks=tasks)
        return
    parts: dict[str, list[tuple[Repair, ...]]] = {
        "sessions": [transcript.repairs],
        "messages": [message.repairs for message in transcript.messages],
        "tool_calls": [call.repairs for call in transcript.calls],
        "tasks": [()] if transcript.task is not None else [],
    }
    for kind, repairs in parts.items():
        counts = report.of(kind)
        counts.read += len(repairs)
        if added:
            counts.imported += len(repairs)
        else:
            counts.repeated += len(repairs)
        for each in repairs:
            counts.repaired += bool(each)
            for repair in each:
                report.repair(Note(repair.table, repair.key, repair.what))


def _set_aside(
    report: ImportReport, place: str, reason: str, *, messages: int = 0, calls: int = 0, tasks: int = 0
) -> None:
    report.aside(Note("sessions", place, reason))
    for kind, number in zip(KINDS, (1, messages, calls, tasks), strict=True):
        counts = report.of(kind)
        counts.read += number
        counts.set_aside += number
