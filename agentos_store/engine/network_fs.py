"""File systems where SQLite's locks and shared memory do not hold, because other machines see the file too."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

NETWORK_TYPES = frozenset(
    {
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.afp",
        "fuse.beegfs",
        "fuse.blobfuse",
        "fuse.blobfuse2",
        "fuse.ceph",
        "fuse.cephfs",
        "fuse.curlftpfs",
        "fuse.davfs",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.juicefs",
        "fuse.mfs",
        "fuse.moosefs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.smbnetfs",
        "fuse.sshfs",
        "fuse.webdavfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncp",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
    }
)
"""Types as the kernel names them. 9p and virtiofs are not among them: they join a virtual machine to its own host."""

MOUNTINFO = Path("/proc/self/mountinfo")

_ESCAPE = re.compile(r"\\([0-7]{3})")


def network_filesystem(path: Path, mountinfo: str | None = None) -> str | None:
    """Return the type of the network file system that the path lies on or would lie on; None when it is a local one.

    Symbolic links are followed; a path that does not exist yet lies where its nearest existing parent lies. Only
    Linux tells what is mounted where (``/proc/self/mountinfo``, or the text that is given); elsewhere, macOS included,
    the answer is always None.
    """
    if mountinfo is None:
        try:
            # A mount point may hold any bytes.
            mountinfo = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    real = PurePosixPath(os.path.realpath(path))
    deepest, kind = -1, None
    # "\n" alone ends a line: a mount point may contain the other characters at which splitlines() splits.
    for line in mountinfo.split("\n"):
        mounted = _mount(line)
        # Of two mounts on one point the later covers the earlier.
        if mounted is not None and real.is_relative_to(mounted[0]) and len(mounted[0].parts) >= deepest:
            deepest, kind = len(mounted[0].parts), mounted[1]
    return kind if kind in NETWORK_TYPES else None


def _mount(line: str) -> tuple[PurePosixPath, str] | None:
    """Return the mount point and the type of one line: ``36 35 98:0 / /mnt rw shared:1 - nfs4 host:/x rw``."""
    before, separator, after = line.partition(" - ")
    fields = before.split(" ")
    if not separator or len(fields) < 6:
        return None
    return PurePosixPath(_ESCAPE.sub(_decode, fields[4])), after.split(" ")[0]


def _decode(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 8))
