from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError


def test_a_project_comes_back_as_it_was_created(store: Store) -> None:
    made = store.projects.create(
        path="/src",
        id="web-shop",
        name="商店",
        description="d",
        tags=["a", {"b": 1}],
        settings={"theme": {"dark": True}},
        default_workdir="/src/app",
        created_by="me",
    )
    found = store.projects.get("web-shop")
    assert found.to_dict() == made.to_dict()
    assert (found.status, found.default_repo_id) == ("active", None)
    assert found.added_at == found.created_at == found.updated_at
    assert store.projects.find("web-shop") is not None
    assert store.projects.exists("web-shop")


def test_what_is_left_out_has_the_defaults(store: Store) -> None:
    project = store.projects.get(store.projects.create(path="").id)
    assert (project.name, project.tags, project.settings, project.description) == ("", [], {}, None)


def test_an_unknown_project_is_not_found(store: Store) -> None:
    assert store.projects.find("nobody") is None
    assert not store.projects.exists("nobody")
    calls: list[Any] = [
        lambda: store.projects.get("nobody"),
        lambda: store.projects.update("nobody", name="n"),
        lambda: store.projects.archive("nobody"),
        lambda: store.projects.restore("nobody"),
        lambda: store.projects.delete("nobody"),
        lambda: store.projects.add_repo("nobody", "r", repo_path="."),
        lambda: store.projects.remove_repo("nobody", "r"),
        lambda: store.projects.set_default_repo("nobody", None),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("project", "nobody")


def test_a_taken_identifier_is_refused(store: Store) -> None:
    store.projects.create(path="/a", id="p", name="n")
    with pytest.raises(AlreadyExistsError) as caught:
        store.projects.create(path="/b", id="p", name="n")
    assert (caught.value.entity, caught.value.key, caught.value.field) == ("project", "p", None)


def taken(call: Any) -> None:
    with pytest.raises(AlreadyExistsError) as caught:
        call()
    assert (caught.value.entity, caught.value.key, caught.value.field) == ("project", "n", "name")


def test_a_name_is_unique_among_those_that_are_not_deleted_and_not_empty(store: Store) -> None:
    first = store.projects.create(path="/a", name="n")
    taken(lambda: store.projects.create(path="/b", name="n"))
    other = store.projects.create(path="/b", name="m")
    taken(lambda: store.projects.update(other.id, name="n", path="/c"))
    assert store.projects.get(other.id).to_dict() == other.to_dict()
    store.projects.archive(first.id)
    taken(lambda: store.projects.create(path="/b", name="n"))
    store.projects.delete(first.id)
    second = store.projects.create(path="/b", name="n")
    taken(lambda: store.projects.restore(first.id))
    assert store.projects.get(first.id).status == "deleted"
    store.projects.delete(second.id)
    assert store.projects.restore(first.id).status == "active"
    assert store.projects.create(path="/a").name == store.projects.create(path="/a").name == ""
    store.projects.update(first.id, name="n")


def test_of_eight_callers_one_gets_the_name(store: Store) -> None:
    def create(_: int) -> bool:
        try:
            store.projects.create(path="/a", name="n")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, range(8))) == 1
    assert store.projects.count() == 1


def test_update_changes_what_is_given_and_leaves_the_rest(store: Store) -> None:
    project = store.projects.create(path="/a", name="n", description="d", tags=["a"], settings={"a": 1})
    changed = store.projects.update(project.id, path="/b", description=None, tags=("b", "c"), settings={"b": 2})
    assert (changed.path, changed.description, changed.tags) == ("/b", None, ["b", "c"])
    assert (changed.name, changed.settings) == ("n", {"b": 2})
    assert changed.updated_at > project.updated_at
    assert changed.created_at == project.created_at
    assert store.projects.get(project.id).to_dict() == changed.to_dict()
    assert store.projects.update(project.id, default_workdir="/w").default_workdir == "/w"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "n" * 401),
        ("name", None),
        ("path", None),
        ("path", "a\0"),
        ("description", 5),
        ("tags", "abc"),
        ("tags", {"a": 1}),
        ("tags[1]", ["a", float("nan")]),
        ("settings", ["a"]),
        ("settings", "abc"),
        ("settings.a[0]", {"a": [{1}]}),
        ("default_workdir", "\udc00"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(store: Store, name: str, value: Any) -> None:
    project = store.projects.create(path="/a")
    field = name.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0]
    calls: list[Callable[[], object]] = [
        lambda: store.projects.create(**{"path": "/b", field: value}),
        lambda: store.projects.update(project.id, **{field: value}),
    ]
    for call in calls:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == name
    assert store.projects.count() == 1


