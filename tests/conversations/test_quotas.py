from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.conversations.models import QuotaReservation
from agentos_store.conversations.users import UserRepository
from agentos_store.engine.session import Call, Session
from agentos_store.errors import (
    AlreadyExistsError,
    InvalidValueError,
    NotFoundError,
    QuotaExceededError,
    TransientError,
)
from agentos_store.operation import Awaiting, Blocking, Repository, writes
from agentos_store.page import Listing
from tests.engine.gather import PROCESSES

Users = UserRepository[Blocking]

HOUR = dt.timedelta(hours=1)
TINY = dt.timedelta(milliseconds=1)

bodies: Any = UserRepository
none: Any = None

_LISTING = Listing(QuotaReservation, filters={}, orders={"id": (QuotaReservation.table().c.id,)}, default="id")


class Behind(Repository[Blocking]):
    """What the library's users do not see."""

    name = "behind"

    @writes
    def reservations(self, session: Session) -> list[QuotaReservation]:
        return list(_LISTING.page(session, {}))

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any], between: Callable[[Session], Any]) -> Any:
        same = Call()
        first = call(Session(session._connection, same))
        between(Session(session._connection, Call()))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


@pytest.fixture
def users(store: Store) -> Users:
    found: Users = store.bind(UserRepository[Blocking])
    return found


@pytest.fixture
def behind(store: Store) -> Behind:
    return store.bind(Behind)


def amounts(users: Users, user_id: str = "u") -> tuple[int, int, int]:
    user = users.get(user_id)
    return user.quota_total, user.quota_used, user.quota_reserved


