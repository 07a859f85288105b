"""The pages of an SQLite file as its bytes say, whether SQLite itself would open the file or not.

Nothing here trusts what it reads: lengths, offsets and page numbers are tried against the file before they are used,
so that overwritten pages are told apart and never lead anywhere. The file is only ever read. What is committed in the
log beside it lies on top of its pages, up to the first frame whose checksum is wrong, as SQLite would have it.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

TABLE_LEAF, TABLE_INNER, INDEX_LEAF, INDEX_INNER = 13, 5, 10, 2

MAGIC = b"SQLite format 3\0"
USUAL_SIZE = 4096

_LOG_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_LOG_HEADER, _FRAME_HEADER = 32, 24


class DamageError(Exception):
    """What was read cannot be what was written."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a tree."""

    number: int
    kind: int
    data: bytes
    cells: Sequence[int]
    """Where its cells begin."""
    right: int
    """The last child of an inner page."""
    missing: int = 0
    """Rows of a leaf of which it cannot be told where they are, or which do not stand in their order."""


class Pages:
    """A file, page by page."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self.notes: list[str] = []
        """What whoever reads the result should know."""
        head = self._file.read(100)
        self.has_header = head[:16] == MAGIC and _page_size(head) is not None
        self._log = _Log(Path(f"{path}-wal"))
        self.size = (_page_size(head) if self.has_header else None) or self._log.page_size or USUAL_SIZE
        first = self.read(1)[:100] if self._log.frames.get(1) else head
        self.has_header = first[:16] == MAGIC and _page_size(first) == self.size
        self.header = first
        reserved = first[20] if self.has_header and first[20] <= self.size - 480 else 0
        self.usable = self.size - reserved
        self._file.seek(0, 2)
        self.count = self._log.pages or -(-self._file.tell() // self.size)
        if self._log.ends_early:
            self.notes.append("the log is damaged, and what was committed behind that place was not read")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._file.close()
        self._log.close()

    def read(self, number: int) -> bytes:
        """Return the bytes of a page; what is missing of the last one is zero."""
        frame = self._log.frames.get(number)
        if frame is not None:
            return self._log.read(frame)
        try:
            self._file.seek((number - 1) * self.size)
            data = self._file.read(self.size)
        except OSError:
            # A bad place on the disk itself.
            data = b""
        return data.ljust(self.size, b"\0")

    def page(self, number: int) -> Page:
        """Return a page of a tree; DamageError when it is none."""
        if not 1 <= number <= self.count:
            raise DamageError
        data = self.read(number)
        start = 100 if number == 1 else 0
        kind = data[start]
        if kind not in {TABLE_LEAF, TABLE_INNER, INDEX_LEAF, INDEX_INNER}:
            raise DamageError
        is_inner = kind in {TABLE_INNER, INDEX_INNER}
        free, count, content, fragments = struct.unpack_from(">HHHB", data, start + 1)
        first = start + (12 if is_inner else 8)
        end = first + 2 * count
        if (
            end > self.usable
            or fragments > self.usable
            or free > self.usable
            or not end <= (content or 65536) <= self.usable
            or (is_inner and not count)
        ):
            raise DamageError
        written = struct.unpack_from(f">{count}H", data, first)
        cells = [cell for cell in dict.fromkeys(written) if end <= cell <= self.usable - 4]
        if kind == TABLE_LEAF:
            cells = self._in_order(data, cells)
        if len(cells) < count and (kind != TABLE_LEAF or len(cells) * 2 < count):
            raise DamageError
        right = struct.unpack_from(">I", data, start + 8)[0] if is_inner else 0
        return Page(number, kind, data, cells, right, count - len(cells))

    def _in_order(self, data: bytes, cells: Sequence[int]) -> list[int]:
        """Return the cells of a leaf but for those whose number is out of order: a wrong byte costs a row, not all."""
        numbered = []
        for cell in cells:
            with contextlib.suppress(DamageError):
                numbered.append((_number(data, cell), cell))
        kept: list[tuple[int, int]] = []
        for each, following in itertools.zip_longest(numbered, numbered[1:]):
            last = kept[-1][0] if kept else -(2**63) - 1
            # Where the next one fits and this one stands before it no more, this one is wrong.
            if last < each[0] and (following is None or each[0] < following[0] or following[0] <= last):
                kept.append(each)
        return [cell for _, cell in kept]

    def children(self, page: Page) -> Iterator[tuple[int, int | None]]:
        """Yield the children of an inner page, each with the key up to which it reaches; of an index without keys."""
        for cell in page.cells:
            child = struct.unpack_from(">I", page.data, cell)[0]
            yield child, varint(page.data, cell + 4)[0] if page.kind == TABLE_INNER else None
        yield page.right, None

    def rowid(self, page: Page, cell: int) -> int:
        """Return the number of the row in a cell of a table's leaf."""
        return _number(page.data, cell)

    def record(self, page: Page, cell: int) -> list[object]:
        """Return the values in a cell; DamageError when it cannot be what was written."""
        at = cell + 4 if page.kind == INDEX_INNER else cell
        length, at = varint(page.data, at)
        if page.kind == TABLE_LEAF:
            _, at = varint(page.data, at)
        return decode(self._payload(page, at, length))

    def _payload(self, page: Page, at: int, length: int) -> bytes:
        usable = self.usable
        least = (usable - 12) * 32 // 255 - 23
        most = usable - 35 if page.kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if length > self.count * self.size:
            raise DamageError
        if length <= most:
            if at + length > usable:
                raise DamageError
            return page.data[at : at + length]
        local = least + (length - least) % (usable - 4)
        if local > most:
            local = least
        if at + local + 4 > usable:
            raise DamageError
        parts = [page.data[at : at + local]]
        following = struct.unpack_from(">I", page.data, at + local)[0]
        left = length - local
        while left > 0:
            if not 2 <= following <= self.count:
                raise DamageError
            data = self.read(following)
            following = struct.unpack_from(">I", data)[0]
            parts.append(data[4 : 4 + min(left, usable - 4)])
            left -= usable - 4
        if following:
            # The chain goes on behind its end: one of its pages was overwritten.
            raise DamageError
        return b"".join(parts)

    def free_pages(self) -> tuple[set[int], bool]:
        """Return the pages that are in no use, and whether these are all."""
        if not self.has_header:
            return set(), False
        following, count = struct.unpack_from(">II", self.header, 32)
        free: set[int] = set()
        while following:
            if not 2 <= following <= self.count or following in free:
                return free, False
            free.add(following)
            data = self.read(following)
            following, leaves = struct.unpack_from(">II", data)
            if leaves > self.usable // 4 - 2:
                return free, False
            numbers = struct.unpack_from(f">{leaves}I", data, 8)
            if any(not 2 <= each <= self.count or each in free for each in numbers):
                return free, False
            free.update(numbers)
        return free, len(free) == count


