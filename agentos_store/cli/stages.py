"""Progress of work that goes through stages: a bar for each, from the first news of it on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Told = Callable[[str, int, int], None]


@contextlib.contextmanager
def stages(*, quiet: bool) -> Iterator[Told | None]:
    """Yield what is told the stage, how far it is, and how far it goes; None where nobody looks."""
    # Rich takes longer to import than most commands to run.
    from agentos_store.cli.consoles import progress_bar

    with progress_bar(quiet=quiet) as bars:
        if bars.disable:
            yield None
            return
        tasks = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield told
