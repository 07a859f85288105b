"""What a start costs: migrations with nothing to do, and the imports."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial

from agentos_store import Store, ensure_migrations
from benchmarks.measure import Contest, Contestant, NotHonestError
from benchmarks.places import Place
from benchmarks.works import RAW


@contextlib.contextmanager
def migrations(place: Place) -> Iterator[Contest]:
    """``ensure_migrations()`` with nothing to do, beside one query on a connection that is held."""
    open_url, closed_url = place.database(), place.database()
    with Store.open(open_url), contextlib.closing(place.raw(open_url)) as raw:
        if ensure_migrations(open_url) or ensure_migrations(closed_url):
            raise NotHonestError("there was something to do")
        contestants = [
            Contestant("ensure_migrations(), a store is open", partial(ensure_migrations, open_url)),
            Contestant("ensure_migrations(), no store is open", partial(ensure_migrations, closed_url)),
            Contestant(RAW, raw.revision),
        ]
        yield Contest("migrations, nothing to do", place.name, contestants)


@contextlib.contextmanager
def process(place: Place) -> Iterator[Contest]:
    """Fresh interpreters, from their start to their end.

    They find all modules compiled, as an installation leaves them: a checkout need not have a single one, while
    SQLAlchemy beside it has them all.
    """
    url = place.database()
    programs = {
        "import agentos_store": "import agentos_store",
        "from agentos_store import Store": "from agentos_store import Store",
        "Store.open(url)": "import sys; from agentos_store import Store; Store.open(sys.argv[1])",
        "Store.open(url), a task": "import sys; from agentos_store import Store; Store.open(sys.argv[1]).tasks.list()",
        "ensure_migrations(url)": "import sys; from agentos_store import ensure_migrations as go; go(sys.argv[1])",
        "import sqlalchemy.orm": "import sqlalchemy.orm",
        "the interpreter alone": "pass",
    }
    with tempfile.TemporaryDirectory() as compiled:
        contestants = [Contestant(name, partial(_run, program, url, compiled)) for name, program in programs.items()]
        yield Contest(
            "a fresh process",
            place.name,
            contestants,
            baseline="import sqlalchemy.orm",
            warm_up=1,
            least=2,
            own_cpu=False,
        )


def _run(program: str, url: str, compiled: str) -> None:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", program, url], check=True, env=environment)


STARTS = {"migrations": migrations, "process": process}
"""By the name that the command line takes."""
