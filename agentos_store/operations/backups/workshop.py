"""Where a file is made before it gets its name: a private folder beside that name, so on the same file system.

What is in it has no name that anybody would take for a finished file. A process that is killed leaves the folder; the
next one that makes a file of the same name finds that nobody holds its lock any more, and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from agentos_store.engine.network_fs import network_filesystem
from agentos_store.engine.sqlite.filelock import lock, try_lock
from agentos_store.errors import AlreadyExistsError, InvalidValueError, UnavailableError

Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""

_ENDING = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextlib.contextmanager
def workshop(target: Path) -> Iterator[Path]:
    """Yield a private folder for the making of a file; it is removed at the end, with all that is in it.

    Raises InvalidValueError where the file could not be used, UnavailableError where it cannot be made; errors of the
    disk that leave the block, a full one for instance, become UnavailableError too.
    """
    check_place(target)
    with typed_errors(target):
        _remove_leftovers(target)
        folder = target.with_name(f".{target.name}.{secrets.token_hex(6)}{_ENDING}")
        making = folder.with_suffix(".making")
        making.mkdir(mode=0o700)
        try:
            held = os.open(making / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                lock(held)
                # Only now: whoever finds a folder with this ending and a lock that nobody holds removes it.
                making.rename(folder)
                yield folder
            finally:
                os.close(held)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(making, ignore_errors=True)


def check_place(target: Path) -> None:
    """Raise InvalidValueError for a place where no database can be made."""
    if "\0" in str(target):
        raise InvalidValueError("path", "holds a NUL character")
    with typed_errors(target):
        kind = network_filesystem(target)
        if kind is not None:
            where = f"lies on a network file system ({kind}), where SQLite's locks do not hold"
            raise InvalidValueError("path", f"{target} {where}; name a local disk")
        if target.is_dir():
            raise InvalidValueError("path", f"{target} is a directory")
        if not target.parent.is_dir():
            raise InvalidValueError("path", f"there is no folder {target.parent}")


@contextlib.contextmanager
def typed_errors(target: Path) -> Iterator[None]:
    """Turn an error of the disk into the store's."""
    try:
        yield
    except OSError as error:
        why = "the disk is full" if error.errno in _FULL else error.strerror
        raise UnavailableError(f"{target}: {why}", code=errno.errorcode.get(error.errno or 0)) from None


def new_file(folder: Path, name: str) -> Path:
    """Make an empty file that only its owner may read: SQLite would let everybody."""
    path = folder / name
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    return path


def publish(made: Path, target: Path, *, replace: bool) -> None:
    """Give the file its name, at once and for good; AlreadyExistsError when another one has it and may not go."""
    sync(made)
    if replace:
        made.replace(target)
    else:
        try:
            # Unlike a rename it fails when somebody was faster.
            target.hardlink_to(made)
        except FileExistsError:
            raise AlreadyExistsError("file", str(target)) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if target.exists():
                raise AlreadyExistsError("file", str(target)) from None
            made.rename(target)
    sync_directory(target.parent)


def sync(path: Path) -> None:
    """Wait until the file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        if sys.platform == "darwin":
            import fcntl

            # fsync does not reach the disk there.
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """See that the names in a folder outlive a power cut, where a folder can be opened."""
    if os.name == "posix":
        # Some file systems, of other machines most of them, cannot.
        with contextlib.suppress(OSError):
            sync(path)


def _remove_leftovers(target: Path) -> None:
    """Remove the folders of those who were killed; not one that is just being made, which has another ending."""
    prefix = f".{target.name}."
    for folder in target.parent.iterdir():
        if not (folder.name.startswith(prefix) and folder.name.endswith(_ENDING)):
            continue
        try:
            held = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            # It has just been removed.
            continue
        try:
            if try_lock(held):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)
