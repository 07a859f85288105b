"""Text files are read as what they are, and what is no text is refused with its reason."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.knowledge.reading import LARGEST, chunk_file, read_text_file

TEXT = "# 天气\n\nÇa va — 今天天气很好。\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "note.md"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode(), "utf-8"),
        (codecs.BOM_UTF8 + TEXT.encode(), "utf-8-sig"),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), "utf-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16"),
        (codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"), "utf-32"),
        (codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"), "utf-32"),
    ],
)
def test_unicode_is_read_with_and_without_a_byte_order_mark(path: Path, data: bytes, encoding: str) -> None:
    path.write_bytes(data)
    # An encoding that is named is for what is not in Unicode.
    for named in (None, "latin-1"):
        file = read_text_file(path, encoding=named)
        assert (file.text, file.encoding) == (TEXT, encoding)
    (chunk,) = chunk_file(path)
    assert (chunk.heading, chunk.start_line, chunk.end_line) == ("天气", 1, 3)


def test_what_is_not_in_unicode_is_read_only_when_its_encoding_is_named(path: Path) -> None:
    path.write_bytes("今天天气很好。".encode("gb18030"))
    with pytest.raises(InvalidValueError, match=r"note\.md: is no UTF-8 from byte 0 on; .* named"):
        read_text_file(path)
    file = read_text_file(path, encoding="gb18030")
    assert (file.text, file.encoding) == ("今天天气很好。", "gb18030")
    with pytest.raises(InvalidValueError, match="neither UTF-8 nor ascii"):
        read_text_file(path, encoding="ascii")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        (b"text with \0 in it", "binary"),
        ("a\0".encode("utf-16"), "binary"),
        (codecs.BOM_UTF8 + b"\xff", "no utf-8-sig from byte 0"),
        (codecs.BOM_UTF16_LE + b"a", "no utf-16 from byte"),
        (codecs.BOM_UTF16_LE + b"\x00\xd8a\0", "no utf-16 from byte"),
        (b"abc\xe5\xa4", "no UTF-8 from byte 3 on"),
        (b"\xed\xa0\x80", "no UTF-8 from byte 0 on"),
    ],
)
def test_what_is_no_text_is_refused(path: Path, data: bytes, why: str) -> None:
    path.write_bytes(data)
    with pytest.raises(InvalidValueError, match=why):
        read_text_file(path)


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_text_file(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidValueError, match="no regular file"):
        read_text_file(tmp_path / "pipe")
    with pytest.raises(InvalidValueError, match=r"no regular file|cannot be read"):
        read_text_file(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InvalidValueError, match="cannot be read"):
        read_text_file(tmp_path / "loop")
    with pytest.raises(InvalidValueError, match="no path has"):
        read_text_file(tmp_path / "a\0")


def test_a_file_that_is_too_large_is_refused(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(InvalidValueError, match="16,777,217 bytes"):
        read_text_file(path)


@pytest.mark.parametrize("encoding", ["none", "rot13", "hex", "\0"])
def test_an_encoding_that_is_none_of_texts_is_refused(path: Path, encoding: str) -> None:
    path.write_text(TEXT)
    with pytest.raises(InvalidValueError, match="encoding"):
        read_text_file(path, encoding=encoding)


def _writes_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    left = times
    plain = os.fstat

    def fstat(handle: int) -> os.stat_result:
        nonlocal left
        found = plain(handle)
        if left:
            left -= 1
            with path.open("a", encoding="utf-8") as file:
                file.write("更多\n")
        return found

    monkeypatch.setattr(os, "fstat", fstat)


def test_a_file_that_changes_while_it_is_read_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(TEXT, encoding="utf-8")
    _writes_while_it_is_read(path, monkeypatch, times=3)
    assert read_text_file(path).text == TEXT + "更多\n" * 3 == path.read_text(encoding="utf-8")


def test_a_file_that_changes_each_time_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(TEXT, encoding="utf-8")
    _writes_while_it_is_read(path, monkeypatch, times=100)
    with pytest.raises(InvalidValueError, match="changed while it was read"):
        read_text_file(path)


def test_the_hash_is_another_one_when_the_chunks_may_be_others(tmp_path: Path) -> None:
    def hashed(name: str, data: bytes, encoding: str | None = None, max_tokens: int = 400) -> str:
        (tmp_path / name).write_bytes(data)
        return read_text_file(tmp_path / name, encoding=encoding).content_hash(max_tokens=max_tokens)

    data = b"caf\xe9"
    assert hashed("a.txt", data, "latin-1") == hashed("b.text", data, "latin-1")
    others = [
        hashed("a.txt", data, "cp1250"),
        hashed("a.md", data, "latin-1"),
        hashed("a.txt", data, "latin-1", 100),
        hashed("a.txt", data + b"\n", "latin-1"),
    ]
    assert len({hashed("a.txt", data, "latin-1"), *others}) == 5


def test_a_file_is_cut_as_what_its_name_says(tmp_path: Path) -> None:
    text = "# Title\n\ntext\n"
    for name, heading in (("a.MD", "Title"), ("a.mdx", "Title"), ("a.txt", None), ("README", None)):
        (tmp_path / name).write_text(text)
        assert [chunk.heading for chunk in chunk_file(tmp_path / name)] == [heading]
