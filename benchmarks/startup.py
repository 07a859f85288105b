"""What a start costs: migrations with nothing to do, and the imports."""

from __future__ import annotations

import contextlib
import subprocess
import sys
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
    """Fresh interpreters, from their start to their end."""
    url = place.database()
    programs = {
        "import agentos_store": "import agentos_store",
        "from agentos_store import Store": "from agentos_store import Store",
        "Store.open(url)": "import sys; from agentos_store import Store; Store.open(sys.argv[1])",
        "ensure_migrations(url)": "import sys; from agentos_store import ensure_migrations as go; go(sys.argv[1])",
        "import sqlalchemy.orm": "import sqlalchemy.orm",
        "the interpreter alone": "pass",
    }
    contestants = [Contestant(name, partial(_run, program, url)) for name, program in programs.items()]
    yield Contest(
        "a fresh process", place.name, contestants, baseline="import sqlalchemy.orm", warm_up=1, least=2, own_cpu=False
    )


def _run(program: str, url: str) -> None:
    subprocess.run([sys.executable, "-c", program, url], check=True)


STARTS = {"migrations": migrations, "process": process}
"""By the name that the command line takes."""
