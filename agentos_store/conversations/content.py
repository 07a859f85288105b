"""What a message says: checked, written as the text that is stored, and described for the filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from agentos_store.engine.statement import check_size
from agentos_store.errors import InvalidValueError
from agentos_store.types import ExactText, dumps_exact

TEXT, TOOL_USE, TOOL_RESULT, REASONING, IMAGE, AUDIO, VIDEO, FILE, OTHER = (1 << place for place in range(9))

CONTENT_TYPES: Mapping[str, int] = {
    "text": TEXT,
    "tool_use": TOOL_USE,
    "tool_result": TOOL_RESULT,
    "reasoning": REASONING,
    "image": IMAGE,
    "audio": AUDIO,
    "video": VIDEO,
    "file": FILE,
    "other": OTHER,
}
"""The types that messages are found by, and the bit of each in ``content_types``."""

_TYPES_OF_BLOCKS: Mapping[str, int] = {
    **CONTENT_TYPES,
    # The same things by the names of the providers' interfaces.
    "input_text": TEXT,
    "output_text": TEXT,
    "refusal": TEXT,
    "thinking": REASONING,
    "redacted_thinking": REASONING,
    "image_url": IMAGE,
    "input_image": IMAGE,
    "input_audio": AUDIO,
    "document": FILE,
    "input_file": FILE,
}


def type_of_block(block: object) -> int | None:
    """Return the type of a block, as the bit of it; None for what is no block."""
    kind = block.get("type") if isinstance(block, dict) else None
    return _TYPES_OF_BLOCKS.get(kind, OTHER) if isinstance(kind, str) else None


LONGEST_NAME = 255
"""Characters of a tool's name that messages are found by."""

_KINDS = "must be a string, a list of blocks, or None"


class Content(NamedTuple):
    """The content of one message and the calls beside it."""

    text: ExactText
    """As it is stored."""
    tool_calls: ExactText | None
    types: int
    tool_names: list[str] | None


def read_content(role: object, content: object, tool_calls: object, max_payload: int) -> Content:
    """Check what a message says and describe it.

    Raises InvalidValueError with the path to what cannot be stored, PayloadTooLargeError for more bytes than the limit.
    """
    text = dumps_exact(content, "content")
    check_size(text, "content", max_payload)
    types, names = _describe(content)
    if role == "tool":
        types |= TOOL_RESULT
    if tool_calls is None and not names:
        return Content(ExactText(text), None, types, None)
    calls = None
    if tool_calls is not None:
        calls = dumps_exact(tool_calls, "tool_calls")
        check_size(calls, "tool_calls", max_payload)
        _describe_calls(tool_calls, names)
        types |= TOOL_USE if tool_calls else 0
    return Content(ExactText(text), None if calls is None else ExactText(calls), types, list(names) or None)


def _describe(content: object) -> tuple[int, dict[str, None]]:
    """Return the types of the blocks and the names of the tools that they call, each once."""
    if content is None:
        return 0, {}
    if isinstance(content, str):
        return TEXT, {}
    if not isinstance(content, list):
        raise InvalidValueError("content", _KINDS)
    types = 0
    names: dict[str, None] = {}
    for place, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str):
            raise InvalidValueError(f"content[{place}]", 'must be an object with a "type", such as "text"')
        found = _TYPES_OF_BLOCKS.get(kind, OTHER)
        types |= found
        if found == TOOL_USE:
            _add_name(block.get("name"), names)
    return types, names


def _describe_calls(tool_calls: object, names: dict[str, None]) -> None:
    if not isinstance(tool_calls, list):
        raise InvalidValueError("tool_calls", "must be a list")
    for place, call in enumerate(tool_calls):
        if not isinstance(call, dict):
            raise InvalidValueError(f"tool_calls[{place}]", "must be an object")
        function = call.get("function")
        # OpenAI's format has the name inside; chapter 14 has it beside.
        _add_name(function.get("name") if isinstance(function, dict) else call.get("name"), names)


def _add_name(name: object, names: dict[str, None]) -> None:
    # A name that is none, or that no filter could ask for, is left to the exact content.
    if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and "\0" not in name and _is_unicode(name):
        names[name] = None


def _is_unicode(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def calls_of(content: object, tool_calls: object) -> list[str]:
    """Return the identifiers of the calls that a message makes."""
    blocks = content if isinstance(content, list) else []
    found = [block.get("id") for block in blocks if block.get("type") == "tool_use"]
    calls = tool_calls if isinstance(tool_calls, list) else []
    found += [call.get("id") for call in calls]
    return [each for each in found if isinstance(each, str)]


def results_of(role: object, content: object, tool_call_id: str | None) -> list[str]:
    """Return the identifiers of the calls whose results a message holds."""
    blocks = content if isinstance(content, list) else []
    found = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
    if role == "tool":
        found.append(tool_call_id)
    return [each for each in found if isinstance(each, str)]
