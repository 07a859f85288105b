"""What is counted by two processes at once is counted whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from agentos_store import Store
from tests.engine.gather import PROCESSES

WORKERS = 2


def touch(url: str, times: int) -> None:
    with Store.open(url) as store, ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda _: store.memory.touch("m"), range(times)):
            pass


def test_a_hundred_uses_by_two_processes_are_a_hundred(store: Store, url: str) -> None:
    store.memory.remember("天气", type="fact", id="m")
    workers = [PROCESSES.Process(target=touch, args=(url, 100 // WORKERS), daemon=True) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * WORKERS
    item = store.memory.get("m")
    assert (item.use_count, item.last_used_at) == (100, item.updated_at)
    assert [hit.item.use_count for hit in store.memory.search("天气")] == [100]
