"""One turn of an agent, one transaction: whoever dies at whatever moment leaves whole turns behind."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from agentos_store import Store
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.tool_call_states import ENDED
from tests.engine.gather import PROCESSES

KILLS = int(os.environ.get("AGENTOS_STORE_KILLS", "30"))


def ask(store: Store, session_id: str, agent_id: str, turn: int) -> None:
    """Store what the model wants: a question, the call of a tool, its record, a snapshot, and the agent's state."""
    with store.transaction() as tx:
        tx.messages.append(session_id, role="user", content=f"question {turn}", agent_id=agent_id, token_count=1)
        use = {"type": "tool_use", "id": f"call-{turn}", "name": "look", "input": {"turn": turn}}
        said = tx.messages.append(session_id, role="assistant", content=[use], agent_id=agent_id, token_count=1)
        tx.tool_calls.record(
            agent_id=agent_id,
            session_id=session_id,
            tool_call_id=f"call-{turn}",
            tool_name="look",
            message_id=said.id,
            input=use["input"],
            state="executing",
        )
        tx.snapshots.save(agent_id, f"turn-{turn}", last_sfp_index=said.seq)
        tx.agents.save(agent_id, state="busy", last_sfp_index=said.seq)


def answer(store: Store, session_id: str, agent_id: str, turn: int) -> None:
    """Store what the tool found."""
    with store.transaction() as tx:
        result = {"type": "tool_result", "tool_use_id": f"call-{turn}", "content": f"answer {turn}"}
        tx.messages.append(session_id, role="user", content=[result], agent_id=agent_id, token_count=1)
        tx.tool_calls.update_state(f"call-{turn}", "completed", agent_id=agent_id, output=turn)
        tx.agents.set_state(agent_id, "idle")


def take_turns(url: str, session_id: str, agent_id: str, first: int, told: Any) -> None:
    store = Store.open(url)
    turn = first
    while True:
        ask(store, session_id, agent_id, turn)
        told.send(("asked", turn))
        answer(store, session_id, agent_id, turn)
        told.send(("answered", turn))
        turn += 1


def heard(receiver: Any) -> list[tuple[str, int]]:
    """Return what was told before the end; the last word may be cut."""
    words = []
    try:
        while receiver.poll():
            words.append(receiver.recv())
    except (EOFError, OSError):
        pass
    return words


def block_of(row: Message) -> str:
    (block,) = row.content
    return f"{block['type']} {block.get('id') or block['tool_use_id']}"


def test_a_killed_agent_leaves_whole_turns(url: str) -> None:
    dice = random.Random()
    with Store.open(url) as store:
        session_id = store.sessions.create().id
        store.agents.save("a", session_id=session_id)
    acknowledged: list[tuple[str, int]] = []
    for kill in range(KILLS):
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(
            target=take_turns, args=(url, session_id, "a", kill * 1_000_000, sender), daemon=True
        )
        process.start()
        sender.close()
        # The clock of its short life runs from its first word.
        acknowledged.append(receiver.recv())
        time.sleep(dice.uniform(0.0, 0.05))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        acknowledged += heard(receiver)

    with Store.open(url) as store:
        rows = list(store.messages.iterate(session_id, limit=1000))
        asked = [row.content.removeprefix("question ") for row in rows if isinstance(row.content, str)]
        blocks = {block_of(row): row for row in rows if isinstance(row.content, list)}
        answered = [turn for turn in asked if f"tool_result call-{turn}" in blocks]
        # What was acknowledged is there, and each turn as a whole.
        assert {str(turn) for word, turn in acknowledged if word == "asked"} <= set(asked)
        assert {str(turn) for word, turn in acknowledged if word == "answered"} <= set(answered)
        assert len(rows) == 2 * len(asked) + len(answered)
        session = store.sessions.get(session_id)
        assert (session.message_count, session.total_tokens) == (len(rows), len(rows))
        for turn in asked:
            said = blocks[f"tool_use call-{turn}"]
            call = store.tool_calls.get(f"call-{turn}", agent_id="a")
            assert call.message_id == said.id
            assert call.state == ("completed" if turn in answered else "executing")
            assert store.snapshots.get("a", f"turn-{turn}").up_to_seq == said.seq
        assert store.snapshots.count("a") == len(asked)

        settled = store.tool_calls.settle_dangling("a")
        assert {call.tool_call_id for call in settled} == {f"call-{turn}" for turn in asked if turn not in answered}
        states = {call.state for call in store.tool_calls.iterate(agent_id="a", limit=1000)}
        assert states <= set(ENDED)
        store.agents.set_state("a", "idle")
        report = store.check_consistency()
        assert report.ok, report.findings
