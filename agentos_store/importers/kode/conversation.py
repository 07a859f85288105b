"""Writing an agent's conversation, with what it was when snapshots of it were taken.

KODE's snapshot holds the messages themselves; ours says up to where in which generation of the conversation. So the
conversation is brought in as it went: first, in the order of their times, what those snapshots hold that are no
beginning of it any more, because it was compressed since; then what it is now. Each step is saved over the one before,
which closes what was replaced and keeps it for the snapshots.

The ledger remembers in what state an import left the conversation. One that went on in the store since then is never
written over.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import bindparam, func, literal, select, text, type_coerce
from sqlalchemy.dialects import postgresql

from agentos_store.conversations.content import read_content
from agentos_store.conversations.message_models import CURRENT, Message
from agentos_store.conversations.messages import MessageRepository
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, check_size
from agentos_store.errors import InvalidValueError
from agentos_store.housekeeping.models import ImportLedgerEntry
from agentos_store.importers.jsontext import JSON
from agentos_store.importers.kode.records import AgentRecord, MessageRecord, SnapshotRecord
from agentos_store.importers.kode.survey import MESSAGES, SNAPSHOTS
from agentos_store.importers.report import Note
from agentos_store.operation import Repository
from agentos_store.types import Text, dumps_exact

SOURCE: Final = "kode"
KIND: Final = "conversation"

_UNREAD: Final = "-"
"""In the ledger, for a conversation that could not be read: whatever can be read later is new."""

_STEP: Final = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the store's conversation a snapshot ends."""

    generation: int
    up_to_seq: int
    """-1 for one of no messages."""


@dataclass(slots=True)
class Told:
    """What became of a conversation."""

    imported: int = 0
    repeated: int = 0
    earlier: int = 0
    """Messages that came in for a snapshot's sake and are no part of the conversation any more."""
    set_aside: int = 0
    notes: list[Note] = field(default_factory=list)
    """Why."""
    places: dict[str, Place] = field(default_factory=dict)
    """By snapshot; those that cannot come in are missing."""


Said = tuple[str, str, dict[str, JSON]]
"""What makes a message this one: role, content as it is stored, metadata."""


