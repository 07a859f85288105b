"""On which file systems an SQLite file is safe."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentos_store.engine.network_fs import network_filesystem

MOUNTINFO = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
31 22 0:28 / /dev/shm rw,nosuid,nodev shared:3 - tmpfs tmpfs rw
90 22 0:45 / /home rw,relatime shared:50 - nfs4 filer:/home rw,vers=4.2,addr=10.0.0.5
91 90 254:3 / /home/scratch rw,relatime shared:51 - xfs /dev/vdb rw
92 22 0:46 / /mnt/my\040share rw,relatime shared:52 - cifs //filer/share rw,vers=3.1.1
93 22 0:47 / /mnt/back\134slash rw,relatime - fuse.sshfs me@host:/ rw,user_id=1000
94 22 0:48 / /mnt/vm rw,relatime shared:53 - 9p hostshare rw,trans=virtio
95 22 0:49 / /mnt/auto rw,relatime shared:54 - autofs systemd-1 rw,fd=40
96 95 0:50 / /mnt/auto rw,relatime shared:55 master:3 propagate_from:2 - nfs filer:/auto rw
97 22 0:51 / /mnt/covered rw,relatime shared:56 - nfs filer:/old rw
98 97 254:4 / /mnt/covered rw,relatime shared:57 - ext4 /dev/vdc rw
99 22 0:52 / /mnt/共享 rw,relatime shared:58 - glusterfs gl:/vol rw
100 22 0:53 / /mnt/hash#dash rw,relatime - ceph 10.0.0.1:/ rw,name=a - b
""".lstrip()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/registry.sqlite", None),
        ("/home/me/registry.sqlite", "nfs4"),
        ("/home", "nfs4"),
        ("/homework/registry.sqlite", None),
        ("/home/scratch/registry.sqlite", None),
        ("/mnt/my share/not/there/yet/registry.sqlite", "cifs"),
        ("/mnt/back\\slash/x.db", "fuse.sshfs"),
        ("/mnt/vm/x.db", None),
        ("/mnt/auto/x.db", "nfs"),
        ("/mnt/covered/x.db", None),
        ("/mnt/共享/x.db", "glusterfs"),
        ("/mnt/hash#dash/x.db", "ceph"),
        ("/dev/shm/x.db", None),
    ],
)
def test_the_deepest_and_latest_mount_decides(path: str, kind: str | None) -> None:
    assert network_filesystem(Path(path), MOUNTINFO) == kind


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/home/me")
    assert network_filesystem(tmp_path / "link" / "x.db", MOUNTINFO) == "nfs4"


def test_a_relative_path_lies_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mountinfo = f"1 0 0:1 / / rw - ext4 /dev/vda rw\n2 1 0:2 / {tmp_path.resolve()} rw - lustre mds:/x rw\n"
    assert network_filesystem(Path("store/x.db"), mountinfo) == "lustre"


@pytest.mark.parametrize("line", ["", "garbage", "1 2 3 - nfs", "1 0 0:1 / / rw"])
def test_a_line_of_another_form_is_passed_over(line: str) -> None:
    assert network_filesystem(Path("/x.db"), line) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is mounted where")
def test_the_machine_itself_is_asked() -> None:
    assert network_filesystem(Path("/proc/self/x.db")) is None
