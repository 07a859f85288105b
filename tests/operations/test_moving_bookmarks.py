"""Who follows the events goes on in a copy where it stood in the source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import StaleBookmarkError, Store
from agentos_store.operations.moving.copying import copy_store
from tests.standing import owners_work

pytestmark = [pytest.mark.usefixtures("own_transactions_only"), owners_work]


def following(store: Store, bookmark: str | None = None) -> list[tuple[str, str]]:
    """Return the events that come, each with the bookmark behind it."""
    found = []
    for event in store.events.subscribe(bookmark, from_start=bookmark is None, timeout=0):
        assert event.bookmark is not None
        found.append((event.event_id, event.bookmark))
    return found


def names(found: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in found]


def log(store: Any, *keys: str) -> None:
    for key in keys:
        store.events.log("x", event_id=key)


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[str], str]:
    def copy(url: str) -> str:
        target = f"sqlite:///{tmp_path}/copy-{len(list(tmp_path.glob('copy-*.sqlite')))}.sqlite"
        copy_store(url, target)
        return target

    return copy


def test_every_bookmark_of_the_source_goes_on_in_the_copy(store: Store, url: str, copied: Callable[[str], str]) -> None:
    log(store, "a", "b", "c")
    before = following(store)
    store.close()
    with Store.open(copied(url)) as copy:
        log(copy, "d")
        for place, (_, bookmark) in enumerate(before, 1):
            assert names(following(copy, bookmark)) == ["a", "b", "c", "d"][place:]
        after = following(copy)
        assert names(after) == ["a", "b", "c", "d"]
        assert names(following(copy, after[1][1])) == ["c", "d"]
        assert names(following(copy, after[3][1])) == []


@pytest.mark.parametrize("backend", ["postgresql"])
def test_what_was_written_side_by_side_is_never_left_out(store: Store, url: str, copied: Callable[[str], str]) -> None:
    log(store, "first")
    with store.transaction() as slow:
        log(slow, "slow 1")
        log(store, "fast 1")
        log(slow, "slow 2")
        log(store, "fast 2")
    log(store, "last")
    before = following(store)
    assert names(before) == ["first", "slow 1", "slow 2", "fast 1", "fast 2", "last"]
    store.close()
    one = copied(url)
    two = copied(one)
    for place, (_, bookmark) in enumerate(before, 1):
        unseen = set(names(before)[place:])
        for target in (one, two):
            with Store.open(target) as copy:
                rest = names(following(copy, bookmark))
                assert unseen <= set(rest)
                # Only what was written side by side comes twice.
                assert set(rest) - unseen <= {"slow 2", "fast 1"}
                assert len(rest) == len(set(rest))


def test_events_that_nobody_had_followed_are_followed_in_the_copy(
    store: Store, url: str, copied: Callable[[str], str]
) -> None:
    log(store, "a", "b")
    store.close()
    with Store.open(copied(url)) as copy:
        log(copy, "c")
        for place, (_, bookmark) in enumerate(following(copy), 1):
            assert names(following(copy, bookmark)) == ["a", "b", "c"][place:]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_copy_of_a_copy_on_the_same_server_goes_on_too(store: Store, url: str) -> None:
    log(store, "a", "b")
    first = following(store)
    store.close()
    copy_store(url, url, target_schema="second")
    with Store.open(url, schema="second") as second:
        log(second, "c")
        assert names(following(second, first[0][1])) == ["b", "c"]
        middle = following(second)
    copy_store(url, url, source_schema="second", target_schema="third")
    with Store.open(url, schema="third") as third:
        log(third, "d")
        assert names(following(third, first[0][1])) == ["b", "c", "d"]
        assert names(following(third, middle[2][1])) == ["d"]


def test_a_bookmark_of_events_that_are_pruned_goes_on_in_the_copy(
    store: Store, url: str, copied: Callable[[str], str], raw: Callable[..., Any]
) -> None:
    log(store, "a", "b")
    bookmark = following(store)[1][1]
    raw("DELETE FROM events")
    store.close()
    with Store.open(copied(url)) as copy:
        log(copy, "c")
        assert names(following(copy, bookmark)) == ["c"]
        assert copy.events.list().items[0].position == 3


def test_a_bookmark_that_the_source_would_refuse_is_refused_by_the_copy(
    store: Store, url: str, copied: Callable[[str], str]
) -> None:
    log(store, "a")
    target = copied(url)
    # The source had no order yet: this one is another.
    bookmark = following(store)[0][1]
    with Store.open(target) as copy, pytest.raises(StaleBookmarkError):
        following(copy, bookmark)
    log(store, "b")
    both = following(store)
    with Store.open(copied(url)) as copy:
        log(store, "of the source alone")
        log(copy, "of the copy alone")
        later = following(store, both[1][1])[0][1]
        assert names(following(copy, both[1][1])) == ["of the copy alone"]
        with pytest.raises(StaleBookmarkError):
            following(copy, later)
