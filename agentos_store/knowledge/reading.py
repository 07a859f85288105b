"""Reading text files, without guessing: what is no text is refused, and so is what could be one of several.

A file in an encoding from before Unicode looks like any other such file: GB18030 reads most of what is Latin-1, as
other characters. So they are read only when their encoding is named.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.knowledge.chunking import MAX_TOKENS, VERSION, chunk_markdown, chunk_text
from agentos_store.knowledge.chunks import NewChunk

MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx"})
PLAIN = frozenset({".txt", ".text", ".rst", ".adoc", ".asciidoc", ".org"})

LARGEST = 16 * 1024**2
"""Bytes of a file that is read; a larger one is data, not something to read."""

TRIES = 3
"""How often a file is read that changes meanwhile."""

# The marks of UTF-32 begin with those of UTF-16.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class TextFile:
    """What stood in a file at one moment."""

    path: Path
    text: str
    encoding: str
    """What it was read as: ``utf-8``, ``utf-8-sig``, ``utf-16``, ``utf-32``, or the encoding that was named."""
    data_hash: str
    """SHA-256 of its bytes."""

    def content_hash(self, *, max_tokens: int = MAX_TOKENS) -> str:
        """Return the SHA-256 by which it is seen that its chunks may be others: of its bytes and of how it is cut."""
        rules = f"{VERSION}:{max_tokens}:{self._is_markdown:d}:{self.encoding}:{self.data_hash}"
        return hashlib.sha256(rules.encode()).hexdigest()

    def chunks(self, *, max_tokens: int = MAX_TOKENS) -> list[NewChunk]:
        """Return its chunks; Markdown is known by the file's name, anything else is plain text."""
        cut = chunk_markdown if self._is_markdown else chunk_text
        return cut(self.text, max_tokens=max_tokens)

    @property
    def _is_markdown(self) -> bool:
        return self.path.suffix.lower() in MARKDOWN


def chunk_file(
    path: str | os.PathLike[str], *, max_tokens: int = MAX_TOKENS, encoding: str | None = None
) -> list[NewChunk]:
    """Return the chunks of a text file, cut as what its name says; see ``read_text_file``."""
    return read_text_file(Path(path), encoding=encoding).chunks(max_tokens=max_tokens)


def read_text_file(path: Path, *, encoding: str | None = None) -> TextFile:
    """Return what stands in a text file: UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    What is none of these is read in the encoding that is named, if one is. Raises NotFoundError, and InvalidValueError
    for what is no file, is binary, too large, in another encoding, may not be read, or changes as often as it is read.
    """
    check_encoding(encoding)
    try:
        data = _read(path)
    except FileNotFoundError:
        raise NotFoundError("file", str(path)) from None
    except OSError as error:
        raise InvalidValueError(str(path), f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, InvalidValueError):
            raise
        raise InvalidValueError("path", "has a character that no path has") from None
    text, found = _decode(path, data, encoding)
    return TextFile(path, text, found, hashlib.sha256(data).hexdigest())


def check_encoding(encoding: str | None) -> None:
    """Refuse an encoding that is not known, or is none of texts."""
    if encoding is None:
        return
    try:
        # Python knows others that make no text of bytes.
        known = isinstance(b"a".decode(encoding), str)
    except (LookupError, ValueError):
        known = False
    if not known:
        raise InvalidValueError("encoding", "is not known; there are gb18030, big5, shift_jis, latin-1 and more")


def _read(path: Path) -> bytes:
    # A pipe would be waited for.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        for _ in range(TRIES):
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                raise InvalidValueError(str(path), "is no regular file")
            if before.st_size > LARGEST:
                raise InvalidValueError(str(path), f"has {before.st_size:,} bytes; at most {LARGEST:,} are read")
            file.seek(0)
            # One more than there should be, to see whether there is more.
            data = file.read(before.st_size + 1)
            after = os.fstat(handle)
            if len(data) == before.st_size and _version(before) == _version(after):
                return data
    raise InvalidValueError(str(path), "changed while it was read, each time")


def _version(found: os.stat_result) -> tuple[int, int]:
    return found.st_size, found.st_mtime_ns


def _decode(path: Path, data: bytes, encoding: str | None) -> tuple[str, str]:
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    try:
        text, found = data.decode(marked or "utf-8"), marked or "utf-8"
    except UnicodeDecodeError as error:
        if marked is not None:
            raise InvalidValueError(str(path), f"is broken: no {marked} from byte {error.start:,} on") from None
        if b"\0" in data:
            raise InvalidValueError(str(path), "is binary") from None
        if encoding is None:
            raise InvalidValueError(
                str(path), f"is no UTF-8 from byte {error.start:,} on; it is read when its encoding is named"
            ) from None
        try:
            text, found = data.decode(encoding), encoding
        except UnicodeError:
            raise InvalidValueError(str(path), f"is neither UTF-8 nor {encoding}") from None
    if "\0" in text:
        raise InvalidValueError(str(path), "is binary")
    return text, found
