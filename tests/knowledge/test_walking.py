"""A directory gives the files that somebody wrote: what Git would track, but for what is hidden or no text."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos_store.errors import InvalidValueError, NotFoundError, UnavailableError
from agentos_store.knowledge.walking import Selection, real_path, walk


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text", encoding="utf-8")


def found(root: Path, selection: Selection | None = None) -> list[str]:
    return [path.relative_to(real_path(root)).as_posix() for path in walk([root], selection).files]


def test_texts_are_found_and_what_programs_make_is_left_out(tmp_path: Path) -> None:
    wanted = ["a.md", "b.MARKDOWN", "c.txt", "d.rst", "docs/a.mdx", "docs/deep/e.text", "文档/天气.md"]
    make(tmp_path, *wanted, "code.py", "README", "image.png", "md", ".hidden.md", ".git/HEAD.txt", ".obsidian/a.md")
    make(tmp_path, "node_modules/p/README.md", "pkg/__pycache__/a.txt", "env/pyvenv.cfg", "env/lib/a.md")
    assert sorted(found(tmp_path)) == sorted(wanted)
    every = found(tmp_path, Selection(hidden=True))
    assert set(every) - set(wanted) == {
        *(".hidden.md", ".obsidian/a.md", "node_modules/p/README.md", "pkg/__pycache__/a.txt", "env/lib/a.md"),
    }


def test_a_path_that_is_named_is_meant_whatever_it_is_called(tmp_path: Path) -> None:
    make(tmp_path, "code.py", ".notes/a.md", "env/pyvenv.cfg", "env/a.md", "node_modules/a.md", ".gitignore")
    (tmp_path / ".gitignore").write_text("*\n")
    (tmp_path / ".git").mkdir()
    assert walk([tmp_path / "code.py"]).files == [real_path(tmp_path / "code.py")]
    for name in (".notes", "env", "node_modules"):
        assert found(tmp_path / name) == ["a.md"]


def test_a_file_that_is_reached_twice_is_found_once_and_by_its_real_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "notes/a.md")
    (tmp_path / "link").symlink_to("notes")
    monkeypatch.chdir(tmp_path / "notes")
    paths: list[str | Path] = [
        "a.md",
        ".",
        "..",
        tmp_path / "link",
        tmp_path / "link" / "a.md",
        "../notes/../link/a.md",
    ]
    assert walk(paths).files == [Path(os.path.realpath(tmp_path)) / "notes" / "a.md"]


def test_links_within_a_directory_are_counted_and_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "notes/a.md", "elsewhere/b.md")
    (tmp_path / "notes" / "circle").symlink_to(tmp_path / "notes")
    (tmp_path / "notes" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "notes" / "b.md").symlink_to(tmp_path / "elsewhere" / "b.md")
    (tmp_path / "notes" / "loop.md").symlink_to("loop.md")
    walked = walk([tmp_path / "notes"])
    assert [path.name for path in walked.files] == ["a.md"]
    assert walked.links == 4


def test_patterns_narrow_what_is_found(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.txt", "c.log", "docs/a.md", "docs/old/b.md", "old/c.md")
    assert found(tmp_path, Selection(include=["*.log", "*.txt"])) == ["b.txt", "c.log"]
    assert found(tmp_path, Selection(include=["/docs/**/*.md"])) == ["docs/a.md", "docs/old/b.md"]
    assert found(tmp_path, Selection(include=["docs/"])) == ["docs/a.md", "docs/old/b.md"]
    assert found(tmp_path, Selection(exclude=["old/", "b.*"])) == ["a.md", "docs/a.md"]
    assert found(tmp_path, Selection(include=["*.md"], exclude=["docs/*", "!docs/a.md"])) == [
        *("a.md", "docs/a.md", "old/c.md"),
    ]
    for selection in (Selection(include=["!"]), Selection(exclude=["ok", "\\"])):
        with pytest.raises(InvalidValueError, match="is no pattern"):
            walk([tmp_path], selection)


def test_ignore_files_count_from_the_root_of_the_repository_down(tmp_path: Path) -> None:
    make(
        tmp_path, "a.md", "repo/a.md", "repo/build/b.md", "repo/docs/a.md", "repo/docs/drafts/b.md", "repo/docs/keep.md"
    )
    (tmp_path / ".gitignore").write_text("*\n")
    (tmp_path / "repo" / ".git").mkdir()
    (tmp_path / "repo" / ".gitignore").write_bytes(
        b"\xef\xbb\xbfbuild/\r\n# comment\r\ndrafts\r\nkeep.md\r\n!\r\n\xff\xfe\r\n"
    )
    (tmp_path / "repo" / "docs" / ".gitignore").write_text("!keep.md\n")
    assert found(tmp_path / "repo") == ["a.md", "docs/a.md", "docs/keep.md"]
    assert found(tmp_path / "repo" / "docs") == ["a.md", "keep.md"]
    # It is ignored itself, and asked for all the same.
    assert found(tmp_path / "repo" / "build") == ["b.md"]
    assert len(found(tmp_path / "repo", Selection(ignore=False))) == 5
    # Here no repository is around it.
    (tmp_path / "repo" / ".git").rmdir()
    assert "keep.md" in found(tmp_path / "repo" / "docs")


PATTERNS = st.sampled_from(
    [
        *(
            "a",
            "b/",
            "/a",
            "*.md",
            "!*.md",
            "!a",
            "a/b",
            "a/*",
            "!a/b",
            "**/b",
            "a/**",
            "b/**/a.md",
            "*",
            "!*/",
            "?.md",
        ),
        *(
            "[ab]",
            "[!a]",
            "# no",
            "",
            "a.md ",
            "\\!a",
            "!b/a.md",
            "/*/",
            "!/b",
            "a/**/",
            "!a/**",
            "**",
            "/**",
            "**/",
            "a/**/b",
            "!b/**",
        ),
    ]
)
NAMES = st.sampled_from(["a.md", "b.md", "a/a.md", "a/b/a.md", "b/a.md", "b/b/b.md", "a/b/a/b.md", "b/a/a.md"])


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@settings(max_examples=40, deadline=None)
@given(
    names=st.sets(NAMES, min_size=1),
    rules=st.dictionaries(st.sampled_from([".", "a", "b", "a/b"]), st.lists(PATTERNS, max_size=4), max_size=3),
)
def test_what_is_ignored_is_what_git_ignores(names: set[str], rules: dict[str, list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root, *names)
        for name, lines in rules.items():
            (root / name).mkdir(parents=True, exist_ok=True)
            (root / name / ".gitignore").write_text("\n".join(lines) + "\n")
        (root / ".git").mkdir()
        alone = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        subprocess.run(["git", "init", "-q", folder], check=True, env=alone)
        listed = subprocess.run(
            ["git", "-C", folder, "ls-files", "--others", "--exclude-standard"],
            check=True,
            env=alone,
            capture_output=True,
            text=True,
        )
        assert sorted(found(root)) == [name for name in sorted(listed.stdout.split()) if name.endswith(".md")]


def test_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none"):
        walk([tmp_path, tmp_path / "none"])
    make(tmp_path, "a.md")
    with pytest.raises(NotFoundError):
        walk([tmp_path / "a.md" / "below"])
    with pytest.raises(UnavailableError, match="too long"):
        walk([tmp_path / ("x" * 300)])
    with pytest.raises(InvalidValueError, match="path"):
        walk([f"{tmp_path}/\0"])


def test_a_directory_that_is_closed_is_reported_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a.md", "closed/b.md", "open/c.md")
    plain = os.scandir

    def scandir(path: Path) -> object:
        # Nothing would be closed to root.
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    walked = walk([tmp_path])
    assert [path.name for path in walked.files] == ["a.md", "c.md"]
    assert walked.unreadable == [(real_path(tmp_path / "closed"), "cannot be read: Permission denied")]
