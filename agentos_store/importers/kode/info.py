"""An agent's ``meta.json``."""

from __future__ import annotations

from typing import Final

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.kode.item import CONTROL, KEY_LENGTH, Findings, Item, with_rest
from agentos_store.importers.kode.json_files import is_deeper
from agentos_store.importers.kode.records import InfoRecord
from agentos_store.importers.kode.redaction import redact
from agentos_store.importers.problems import SetAside

_FIELDS: Final = frozenset(
    {
        "agentId",
        "templateId",
        "createdAt",
        "updatedAt",
        "lineage",
        "configVersion",
        "messageCount",
        "lastSfpIndex",
        "lastBookmark",
        "breakpoint",
        "metadata",
    }
)
"""What has a field of its own, is counted, or is the user's own metadata."""


def read_info(value: JSON, agent_id: str, findings: Findings, file: str, *, keep_secrets: bool) -> InfoRecord:
    """Make the record of a ``meta.json``; raise SetAside when it is no object."""
    if is_deeper(value):
        raise SetAside("it is nested too deep")
    if not keep_secrets:
        value, secrets = redact(value)
        for path in secrets:
            findings.repaired("agents", file, f"{path}: a secret, which was redacted")
    item = Item(value, findings, "agents", file)
    if item.value.get("agentId") not in (agent_id, None):
        item.repaired("agentId: it is another agent's, so the folder's name counts")
    held = item.object("metadata") or {}
    inner = Item(held, findings, "agents", file)
    own = held.get("metadata")
    rest: dict[str, JSON] = {name: each for name, each in held.items() if name not in _FIELDS}
    if own is not None and not isinstance(own, dict):
        item.repaired("metadata.metadata: it is no object; its value is kept")
        rest["metadata"] = own
    for name in item.value.keys() - _FIELDS:
        # KODE has no such fields today.
        rest.setdefault("info", {})
        holder = rest["info"]
        if isinstance(holder, dict):
            holder[name] = item.plain(name, item.value[name])
    return InfoRecord(
        template_id=_identifier(item, "templateId"),
        created_at=item.time("createdAt"),
        updated_at=inner.time("updatedAt"),
        lineage=item.texts("lineage"),
        config_version=item.text("configVersion"),
        last_sfp_index=item.count("lastSfpIndex", -1, -1),
        last_bookmark=item.object("lastBookmark"),
        breakpoint=item.text("breakpoint") or inner.text("breakpoint"),
        model=_model(inner),
        metadata=with_rest(dict(own) if isinstance(own, dict) else {}, rest),
    )


def _model(inner: Item) -> str | None:
    config = inner.value.get("modelConfig")
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, str) else None


def _identifier(item: Item, name: str) -> str | None:
    text = item.text(name, longest=KEY_LENGTH)
    if text and CONTROL.search(text):
        item.repaired(f"{name}: it has control characters, so it is left out")
        return None
    return text or None