def await_true(question: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline


# --- consuming


def test_what_fits_is_consumed_and_what_does_not_is_refused_whole(users: Users) -> None:
    made = users.create(name="n", id="u", quota_total=100)
    assert users.check_quota("u")
    assert users.check_quota("u", 100)
    assert not users.check_quota("u", 101)
    user = users.consume_quota("u", 60)
    assert (user.quota_used, user.name) == (60, "n")
    assert user.updated_at > made.updated_at
    assert user.to_dict() == users.get("u").to_dict()
    with pytest.raises(QuotaExceededError) as caught:
        users.consume_quota("u", 41)
    assert (caught.value.user_id, caught.value.requested, caught.value.available) == ("u", 41, 40)
    assert vars(pickle.loads(pickle.dumps(caught.value))) == vars(caught.value)
    assert users.get("u").to_dict() == user.to_dict()
    assert users.consume_quota("u", 40).quota_used == 100
    assert users.consume_quota("u", 0).quota_used == 100
    assert users.check_quota("u", 0)
    assert not users.check_quota("u", 1)


def test_a_quota_lowered_below_what_is_consumed_gives_nothing_more(users: Users) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.consume_quota("u", 60)
    users.update("u", quota_total=50)
    assert not users.check_quota("u", 0)
    with pytest.raises(QuotaExceededError) as caught:
        users.consume_quota("u", 1)
    assert caught.value.available == -10


def test_an_unknown_user_has_no_quota(users: Users) -> None:
    for call in (
        lambda: users.check_quota("nobody"),
        lambda: users.consume_quota("nobody", 1),
        lambda: users.reserve_quota("nobody", 1, ttl=HOUR),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("user", "nobody")


@pytest.mark.parametrize("tokens", [-1, 1.0, True, "1", None, 2**63])
def test_tokens_are_whole_numbers_that_are_not_negative(users: Users, tokens: Any) -> None:
    users.create(name="n", id="u")
    users.reserve_quota("u", 5, ttl=HOUR, id="r")
    before = users.get("u").to_dict()
    calls: list[tuple[str, Callable[[], object]]] = [
        ("required_tokens", lambda: users.check_quota("u", tokens)),
        ("tokens", lambda: users.consume_quota("u", tokens)),
        ("quota_total", lambda: users.update("u", quota_total=tokens)),
        ("tokens", lambda: users.reserve_quota("u", tokens, ttl=HOUR)),
        ("tokens", lambda: users.settle("r", tokens)),
    ]
    for name, call in calls:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == name
    assert users.get("u").to_dict() == before


def test_nothing_cannot_be_reserved_nor_anything_for_no_time(users: Users) -> None:
    users.create(name="n", id="u")
    with pytest.raises(InvalidValueError):
        users.reserve_quota("u", 0, ttl=HOUR)
    bad: list[Any] = [dt.timedelta(0), -HOUR, 5, None, dt.timedelta(days=36_501)]
    for ttl in bad:
        with pytest.raises(InvalidValueError) as caught:
            users.reserve_quota("u", 1, ttl=ttl)
        assert caught.value.name == "ttl"
    assert amounts(users) == (100_000, 0, 0)


def test_the_largest_quota_counts_to_its_end(users: Users) -> None:
    users.create(name="n", id="u", quota_total=2**63 - 1)
    users.consume_quota("u", 2**62)
    users.reserve_quota("u", 2**62 - 2, ttl=HOUR)
    assert users.check_quota("u", 1)
    for tokens in (2, 2**63 - 1):
        with pytest.raises(QuotaExceededError):
            users.consume_quota("u", tokens)
    assert amounts(users) == (2**63 - 1, 2**62, 2**62 - 2)


# --- reserving


def test_what_is_reserved_is_out_of_reach_until_it_is_settled(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    held = users.reserve_quota("u", 70, ttl=HOUR)
    assert (held.user_id, held.tokens) == ("u", 70)
    assert dt.timedelta(minutes=59) < held.expires_at - dt.datetime.now(dt.UTC) < dt.timedelta(minutes=61)
    assert [each.to_dict() for each in behind.reservations()] == [held.to_dict()]
    assert not users.check_quota("u", 31)
    for refused in (lambda: users.consume_quota("u", 31), lambda: users.reserve_quota("u", 31, ttl=HOUR)):
        with pytest.raises(QuotaExceededError) as caught:
            refused()
        assert caught.value.available == 30
    assert len(behind.reservations()) == 1
    user = users.settle(held.id, 20)
    assert (user.quota_used, user.quota_reserved) == (20, 0)
    assert user.to_dict() == users.get("u").to_dict()
    assert users.check_quota("u", 80)
    assert behind.reservations() == []


def test_what_is_released_is_free_again(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 70, ttl=HOUR, id="r")
    users.release("r")
    assert amounts(users) == (100, 0, 0)
    assert behind.reservations() == []
    users.reserve_quota("u", 70, ttl=HOUR, id="r")
    assert users.settle("r", 0).quota_used == 0


def test_more_than_was_reserved_is_consumed_if_it_fits(users: Users) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 50, ttl=HOUR, id="a")
    users.reserve_quota("u", 20, ttl=HOUR, id="b")
    with pytest.raises(QuotaExceededError) as caught:
        users.settle("a", 81)
    assert (caught.value.requested, caught.value.available) == (81, 80)
    assert amounts(users) == (100, 0, 70)
    assert users.settle("a", 80).quota_used == 80
    assert amounts(users) == (100, 80, 20)


def test_what_was_promised_is_kept_when_the_total_is_lowered(users: Users) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 50, ttl=HOUR, id="r")
    users.update("u", quota_total=10)
    with pytest.raises(QuotaExceededError):
        users.settle("r", 51)
    assert users.settle("r", 50).quota_used == 50
    assert amounts(users) == (10, 50, 0)


def test_a_reservation_ends_once(users: Users) -> None:
    users.create(name="n", id="u")
    users.reserve_quota("u", 5, ttl=HOUR, id="r")
    users.settle("r", 5)
    for call in (lambda: users.settle("r", 5), lambda: users.release("r"), lambda: users.settle("never", 0)):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.entity == "quota reservation"
    assert amounts(users) == (100_000, 5, 0)


def test_an_identifier_that_is_taken_holds_nothing_more(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.create(name="n", id="v", quota_total=100)
    users.reserve_quota("u", 5, ttl=HOUR, id="r")
    for user_id in "uv":
        with pytest.raises(AlreadyExistsError) as caught:
            users.reserve_quota(user_id, 6, ttl=HOUR, id="r")
        assert (caught.value.entity, caught.value.key) == ("quota reservation", "r")
    assert amounts(users) == (100, 0, 5)
    assert amounts(users, "v") == (100, 0, 0)
    assert len(behind.reservations()) == 1


def test_an_identifier_whose_reservation_lapsed_is_taken_while_it_is_there(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 90, ttl=TINY, id="r")
    await_true(lambda: users.check_quota("u", 100))
    with pytest.raises(AlreadyExistsError):
        users.reserve_quota("u", 50, ttl=HOUR, id="r")
    assert amounts(users) == (100, 0, 90)
    assert len(behind.reservations()) == 1


# --- lapsing


def test_what_is_not_settled_lapses(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 90, ttl=TINY, id="r")
    await_true(lambda: users.check_quota("u", 100))
    # Its row is still there, and it counts for nothing.
    assert len(behind.reservations()) == 1
    for call in (lambda: users.settle("r", 1), lambda: users.release("r")):
        with pytest.raises(NotFoundError):
            call()
    assert users.consume_quota("u", 100).quota_used == 100
    assert amounts(users) == (100, 100, 0)
    assert behind.reservations() == []


def test_a_reservation_takes_the_place_of_those_that_lapsed(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 10, ttl=HOUR, id="live")
    for _ in range(3):
        users.reserve_quota("u", 30, ttl=TINY)
    await_true(lambda: users.check_quota("u", 90))
    held = users.reserve_quota("u", 90, ttl=HOUR, id="new")
    assert amounts(users) == (100, 0, 100)
    assert {each.id for each in behind.reservations()} == {"live", "new"}
    assert held.tokens == 90
    with pytest.raises(QuotaExceededError) as caught:
        users.reserve_quota("u", 1, ttl=HOUR)
    assert caught.value.available == 0


def test_an_excess_is_settled_with_what_lapsed(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 10, ttl=HOUR, id="r")
    users.reserve_quota("u", 90, ttl=TINY)
    await_true(lambda: users.check_quota("u", 90))
    with pytest.raises(QuotaExceededError) as caught:
        users.settle("r", 101)
    assert caught.value.available == 100
    assert len(behind.reservations()) == 2
    assert users.settle("r", 100).quota_used == 100
    assert amounts(users) == (100, 100, 0)
    assert behind.reservations() == []


def test_a_refusal_says_what_is_available_with_what_lapsed(users: Users) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 60, ttl=TINY)
    await_true(lambda: users.check_quota("u", 100))
    for call in (lambda: users.consume_quota("u", 101), lambda: users.reserve_quota("u", 101, ttl=HOUR)):
        with pytest.raises(QuotaExceededError) as caught:
            call()
        assert caught.value.available == 100


def test_a_sweep_takes_back_what_lapsed_of_all_users_in_batches(users: Users, behind: Behind) -> None:
    for user_id in "uvw":
        users.create(name="n", id=user_id, quota_total=100)
        users.reserve_quota(user_id, 1, ttl=HOUR)
    for _ in range(3):
        users.reserve_quota("u", 2, ttl=TINY)
        users.reserve_quota("v", 3, ttl=TINY)
    await_true(lambda: users.check_quota("u", 99) and users.check_quota("v", 99))
    assert [users.sweep_reservations(limit=4) for _ in range(3)] == [4, 2, 0]
    assert [amounts(users, user_id) for user_id in "uvw"] == [(100, 0, 1)] * 3
    assert len(behind.reservations()) == 3
    assert users.sweep_reservations() == 0
    bad: list[Any] = [0, -1, 10_001, True, 1.0]
    for limit in bad:
        with pytest.raises(InvalidValueError):
            users.sweep_reservations(limit=limit)


def test_reservations_go_with_their_user(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u")
    users.reserve_quota("u", 5, ttl=HOUR, id="r")
    users.delete("u")
    assert behind.reservations() == []
    with pytest.raises(NotFoundError):
        users.settle("r", 1)


# --- races


def test_sixty_four_consumers_and_reservers_never_pass_the_total(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=1000)
    barrier = threading.Barrier(64, timeout=60)

    def work(number: int) -> int:
        spent = 0
        barrier.wait()
        for turn in range(4):
            with contextlib.suppress(QuotaExceededError):
                if number % 2:
                    users.consume_quota("u", 7)
                    spent += 7
                else:
                    # Some lapse at once, while others are at work.
                    held = users.reserve_quota("u", 11, ttl=TINY if turn % 2 else HOUR)
                    if turn == 2:
                        users.settle(held.id, 5)
                        spent += 5
            user = users.get("u")
            assert user.quota_used + user.quota_reserved <= user.quota_total
        return spent

    with ThreadPoolExecutor(64) as threads:
        spent = sum(threads.map(work, range(64)))
    user = users.get("u")
    assert user.quota_used == spent
    assert user.quota_reserved == sum(each.tokens for each in behind.reservations())
    await_true(lambda: all(lasts(each) for each in swept(users, behind)))
    user = users.get("u")
    assert user.quota_reserved == sum(each.tokens for each in behind.reservations())
    assert user.quota_used + user.quota_reserved <= 1000
    with contextlib.suppress(QuotaExceededError):
        for _ in range(1000):
            users.consume_quota("u", 1)
    assert sum(amounts(users)[1:]) == 1000


def swept(users: Users, behind: Behind) -> list[QuotaReservation]:
    users.sweep_reservations()
    return behind.reservations()


def lasts(reservation: QuotaReservation) -> bool:
    return reservation.expires_at - reservation.created_at > HOUR / 2


def spend(url: str, number: int, start: Any, answers: Any) -> None:
    """Consume, reserve and settle as one of many processes; answer what was spent."""
    spent = 0
    with Store.open(url) as store:
        users = store.bind(UserRepository[Blocking])
        start.wait()
        for turn in range(60):
            with contextlib.suppress(QuotaExceededError, NotFoundError):
                if (turn + number) % 3 == 0:
                    users.consume_quota("u", 3)
                    spent += 3
                elif (turn + number) % 3 == 1:
                    held = users.reserve_quota("u", 5, ttl=HOUR)
                    users.settle(held.id, 4)
                    spent += 4
                else:
                    held = users.reserve_quota("u", 40, ttl=(1 + turn % 5) * TINY)
                    users.settle(held.id, 2)
                    spent += 2
            if turn % 20 == 0:
                users.sweep_reservations(limit=5)
    answers.put(spent)


def test_eight_processes_never_pass_the_total(users: Users, behind: Behind, url: str) -> None:
    users.create(name="n", id="u", quota_total=700)
    start, answers = PROCESSES.Barrier(8, timeout=60), PROCESSES.Queue()
    workers = [PROCESSES.Process(target=spend, args=(url, number, start, answers), daemon=True) for number in range(8)]
    for worker in workers:
        worker.start()
    spent = [answers.get(timeout=100) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert amounts(users)[1] == sum(spent) <= 700
    await_true(lambda: users.check_quota("u", 700 - sum(spent)))
    while users.sweep_reservations():
        pass
    assert behind.reservations() == []
    assert amounts(users) == (700, sum(spent), 0)


def test_of_those_who_settle_and_release_one_reservation_at_once_one_does(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=10_000)
    barrier = threading.Barrier(8, timeout=60)

    def work(number: int) -> list[int]:
        done = []
        for turn in range(15):
            if number == 0:
                users.reserve_quota("u", 100, ttl=HOUR, id=f"r{turn}")
            barrier.wait()
            with contextlib.suppress(NotFoundError):
                if number % 2:
                    users.settle(f"r{turn}", number)
                    done.append(number)
                else:
                    users.release(f"r{turn}")
                    done.append(0)
        return done

    with ThreadPoolExecutor(8) as threads:
        done = [each for found in threads.map(work, range(8)) for each in found]
    assert len(done) == 15
    assert amounts(users) == (10_000, sum(done), 0)
    assert behind.reservations() == []


def test_reservations_that_lapse_while_they_are_settled_count_once(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=300)
    barrier = threading.Barrier(8, timeout=60)

    def work(number: int) -> int:
        spent = 0
        for turn in range(30):
            barrier.wait()
            try:
                held = users.reserve_quota("u", 100, ttl=dt.timedelta(milliseconds=1 + number))
                users.settle(held.id, 1)
                spent += 1
            except (QuotaExceededError, NotFoundError):
                if turn % 4 == number % 4:
                    users.sweep_reservations()
        return spent

    with ThreadPoolExecutor(8) as threads:
        spent = sum(threads.map(work, range(8)))
    await_true(lambda: users.check_quota("u", 300 - spent))
    users.sweep_reservations()
    assert amounts(users) == (300, spent, 0)
    assert behind.reservations() == []


def test_a_quota_in_a_transaction_that_fails_is_as_it_was(store: Store, users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 30, ttl=HOUR, id="r")

    class Regret(Exception):
        pass

    with contextlib.suppress(Regret), store.transaction() as tx:
        inside = tx.bind(UserRepository[Blocking])
        inside.consume_quota("u", 10)
        inside.reserve_quota("u", 60, ttl=HOUR)
        inside.settle("r", 20)
        with pytest.raises(QuotaExceededError) as caught:
            inside.consume_quota("u", 11)
        assert caught.value.available == 10
        raise Regret
    assert amounts(users) == (100, 0, 30)
    with store.transaction() as tx:
        inside = tx.bind(UserRepository[Blocking])
        with pytest.raises(AlreadyExistsError):
            inside.reserve_quota("u", 60, ttl=HOUR, id="r")
        inside.settle("r", 40)
    assert amounts(users) == (100, 40, 0)
    assert behind.reservations() == []


# --- repeats


def nothing(session: Session) -> None:
    pass


def test_a_call_repeated_in_doubt_reserves_settles_and_releases_once(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)

    def reserve(session: Session) -> Any:
        return bodies.reserve_quota(none, session, "u", 60, ttl=HOUR)

    def settle(session: Session) -> Any:
        return bodies.settle(none, session, first.id, 50)

    def release(session: Session) -> Any:
        return bodies.release(none, session, "r")

    first, again = behind.twice(reserve, nothing)
    assert first.to_dict() == again.to_dict()
    assert amounts(users) == (100, 0, 60)
    settled, again = behind.twice(settle, nothing)
    assert settled.to_dict() == again.to_dict()
    assert amounts(users) == (100, 50, 0)
    users.reserve_quota("u", 5, ttl=HOUR, id="r")
    assert behind.twice(release, nothing) == (None, None)
    assert amounts(users) == (100, 50, 0)


def test_a_settlement_in_doubt_whose_user_was_changed_since_says_so(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)
    users.reserve_quota("u", 60, ttl=HOUR, id="r")

    def settle(session: Session) -> Any:
        try:
            return bodies.settle(none, session, "r", 50)
        except TransientError as error:
            # Caught here, for a transaction that was not committed knows its outcome.
            return error.outcome_unknown

    def consume(session: Session) -> Any:
        return bodies.consume_quota(none, session, "u", 1)

    _, unknown = behind.twice(settle, consume)
    assert unknown is True
    assert amounts(users) == (100, 51, 0)


def test_a_reservation_in_doubt_does_not_take_another_s_for_its_own(users: Users, behind: Behind) -> None:
    users.create(name="n", id="u", quota_total=100)

    def reserve(session: Session) -> Any:
        return bodies.reserve_quota(none, session, "u", 60, ttl=HOUR, id="r")

    def replace(session: Session) -> None:
        bodies.release(none, session, "r")
        bodies.reserve_quota(none, session, "u", 1, ttl=HOUR, id="r")

    with pytest.raises(AlreadyExistsError):
        behind.twice(reserve, replace)


# --- round trips


def test_the_usual_way_is_one_statement_where_the_database_can(
    store: Store, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not store.capabilities.data_modifying_cte:
        pytest.skip("this database takes several statements")
    users.create(name="n", id="u", quota_total=100)
    count = 0
    execute = Session._execute

    def counting(self: Session, *args: Any) -> Any:
        nonlocal count
        count += 1
        return execute(self, *args)

    monkeypatch.setattr(Session, "_execute", counting)
    users.consume_quota("u", 1)
    users.reserve_quota("u", 10, ttl=HOUR, id="r")
    users.settle("r", 20)
    users.sweep_reservations()
    assert users.check_quota("u", 1)
    assert count == 5


# --- the other face


def test_quotas_through_the_asynchronous_store(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            users: UserRepository[Awaiting] = store.bind(UserRepository[Awaiting])
            await users.create(name="n", id="u", quota_total=100)
            found = await asyncio.gather(*(users.consume_quota("u", 7) for _ in range(32)), return_exceptions=True)
            refused = [each for each in found if isinstance(each, QuotaExceededError)]
            assert len(refused) == 32 - 14
            held = await users.reserve_quota("u", 2, ttl=HOUR)
            assert (await users.settle(held.id, 1)).quota_used == 99
            assert not await users.check_quota("u", 2)

    asyncio.run(main())
