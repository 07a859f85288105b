"""Column types that let the same values through on SQLite and PostgreSQL and give them back equal.

One class in one file for each; every refusal is an InvalidValueError, raised before a database sees the value.
"""

from __future__ import annotations

from agentos_store.types.arguments import check_duration, check_whole
from agentos_store.types.boolean import Boolean
from agentos_store.types.choice import Choice
from agentos_store.types.error_text import ErrorText
from agentos_store.types.exact_json import ExactJSON, ExactText, dumps_exact, loads_exact, quick_text
from agentos_store.types.float32_vector import Float32Vector
from agentos_store.types.float64 import Float64
from agentos_store.types.gate import Gate
from agentos_store.types.identifier import Identifier
from agentos_store.types.int64 import Int64
from agentos_store.types.json_containment import json_contains
from agentos_store.types.json_value import JSONValue
from agentos_store.types.money import Money
from agentos_store.types.text import Text
from agentos_store.types.ulid import new_ulid, new_ulids
from agentos_store.types.utc_datetime import UTCDateTime, from_text, now, to_text

__all__ = [
    "Boolean",
    "Choice",
    "ErrorText",
    "ExactJSON",
    "ExactText",
    "Float32Vector",
    "Float64",
    "Gate",
    "Identifier",
    "Int64",
    "JSONValue",
    "Money",
    "Text",
    "UTCDateTime",
    "check_duration",
    "check_whole",
    "dumps_exact",
    "from_text",
    "json_contains",
    "loads_exact",
    "new_ulid",
    "new_ulids",
    "now",
    "quick_text",
    "to_text",
]