def test_the_longest_name_fits_every_index(store: Store) -> None:
    rare = "".join(chr(0x10000 + 7919 * n % 0xFFFF) for n in range(400))
    made = store.projects.create(path="/a", id=rare[:255], name=rare)
    store.projects.add_repo(made.id, rare[:255], repo_path=".")
    assert store.projects.set_default_repo(made.id, rare[:255]).name == rare


def test_repositories_are_listed_by_their_identifier(store: Store) -> None:
    project = store.projects.create(path="/a")
    for repo, role in (("web", "code"), ("api", "code"), ("docs", "docs")):
        made = store.projects.add_repo(project.id, repo, repo_path=f"./{repo}", role=role, metadata={"a": [1]})
    assert made.metadata_ == {"a": [1]}
    assert (made.is_writable, made.updated_at) == (True, made.added_at)
    found = store.projects.list_repos(project.id)
    assert [repo.repo_id for repo in found] == ["api", "docs", "web"]
    assert found.items[1].to_dict() == made.to_dict()
    assert [repo.repo_id for repo in store.projects.list_repos(project.id, role="code")] == ["api", "web"]
    page = store.projects.list_repos(project.id, limit=2)
    assert [repo.repo_id for repo in store.projects.list_repos(project.id, limit=2, cursor=page.next)] == ["web"]


def test_a_repository_is_added_once(store: Store) -> None:
    project, other = store.projects.create(path="/a"), store.projects.create(path="/b")
    store.projects.add_repo(project.id, "web", repo_path=".")
    store.projects.add_repo(other.id, "web", repo_path=".")
    with pytest.raises(AlreadyExistsError) as caught:
        store.projects.add_repo(project.id, "web", repo_path="./other")
    assert (caught.value.entity, caught.value.key) == ("repository", (project.id, "web"))
    with pytest.raises(InvalidValueError) as refused:
        store.projects.add_repo(project.id, "x", repo_path=".", role="poetry")
    assert refused.value.name == "role"


def test_the_default_repository_is_one_of_the_project(store: Store) -> None:
    project, other = store.projects.create(path="/a"), store.projects.create(path="/b")
    store.projects.add_repo(other.id, "web", repo_path=".")
    with pytest.raises(NotFoundError) as caught:
        store.projects.set_default_repo(project.id, "web")
    assert (caught.value.entity, caught.value.key) == ("repository", "web")
    store.projects.add_repo(project.id, "web", repo_path=".")
    assert store.projects.set_default_repo(project.id, "web").default_repo_id == "web"
    assert store.projects.set_default_repo(project.id, None).default_repo_id is None


def test_removing_the_default_repository_leaves_none(store: Store) -> None:
    project = store.projects.create(path="/a")
    for repo in ("web", "api"):
        store.projects.add_repo(project.id, repo, repo_path=".")
    chosen = store.projects.set_default_repo(project.id, "web")
    store.projects.remove_repo(project.id, "api")
    assert store.projects.get(project.id).to_dict() == chosen.to_dict()
    store.projects.remove_repo(project.id, "web")
    after = store.projects.get(project.id)
    assert after.default_repo_id is None
    assert after.updated_at > chosen.updated_at
    assert store.projects.list_repos(project.id).items == []
    with pytest.raises(NotFoundError) as caught:
        store.projects.remove_repo(project.id, "web")
    assert (caught.value.entity, caught.value.key) == ("repository", "web")


def test_choosing_and_removing_a_default_repository_race_to_a_whole_state(store: Store) -> None:
    project = store.projects.create(path="/a")

    def work(number: int) -> None:
        try:
            if number % 3 == 0:
                store.projects.add_repo(project.id, "web", repo_path=".")
            elif number % 3 == 1:
                store.projects.set_default_repo(project.id, "web")
            else:
                store.projects.remove_repo(project.id, "web")
        except (AlreadyExistsError, NotFoundError):
            pass

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(60)))
    default = store.projects.get(project.id).default_repo_id
    repos = [repo.repo_id for repo in store.projects.list_repos(project.id)]
    assert default is None or default in repos


def test_a_project_with_tasks_is_archived_but_not_deleted(store: Store) -> None:
    project = store.projects.create(path="/a")
    task = store.tasks.create(title="t", project_id=project.id)
    with pytest.raises(ConflictError) as caught:
        store.projects.delete(project.id)
    assert (caught.value.entity, caught.value.key) == ("project", project.id)
    assert store.projects.archive(project.id).status == "archived"
    store.tasks.create(title="u", project_id=project.id)
    for found in store.tasks.list(project_id=project.id):
        store.tasks.update(found.task_id, project_id=None)
    assert store.projects.delete(project.id).status == "deleted"
    assert store.tasks.get(task.task_id).project_id is None


