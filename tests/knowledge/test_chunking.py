"""Texts become chunks: where they are cut, what stands above them, and which lines they are of."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos_store.errors import InvalidValueError, UsageError
from agentos_store.knowledge.chunking import LONGEST_HEADING, chunk_markdown, chunk_text
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.search.estimate import estimate_tokens

Cut = Callable[..., list[NewChunk]]

PIECES = [
    *(
        "# Eins\n",
        "## Zwei\n",
        "### 三\n",
        "Titel\n===\n",
        "Titel\n---\n",
        "#\n",
        "- item\n",
        "1. one\n",
        "> # quoted\n",
    ),
    *("```\n", "~~~\n", "# comment\n", "    # indented\n", "<!--\n", "-->\n", "| a | b |\n", "---\n", "...\n", "+++\n"),
    *(
        "word ",
        "数据库迁移",
        "天气很好。",
        "A sentence. ",
        "x" * 90,
        "图" * 40,
        "e\u0301",
        "👩‍👩‍👧",
        "*bold*",
        "`code`",
    ),
    *(
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        "  ",
        "\f",
        "\v",
        "\x1c",
        "\x85",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\x00",
        "\u3000",
    ),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=60).map("".join)


def headings(text: str) -> list[str | None]:
    return [chunk.heading for chunk in chunk_markdown(text)]


def lines_of(chunk: NewChunk) -> tuple[int | None, int | None]:
    return chunk.start_line, chunk.end_line


def without_space(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("cut", [chunk_markdown, chunk_text])
@given(text=TEXTS, max_tokens=st.integers(16, 100))
def test_the_lines_of_a_chunk_hold_it_and_all_chunks_together_hold_the_text(
    cut: Cut, text: str, max_tokens: int
) -> None:
    plain = text.lstrip("\ufeff").replace("\r\n", "\n")
    lines = plain.split("\n")
    chunks = cut(text, max_tokens=max_tokens)
    last = 1
    for chunk in chunks:
        assert chunk.start_line is not None
        assert chunk.end_line is not None
        assert last <= chunk.start_line <= chunk.end_line <= len(lines)
        assert chunk.content in "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        assert lines[chunk.end_line - 1].strip()
        assert chunk.content.strip()
        assert chunk.token_count == estimate_tokens(chunk.content) <= max_tokens
        last = chunk.end_line
    assert without_space("".join(chunk.content for chunk in chunks)) == without_space(plain)


@given(text=TEXTS)
def test_a_text_with_crlf_gives_the_chunks_of_the_text_with_lf(text: str) -> None:
    plain = text.replace("\r", "").lstrip("\ufeff")
    assert chunk_markdown("\ufeff" + plain.replace("\n", "\r\n")) == chunk_markdown(plain)


def test_a_chunk_has_the_headings_that_it_stands_under() -> None:
    text = "before\n# Guide\nintro\n## Install\nrun\n### On *Linux*, `apt`\nx\n## Use\ny\n\n"
    text += "Other\n=====\nz\n\nMore\nof it\n---\nw\n"
    assert headings(text) == [
        *(None, "Guide", "Guide > Install", "Guide > Install > On Linux, apt", "Guide > Use"),
        *("Other", "Other > More of it"),
    ]


def test_what_looks_like_a_heading_in_code_comments_quotes_and_front_matter_is_none() -> None:
    code = "# Real\n\n```sh\n# comment\n```\n\n    # indented\n\n<!--\n# hidden\n-->\n\n"
    code += "> # quoted\n\n- # of an item\n\n#no space\n"
    assert headings(code) == ["Real"]
    assert headings("---\ntitle: x\n# yaml comment\n---\n\ntext\n") == [None]
    assert headings("+++\ntitle = 'x'\n+++\n# Real\n") == [None, "Real"]
    # A line of dashes alone opens no front matter.
    assert headings("---\n\n# Real\n\n---\n") == [None, "Real"]
    assert headings("~~~\n# never closed\n") == [None]


def test_a_heading_without_text_goes_with_the_deeper_section_below_it_and_not_with_a_sibling() -> None:
    chunks = chunk_markdown("# Guide\n\n## Install\n\ntext\n\n## Empty\n\n## Use\n\ntext\n")
    assert [(chunk.heading, *lines_of(chunk)) for chunk in chunks] == [
        *(("Guide > Install", 1, 5), ("Guide > Empty", 7, 7), ("Guide > Use", 9, 11)),
    ]


def test_a_change_within_a_section_leaves_the_chunks_of_the_others_as_they_were() -> None:
    sections = [f"## Section {number}\n\n" + f"A sentence of {number}. " * 100 for number in range(5)]
    before = {(chunk.heading, chunk.content) for chunk in chunk_markdown("\n\n".join(sections))}
    sections[2] = sections[2].replace("sentence", "paragraph", 1)
    after = {(chunk.heading, chunk.content) for chunk in chunk_markdown("\n\n".join(sections))}
    assert {heading for heading, _ in before ^ after} == {"Section 2"}


def test_a_heading_is_kept_up_to_a_limit_and_one_without_words_leaves_no_gap() -> None:
    kept = ("long " * 100)[: LONGEST_HEADING - 1] + "…"
    assert set(headings("# " + "long " * 100_000 + "\ntext\n")) == {kept}
    assert headings("#\n\na\n\n## B\n\nb\n") == [None, "B"]
    assert headings("# [link](https://example.org) &amp; ![picture](x.png) \\* <b>x</b>\n") == ["link & picture * x"]


def test_only_line_feeds_end_lines() -> None:
    text = "one\ftwo\vthree\x1cfour\x85five\u2028six\u2029seven\reight\n\n" + "第二行。" * 200
    first, *rest = chunk_text(text, max_tokens=100)
    assert lines_of(first) == (1, 1)
    assert {lines_of(chunk) for chunk in rest} == {(3, 3)}
    assert [lines_of(chunk) for chunk in chunk_markdown("a\r# b\f\n# c\n")] == [(1, 1), (2, 2)]


def test_chinese_is_cut_at_sentences_and_sized_by_its_characters() -> None:
    chunks = chunk_text("先备份，再做数据库迁移。" * 200, max_tokens=100)
    assert len(chunks) == 25
    assert {chunk.token_count for chunk in chunks} == {96}
    assert all(chunk.content.endswith("。") for chunk in chunks)
    assert len(chunk_text("Back it up. " * 200, max_tokens=100)) == 7


def test_indentation_of_a_first_line_stays() -> None:
    assert chunk_text("\n\n    indented\n  less\n\n")[0].content == "    indented\n  less"


@pytest.mark.parametrize("text", ["", "\ufeff", "\n\n", " \t\r\n\f\u3000"])
@pytest.mark.parametrize("cut", [chunk_markdown, chunk_text])
def test_a_text_without_anything_to_read_has_no_chunks(cut: Cut, text: str) -> None:
    assert cut(text) == []


@pytest.mark.parametrize("cut", [chunk_markdown, chunk_text])
@pytest.mark.parametrize("piece", ["word ", "x", "数据库迁移，", "\n", "a\n", "`[*_", "# h\n\ntext\n\n", "> ", "```\n"])
def test_a_long_text_of_anything_is_cut(cut: Cut, piece: str) -> None:
    text = piece * (100_000 // len(piece))
    assert without_space("".join(chunk.content for chunk in cut(text))) == without_space(text)


@pytest.mark.parametrize("max_tokens", [0, 15, 100_001, 1.5, True, None])
def test_a_size_that_makes_no_sense_is_refused(max_tokens: object) -> None:
    with pytest.raises(InvalidValueError, match="max_tokens"):
        chunk_text("text", max_tokens=max_tokens)  # type: ignore[arg-type]


def test_what_is_no_text_is_refused() -> None:
    for cut in (chunk_markdown, chunk_text):
        with pytest.raises(InvalidValueError, match="text: has half a surrogate pair at character 3"):
            cut("天气 \ud83d")
        with pytest.raises(InvalidValueError, match="text: is no text"):
            cut(b"bytes")  # type: ignore[arg-type]


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    for cut in (chunk_markdown, chunk_text):
        with pytest.raises(UsageError, match=r"pip install 'agentos-store\[kb\]'"):
            cut("text")
