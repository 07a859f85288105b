"""Exclusive locks on open files, by whatever the operating system has."""

from __future__ import annotations

try:
    import fcntl
except ImportError:  # pragma: no cover  Windows: written for it, not tested on it
    import portalocker  # type: ignore[import-not-found]

    def lock(descriptor: int) -> None:
        """Wait for the lock."""
        portalocker.lock(descriptor, portalocker.LockFlags.EXCLUSIVE)

    def try_lock(descriptor: int) -> bool:
        """Take the lock if it is free."""
        try:
            portalocker.lock(descriptor, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Free the lock."""
        portalocker.unlock(descriptor)

else:

    def lock(descriptor: int) -> None:
        """Wait for the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_EX)

    def try_lock(descriptor: int) -> bool:
        """Take the lock if it is free."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Free the lock."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