def test_a_deleted_project_takes_no_task(store: Store) -> None:
    project = store.projects.create(path="/a")
    store.projects.delete(project.id)
    task = store.tasks.create(title="t")
    calls: list[Callable[[], object]] = [
        lambda: store.tasks.create(title="u", project_id=project.id),
        lambda: store.tasks.update(task.task_id, project_id=project.id),
    ]
    for call in calls:
        with pytest.raises(ConflictError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("project", project.id)
    assert store.tasks.count() == 1
    store.projects.restore(project.id)
    assert store.tasks.update(task.task_id, project_id=project.id).project_id == project.id


def test_a_project_is_never_deleted_under_a_task_that_is_just_made(store: Store) -> None:
    loose = store.tasks.create(title="loose")
    for round_ in range(20):
        project = store.projects.create(path="/a")

        def create(key: str = project.id) -> bool:
            store.tasks.create(title="t", project_id=key)
            return True

        def move(key: str = project.id) -> bool:
            store.tasks.update(loose.task_id, project_id=key)
            return True

        def delete(key: str = project.id) -> bool:
            store.projects.delete(key)
            return True

        def attempt(call: Any) -> bool:
            try:
                return bool(call())
            except ConflictError:
                return False

        with ThreadPoolExecutor(3) as threads:
            made, moved, deleted = threads.map(attempt, (create, move, delete))
        assert deleted != (made or moved), round_
        assert (store.projects.get(project.id).status == "deleted") == deleted
        assert store.tasks.count(project_id=project.id) == made + moved
        store.tasks.update(loose.task_id, project_id=None)


def test_the_database_refuses_to_remove_a_project_with_tasks(store: Store, url: str) -> None:
    from sqlalchemy import create_engine, event, exc, text

    project = store.projects.create(path="/a")
    store.tasks.create(title="t", project_id=project.id)
    engine = create_engine(url)
    if url.startswith("sqlite"):
        event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys=ON"))
    with pytest.raises(exc.IntegrityError), engine.begin() as connection:
        connection.execute(text("DELETE FROM projects"))
    engine.dispose()


def test_each_filter_keeps_its_projects(store: Store) -> None:
    tagged: list[list[Any]] = [["a"], ["a", "b"], ["b", {"c": 1}], [], ["a", "b", "c"], [["a"]], [1, 1.5, None]]
    made = [
        store.projects.create(path="/a", id=f"p{n}", name=f"n{n % 3}x{n}", tags=tags) for n, tags in enumerate(tagged)
    ]
    store.projects.archive("p1")
    store.projects.delete("p2")

    def ids(**filters: Any) -> list[str]:
        found = [project.id for project in store.projects.iterate(limit=2, **filters)]
        if set(filters) <= {"status", "tags"}:
            assert store.projects.count(**filters) == len(found)
        return found

    assert ids() == [project.id for project in made]
    assert ids(status="active") == ["p0", "p3", "p4", "p5", "p6"]
    assert ids(status="archived") == ["p1"]
    assert ids(name="n0x3") == ["p3"]
    assert ids(created_after=made[3].created_at, created_before=made[5].created_at) == ["p3", "p4"]
    assert ids(tags=["a"]) == ["p0", "p1", "p4"]
    assert ids(tags=("b", "a"), status="active") == ["p4"]
    assert ids(tags=[]) == [project.id for project in made]
    assert ids(tags=[{"c": 1.0}]) == ["p2"]
    assert ids(tags=[["a"]]) == ["p5"]
    assert ids(tags=[None, 1]) == ["p6"]
    assert ids(tags=["A"]) == []
    assert ids(order="name") == ["p0", "p3", "p6", "p1", "p4", "p2", "p5"]
    assert ids(order="-name", status="active") == ["p5", "p4", "p6", "p3", "p0"]
    assert ids(order="-created_at")[0] == "p6"


@pytest.mark.parametrize(
    ("name", "filters"),
    [
        ("status", {"status": "gone"}),
        ("tags", {"tags": "abc"}),
        ("created_after", {"created_after": dt.datetime(2026, 1, 1)}),  # noqa: DTZ001  without a zone
        ("name", {"name": 5}),
    ],
)
def test_a_filter_of_a_wrong_value_is_refused_by_its_name(store: Store, name: str, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.projects.list(**filters)
    assert caught.value.name == name


def test_the_asynchronous_store_does_the_same(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            project = await store.projects.create(path="/a", name="n", tags=["a"])
            await store.projects.add_repo(project.id, "web", repo_path=".")
            await store.projects.set_default_repo(project.id, "web")
            assert [found.id async for found in store.projects.iterate(tags=["a"])] == [project.id]
            await store.projects.remove_repo(project.id, "web")
            with pytest.raises(AlreadyExistsError):
                await store.projects.create(path="/b", name="n")
            assert (await store.projects.delete(project.id)).status == "deleted"

    asyncio.run(work())
