"""Secrets in an agent's configuration, which KODE writes down in clear text."""

from __future__ import annotations

import re
from typing import Final

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.kode.json_files import SHALLOW, is_deeper
from agentos_store.types.json_text import on_empty_stack

REDACTED: Final = "[redacted]"

_NAMES: Final = re.compile(
    "(?:api_?keys?|access_?keys?|secret_?keys?|private_?keys?|tokens?|secrets?|passwords?|passwd|passphrase"
    "|credentials?|authorization|cookies?)$"
)
"""How names of secrets end, in small letters and with ``_`` for each ``-`` and blank: apiKey, x-api-key, clientSecret,
refresh_token, …"""

_VALUES: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|pk|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{12,}|(?:Bearer|Basic) \S+)"
)
"""What is a secret under any name, also within a text."""

_ASSIGNED: Final = re.compile(
    r"(?i)((?:api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|token|secret|password|passwd|passphrase)=)"
    r"[^&\s\"']+"
)
"""A secret that is named within a text: in a URL's query, in a command."""

_PATH: Final = 200
"""Characters of a path that are shown, from its end."""

_IN_URL: Final = re.compile(r"(?<=://)([^/?#@:\s]*):[^/?#@\s]+(?=@)")


def redact(value: JSON) -> tuple[JSON, list[str]]:
    """Return the value with ``[redacted]`` for each secret, and the paths at which there was one.

    It may be nested as deep as the store takes it.
    """
    found: list[str] = []
    if is_deeper(value, SHALLOW):
        return on_empty_stack(lambda whole: _redacted(whole, "", found, secret=False), value), found
    return _redacted(value, "", found, secret=False), found


def _redacted(value: JSON, path: str, found: list[str], *, secret: bool) -> JSON:
    # Loops rather than comprehensions, which would need a second frame of the stack for each level.
    if isinstance(value, dict):
        fields: dict[str, JSON] = {}
        for key, inner in value.items():
            below = f"{path}.{key}" if path else key
            fields[key] = _redacted(inner, below, found, secret=secret or _is_secret(key))
        return fields
    if isinstance(value, list):
        items: list[JSON] = []
        for index, inner in enumerate(value):
            items.append(_redacted(inner, f"{path}[{index}]", found, secret=secret))
        return items
    if not isinstance(value, str) or not value:
        return value
    clean = REDACTED if secret else _clean(value)
    if clean != value:
        found.append(path[-_PATH:])
    return clean


def _clean(text: str) -> str:
    text = _IN_URL.sub(rf"\1:{REDACTED}", text)
    return _ASSIGNED.sub(rf"\1{REDACTED}", _VALUES.sub(REDACTED, text))


def _is_secret(name: str) -> bool:
    return _NAMES.search(name.casefold().replace("-", "_").replace(" ", "_")) is not None