class _Log:
    """The last committed frame of each page in a write-ahead log."""

    def __init__(self, path: Path) -> None:
        self.frames: dict[int, int] = {}
        self.pages = 0
        """How many pages the database has by the last commit; 0 when there is none in the log."""
        self.page_size: int | None = None
        self.ends_early = False
        self._file = None
        if not path.is_file():
            return
        self._file = path.open("rb")
        self._read()

    def _read(self) -> None:
        assert self._file is not None
        head = self._file.read(_LOG_HEADER)
        if len(head) < _LOG_HEADER:
            return
        magic, _, size = struct.unpack_from(">III", head)
        order = _LOG_MAGIC.get(magic)
        if order is None or size not in _SIZES:
            self.ends_early = any(head)
            return
        sums = _checksum(head[:24], order, (0, 0))
        if sums != struct.unpack_from(">II", head, 24):
            self.ends_early = True
            return
        self.page_size = size
        salt = head[16:24]
        pending: dict[int, int] = {}
        while True:
            at = self._file.tell()
            frame = self._file.read(_FRAME_HEADER + size)
            if len(frame) < _FRAME_HEADER + size or frame[8:16] != salt:
                # What lies there is left from an earlier round of the log, unless more of this round comes behind it.
                self.ends_early = self._goes_on(size, salt)
                return
            sums = _checksum(frame[:8], order, sums)
            sums = _checksum(frame[_FRAME_HEADER:], order, sums)
            if sums != struct.unpack_from(">II", frame, 16):
                self.ends_early = True
                return
            number, pages = struct.unpack_from(">II", frame)
            pending[number] = at + _FRAME_HEADER
            if pages:
                self.frames.update(pending)
                self.pages = pages
                pending.clear()

    def _goes_on(self, size: int, salt: bytes) -> bool:
        assert self._file is not None
        while frame := self._file.read(_FRAME_HEADER + size):
            if frame[8:16] == salt:
                return True
        return False

    def read(self, at: int) -> bytes:
        """Return the page in a frame."""
        assert self._file is not None
        assert self.page_size is not None
        self._file.seek(at)
        return self._file.read(self.page_size).ljust(self.page_size, b"\0")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for one, other in zip(words[::2], words[1::2], strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


_SIZES = {1 << power for power in range(9, 17)}


def _page_size(head: bytes) -> int | None:
    if len(head) < 100:
        return None
    size = int(struct.unpack_from(">H", head, 16)[0])
    size = 65536 if size == 1 else size
    return size if size in _SIZES else None


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    try:
        for end in range(at, at + 8):
            byte = data[end]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, end + 1
        return value << 8 | data[at + 8], at + 9
    except IndexError:
        raise DamageError from None


def _number(data: bytes, cell: int) -> int:
    _, at = varint(data, cell)
    return signed(varint(data, at)[0])


def signed(value: int) -> int:
    """Return 64 bits as the number that they are."""
    return value - (1 << 64) if value >> 63 else value


_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def decode(payload: bytes) -> list[object]:
    """Return the values of a record; DamageError when they do not fill it exactly, or a text is none."""
    end, at = varint(payload, 0)
    if not at <= end <= len(payload):
        raise DamageError
    kinds = []
    while at < end:
        kind, at = varint(payload, at)
        kinds.append(kind)
    if at != end:
        raise DamageError
    values: list[object] = []
    for kind in kinds:
        if kind >= 12:
            length = (kind - 12) >> 1
            found = payload[at : at + length]
            at += length
            try:
                values.append(found.decode() if kind & 1 else found)
            except UnicodeDecodeError:
                raise DamageError from None
        elif kind in _INTEGERS:
            length = _INTEGERS[kind]
            values.append(int.from_bytes(payload[at : at + length], "big", signed=True))
            at += length
        elif kind == 7:
            if at + 8 > len(payload):
                raise DamageError
            values.append(struct.unpack_from(">d", payload, at)[0])
            at += 8
        elif kind in {8, 9}:
            values.append(kind - 8)
        elif kind == 0:
            values.append(None)
        else:
            raise DamageError
        if at > len(payload):
            raise DamageError
    if at != len(payload):
        raise DamageError
    return values