class Writer:
    """Writes one agent's conversation, inside the transaction of its import."""

    def __init__(self, repository: Repository[Any], session: Session, record: AgentRecord) -> None:
        self._repository = repository
        self._session = session
        self._record = record
        # Drawn before anything is looked at, so that a further try, which may find something else, draws the same.
        self._time = session.now()
        # The conversation has its agent's name.
        self._session_id = record.agent_id
        self._binds = {"session_id": self._session_id, "agent_id": record.agent_id}
        self._told = Told()
        self._versions: dict[int, list[Said]] = {}
        """What the conversation was, by generation; of one that grew, as it ended."""
        self._known: dict[int, _Message] = {}
        """By the identity of the record."""
        self._added = 0
        self._wanted: list[_Message] = []
        """What the store's conversation is, where it is what the directory says."""

    def write(self, snapshots: Sequence[SnapshotRecord], *, is_new: bool) -> Told:
        """Bring in what is new of the conversation, and find the places of these snapshots, the oldest first.

        With ``is_new`` the store has nothing of it, whatever the ledger says: it may have been removed.
        """
        told, session = self._told, self._session
        state = session.first(_LOCK if session.capabilities.row_locks else _STATE, self._binds)
        found = None if is_new else session.first(_LEDGER, self._binds)
        left: list[str] | None = None if found is None else found[0].split(" ")
        record = self._record.messages
        wanted = None if record is None else self._accepted(record, MESSAGES, self._record.agent_id)
        digest = "" if wanted is None else _digest(wanted)
        is_changed = wanted is not None and (left is None or left[2] != digest)
        assert state is not None
        # One that went on in the store since it was imported is not written over.
        is_ours = left is None or left[:2] == [str(state[0]), str(state[1])]
        if wanted is not None and is_ours:
            self._wanted = wanted
        if not is_changed and not snapshots and left is not None:
            told.repeated = len(wanted or ())
            return told
        self._load(state[0])
        before = self._current_ids()
        may_write = wanted is not None and is_ours
        later: list[tuple[str, list[_Message]]] = []
        for snapshot in snapshots:
            messages = self._accepted(snapshot.messages, SNAPSHOTS, snapshot.file)
            said = [each.said for each in messages]
            place = self._place_of(said)
            if place is None and wanted is not None and [each.said for each in wanted[: len(said)]] == said:
                later.append((snapshot.snapshot_id, messages))
                continue
            if place is None and may_write:
                self._save(messages)
                place = self._place_of(said)
            self._note_place(snapshot.snapshot_id, place)
        if may_write and wanted is not None:
            self._save(wanted)
            self._remember(digest)
        for snapshot_id, messages in later:
            self._note_place(snapshot_id, self._place_of([each.said for each in messages]))
        if wanted is None:
            if left is None:
                self._remember(_UNREAD)
            return told
        if is_changed and not may_write:
            why = "it went on in the store since it was imported, and in the directory too; the store's is kept"
            told.notes.append(Note(MESSAGES, self._record.agent_id, why))
            told.set_aside += len(wanted)
            return told
        after = self._current_ids()
        told.imported = len(after.keys() - before.keys())
        told.repeated = len(wanted) - told.imported
        told.earlier = self._added - told.imported
        return told

    def ids(self) -> dict[int, str]:
        """Return the store's message for each place of the directory's list; none where the two went apart."""
        if not self._wanted:
            return {}
        keys = {seq: key for key, seq in self._current_ids().items()}
        return {each.position: keys[seq] for seq, each in enumerate(self._wanted)}

    def _note_place(self, snapshot_id: str, place: Place | None) -> None:
        if place is not None:
            self._told.places[snapshot_id] = place

    def _accepted(self, records: Sequence[MessageRecord], kind: str, where: str) -> list[_Message]:
        """Return the messages that the store takes; the others are noted."""
        limit = self._session.max_payload
        accepted: list[_Message] = []
        for record in records:
            # Snapshots share the records of the conversation.
            if (known := self._known.get(id(record))) is not None:
                accepted.append(known)
                continue
            try:
                content = read_content(record.role, record.content, None, limit)
                check_size(dumps_exact(record.metadata, "metadata"), "metadata", limit)
            except InvalidValueError as error:
                self._told.notes.append(Note(kind, f"{where} message {record.position}", str(error)))
                self._told.set_aside += kind == MESSAGES
                continue
            made = self._known[id(record)] = _Message(record, (record.role, str(content.text), record.metadata))
            accepted.append(made)
        return accepted

    def _load(self, generation: int) -> None:
        """Read what the store has of the conversation, all its generations."""
        rows = self._session.all(_ROWS, self._binds)
        for number in range(generation + 1):
            self._versions[number] = [
                (role, content, metadata)
                for start, end, role, content, metadata in rows
                if start <= number and (end is None or end > number)
            ]

    def _place_of(self, said: list[Said]) -> Place | None:
        """Return where in the conversation, as it is or as it was, these messages are its beginning."""
        for generation in sorted(self._versions, reverse=True):
            if self._versions[generation][: len(said)] == said:
                return Place(generation, len(said) - 1)
        return None

    def _save(self, messages: Sequence[_Message]) -> None:
        """Make the conversation consist of these messages."""
        said = [each.said for each in messages]
        generation, next_seq = self._now()
        if self._versions[generation] == said:
            return
        (rows,) = self._session.first(_COUNT, self._binds) or (0,)
        key, began = self._record.agent_id, self._record.created_at
        # KODE notes no times of messages: they keep their order by a microsecond each.
        given = [
            {
                "id": derived_id(key, generation, next_seq, seq),
                "role": each.record.role,
                "content": each.record.content,
                "metadata": each.record.metadata,
                "agent_id": key,
                "created_at": began + (rows + seq) * _STEP,
            }
            for seq, each in enumerate(messages)
        ]
        saved = MessageRepository.save(self._repository, self._session, self._session_id, given)
        self._versions[saved.generation] = said
        self._added += saved.added

    def _now(self) -> tuple[int, int]:
        found = self._session.first(_STATE, self._binds)
        assert found is not None
        generation, next_seq = found
        return generation, next_seq

    def _current_ids(self) -> dict[str, int]:
        return dict(self._session.all(_CURRENT, self._binds))

    def _remember(self, digest: str) -> None:
        generation, next_seq = self._now()
        row = {
            "source": SOURCE,
            "kind": KIND,
            "source_key": self._record.agent_id,
            "our_key": f"{generation} {next_seq} {digest}",
            "imported_at": self._time,
        }
        self._session.execute(_REMEMBER, row)


