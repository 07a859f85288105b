"""What SQLite writes, recorded in order: a layer over its own VFS that notes each write, sync and truncation.

It is put in place by ctypes in the process that calls ``record``, for every connection that is opened afterwards.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

_POINTER, _INT, _INT64, _CHARS = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_char_p


class Step(NamedTuple):
    """Something that happened: ``write``, ``sync``, ``truncate`` or ``delete`` of a file, or a ``mark``."""

    kind: str
    name: str
    offset: int = 0
    """Where a write begins, the size that a file is truncated to, how many steps had been taken when a sync began, or
    the number of a mark."""
    content: bytes = b""


# The path stays a pointer: SQLite keeps it for as long as the file is open.
_XOPEN = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _POINTER, _INT, _POINTER)
_XDELETE = ctypes.CFUNCTYPE(_INT, _POINTER, _CHARS, _INT)
_XWRITE = ctypes.CFUNCTYPE(_INT, _POINTER, _POINTER, _INT, _INT64)
_XTRUNCATE = ctypes.CFUNCTYPE(_INT, _POINTER, _INT64)
_XSYNC = ctypes.CFUNCTYPE(_INT, _POINTER, _INT)


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, as far as it is looked into here."""

    _fields_ = (
        ("version", _INT),
        ("size_of_file", _INT),
        ("longest_path", _INT),
        ("next", _POINTER),
        ("name", _CHARS),
        ("data", _POINTER),
        ("open", _POINTER),
        ("delete", _POINTER),
        ("others", _POINTER * 14),
    )


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods``."""

    _fields_ = (
        ("version", _INT),
        ("close", _POINTER),
        ("read", _POINTER),
        ("write", _POINTER),
        ("truncate", _POINTER),
        ("sync", _POINTER),
        ("others", _POINTER * 13),
    )


class Recorder:
    """The steps so far, and what keeps the functions alive that SQLite calls."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._lock = threading.Lock()
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []
        self._methods: dict[int, _Methods] = {}

    def mark(self, number: int) -> None:
        """Note that a call has returned."""
        with self._lock:
            self.steps.append(Step("mark", "", number))

    def install(self) -> None:
        """Become the VFS of every connection that is opened from now on."""
        library = _library()
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = (_CHARS,)
        library.sqlite3_vfs_register.argtypes = (ctypes.POINTER(_Vfs), _INT)
        below = library.sqlite3_vfs_find(None)
        own = _Vfs.from_buffer_copy(below.contents)
        own.name = b"recorded"
        own.open = self._keep(_XOPEN, self._open(below, _XOPEN(below.contents.open)))
        own.delete = self._keep(_XDELETE, self._delete(below, _XDELETE(below.contents.delete)))
        self._kept.append(own)
        library.sqlite3_vfs_register(ctypes.byref(own), 1)

    def _keep(self, kind: Any, function: Callable[..., int]) -> int | None:
        callback = kind(function)
        self._kept.append(callback)
        return ctypes.cast(callback, _POINTER).value

    def _open(self, below: Any, original: Callable[..., int]) -> Callable[..., int]:
        def open_(_vfs: int, path: int | None, file: int, flags: int, out: int) -> int:
            code = original(ctypes.addressof(below.contents), path, file, flags, out)
            if code == 0 and path is not None:
                # A file begins with the pointer to its methods.
                methods = ctypes.cast(file, ctypes.POINTER(_POINTER))
                self._names[file] = ctypes.string_at(path).decode()
                methods[0] = ctypes.addressof(self._watched(methods[0]))
            return code

        return open_

    def _delete(self, below: Any, original: Callable[..., int]) -> Callable[..., int]:
        def delete(_vfs: int, path: bytes, sync: int) -> int:
            with self._lock:
                code = original(ctypes.addressof(below.contents), path, sync)
                if code == 0:
                    self.steps.append(Step("delete", path.decode(), sync))
            return code

        return delete

    def _watched(self, address: int) -> _Methods:
        """Return the methods at this address with those replaced that change a file."""
        found = self._methods.get(address)
        if found is not None:
            return found
        below = _Methods.from_address(address)
        found = _Methods.from_buffer_copy(below)
        write, truncate, sync = _XWRITE(below.write), _XTRUNCATE(below.truncate), _XSYNC(below.sync)

        def watched_write(file: int, content: int, size: int, offset: int) -> int:
            with self._lock:
                code: int = write(file, content, size, offset)
                if code == 0:
                    self.steps.append(Step("write", self._names[file], offset, ctypes.string_at(content, size)))
            return code

        def watched_truncate(file: int, size: int) -> int:
            with self._lock:
                code: int = truncate(file, size)
                if code == 0:
                    self.steps.append(Step("truncate", self._names[file], size))
            return code

        def watched_sync(file: int, flags: int) -> int:
            # Noted when it has come back: only then what was written before it began is on the disk.
            begun = len(self.steps)
            code: int = sync(file, flags)
            if code == 0:
                with self._lock:
                    self.steps.append(Step("sync", self._names[file], begun))
            return code

        found.write = self._keep(_XWRITE, watched_write)
        found.truncate = self._keep(_XTRUNCATE, watched_truncate)
        found.sync = self._keep(_XSYNC, watched_sync)
        self._methods[address] = found
        return found


def _library() -> ctypes.CDLL:
    # Whatever the module is linked with answers there, too.
    import _sqlite3

    return ctypes.CDLL(_sqlite3.__file__)


def can_record() -> bool:
    """Tell whether SQLite's own functions can be reached."""
    return hasattr(_library(), "sqlite3_vfs_register")


def record() -> Recorder:
    """Record from now on what SQLite does in this process."""
    recorder = Recorder()
    recorder.install()
    return recorder
