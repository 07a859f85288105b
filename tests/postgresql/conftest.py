"""What stands between a store and its server: a proxy that can cut, and ways to end connections."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from agentos_store import Settings, Store
from agentos_store.testing.postgres import connect
from tests.standing import administrative

Opened = Callable[..., Store]


@pytest.fixture
def backend() -> str:
    """Only PostgreSQL: what is tested here is its own."""
    return "postgresql"


@pytest.fixture
def open_store(url: str) -> Iterator[Opened]:
    """Open a store with settings of its own; retries follow at once."""
    with contextlib.ExitStack() as stack:

        def open_(to: str = url, **settings: Any) -> Store:
            chosen = Settings.load(**{"retry_base": 0.01, "pool_timeout": 5, **settings})
            return stack.enter_context(Store.open(to, settings=chosen))

        yield open_


@pytest.fixture
def admin(url: str, postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the store's own."""
    with contextlib.closing(connect(administrative(url, postgres_url))) as connection:
        yield connection


class Proxy:
    """Stands between clients and the server on a Unix socket; drops the server's answer when it is told to."""

    def __init__(self, server: str | tuple[str, int], directory: Path) -> None:
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen(64)
        self._lock = threading.Lock()
        self._cut_on: bytes | None = None
        self._delivers = True
        self._open: set[socket.socket] = set()
        self.cuts = 0
        self.url = ""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_answer_to(self, text: bytes) -> None:
        """Deliver the next message that holds the text, wait for the answer, and cut the connection instead of it."""
        with self._lock:
            self._cut_on, self._delivers = text, True

    def cut_before(self, text: bytes) -> None:
        """Cut the connection instead of delivering the next message that holds the text."""
        with self._lock:
            self._cut_on, self._delivers = text, False

    def close(self) -> None:
        """Cut everything."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
        server.connect(self._server)
        with self._lock:
            self._open |= {client, server}
        doomed = threading.Event()
        back = threading.Thread(target=self._pump, args=(server, client, doomed, False), daemon=True)
        back.start()
        self._pump(client, server, doomed, True)
        back.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _pump(self, source: socket.socket, target: socket.socket, doomed: threading.Event, to_server: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if to_server:
                    with self._lock:
                        if self._cut_on is not None and self._cut_on in data:
                            self._cut_on = None
                            self.cuts += 1
                            if not self._delivers:
                                break
                            doomed.set()
                elif doomed.is_set():
                    # The server has answered, so the work is done; nobody hears of it.
                    break
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    """A proxy before the test's server; its ``url`` leads there through it."""
    parsed = make_url(url)
    host = str(parsed.query.get("host") or parsed.host or "localhost")
    port = int(str(parsed.query.get("port") or parsed.port or 5432))
    directory = Path(tempfile.mkdtemp(prefix="agentos-proxy-"))
    made = Proxy(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port), directory)
    near = parsed.set(host=None, port=None).update_query_dict({"host": str(directory), "port": "5432"})
    made.url = near.render_as_string(hide_password=False)
    yield made
    made.close()
    shutil.rmtree(directory)