@dataclass(frozen=True, slots=True)
class _Message:
    record: MessageRecord
    said: Said

    @property
    def position(self) -> int:
        """Its place in the source's list."""
        return self.record.position


def imported_before(session: Session, agent_id: str) -> bool:
    """Tell whether an import has brought the agent's conversation into the store."""
    return session.first(_LEDGER, {"agent_id": agent_id}) is not None


def derived_id(*parts: object) -> str:
    """Return a key for these parts, the same one in every run of the import."""
    joined = "\0".join(map(str, parts))
    return f"kode-{blake2b(joined.encode(), digest_size=16).hexdigest()}"


def _digest(messages: Sequence[_Message]) -> str:
    whole = blake2b(digest_size=16)
    for each in messages:
        role, content, metadata = each.said
        for part in (role, content, json.dumps(metadata, sort_keys=True)):
            whole.update(f"{len(part)} {part}".encode())
    return whole.hexdigest()


_SESSIONS = Conversation.table()
_MESSAGES = Message.table()
_ENTRIES = ImportLedgerEntry.table()
_SESSION_ID = bindparam("session_id", type_=_SESSIONS.c.id.type)
_OF_SESSION = _MESSAGES.c.session_id == _SESSION_ID
_WHERE_IT_IS = select(_SESSIONS.c.generation, _SESSIONS.c.next_seq).where(_SESSIONS.c.id == _SESSION_ID)
_STATE: Statement[Any] = Statement(_WHERE_IT_IS)
_LOCK: Statement[Any] = Statement(_WHERE_IT_IS.with_for_update())
_CURRENT: Statement[Any] = Statement(
    select(_MESSAGES.c.id, _MESSAGES.c.seq).where(_OF_SESSION, text(f"{_MESSAGES.name}.{CURRENT}"))
)
_COUNT: Statement[Any] = Statement(select(func.count()).select_from(_MESSAGES).where(_OF_SESSION))
_ROWS: Statement[Any] = Statement(
    select(
        _MESSAGES.c.from_generation,
        _MESSAGES.c.to_generation,
        _MESSAGES.c.role,
        # Compared as it is stored, without being read.
        type_coerce(_MESSAGES.c.content, Text()),
        _MESSAGES.c.metadata,
    )
    .where(_OF_SESSION)
    .order_by(_MESSAGES.c.seq)
)
_LEDGER: Statement[Any] = Statement(
    select(_ENTRIES.c.our_key).where(
        _ENTRIES.c.source == literal(SOURCE, _ENTRIES.c.source.type),
        _ENTRIES.c.kind == literal(KIND, _ENTRIES.c.kind.type),
        _ENTRIES.c.source_key == bindparam("agent_id", type_=_ENTRIES.c.source_key.type),
    )
)


def _remember() -> Statement[Any]:
    values = {column.name: bindparam(column.name, type_=column.type) for column in _ENTRIES.c}
    statement = postgresql.insert(_ENTRIES).values(values)
    new = statement.excluded
    return Statement(
        statement.on_conflict_do_update(
            index_elements=[_ENTRIES.c.source, _ENTRIES.c.kind, _ENTRIES.c.source_key],
            set_={"our_key": new.our_key, "imported_at": new.imported_at},
        )
    )


_REMEMBER = _remember()
