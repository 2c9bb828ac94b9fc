"""Real parts for every test that wants them: one PostgreSQL a session, a fresh database or server a test."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import hypothesis
import pytest

from stepstream_ingest.migrations import migrate
from stepstream_ingest.postgres import binaries
from stepstream_ingest.postgres.cluster import Cluster
from tests import stores
from tests.servers import ServerProcess
from tests.warm import WarmPython

# Laws are tested, not times: on a busy machine any one example may take long.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")
_numbers = itertools.count(1)
OF_MLFLOW = ("mlflow", "mlflow.sklearn", "sklearn.ensemble", "sklearn.model_selection")
"""What scripts for MLflow's client import."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running PostgreSQL whose template database is migrated."""
    cluster = Cluster(tmp_path_factory.mktemp("postgres") / "data", binaries.find())
    asyncio.run(cluster.start())
    asyncio.run(_execute(cluster.dsn, "CREATE DATABASE template_stepstream"))
    asyncio.run(migrate(_database(cluster, "template_stepstream")))
    yield cluster
    asyncio.run(cluster.stop())


@pytest.fixture
async def database_url(cluster: Cluster) -> AsyncIterator[str]:
    """A database of this test's own, at the current schema."""
    name = f"test_{next(_numbers)}"
    await _execute(cluster.dsn, f"CREATE DATABASE {name} TEMPLATE template_stepstream")
    yield _database(cluster, name)
    await _execute(cluster.dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store_url(cluster: Cluster) -> Iterator[str]:
    """The same for a test that runs loops of its own."""
    name = f"test_{next(_numbers)}"
    asyncio.run(_execute(cluster.dsn, f"CREATE DATABASE {name} TEMPLATE template_stepstream"))
    yield _database(cluster, name)
    asyncio.run(_execute(cluster.dsn, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def empty_database_url(cluster: Cluster) -> AsyncIterator[str]:
    """A database of this test's own without any schema."""
    name = f"test_{next(_numbers)}"
    await _execute(cluster.dsn, f"CREATE DATABASE {name}")
    yield _database(cluster, name)
    await _execute(cluster.dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running S3 server, and what the environment must say to use it."""
    with stores.seaweedfs(tmp_path_factory.mktemp("s3") / "data") as environ:
        yield environ


@pytest.fixture(scope="session")
def azure_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same for Azure."""
    command = stores.find_azurite()
    if command is None:
        pytest.skip("azurite-blob is not installed (npm install -g azurite): Azure's store was left out")
    with stores.azurite(tmp_path_factory.mktemp("azure") / "data", command) as environ:
        yield environ


@pytest.fixture(scope="session")
def google_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same for Google's."""
    with stores.google(tmp_path_factory.mktemp("google") / "data") as environ:
        yield environ


@pytest.fixture(scope="session")
def python_of_mlflow() -> Iterator[Callable[[str], WarmPython]]:
    """Of an interpreter, one that has imported its MLflow, which takes 4 to 8 s of processor time on 2 cores."""
    started: dict[str, WarmPython] = {}

    def find(python: str) -> WarmPython:
        if python not in started:
            started[python] = WarmPython(python, *OF_MLFLOW)
        return started[python]

    yield find
    for one in started.values():
        one.close()


@pytest.fixture(scope="session")
def initialised_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's data directory that has been started and stopped once, to be copied."""
    directory = tmp_path_factory.mktemp("initialised") / "data"
    server = ServerProcess(directory)
    server.stop()
    return directory


@pytest.fixture
def short_path() -> Iterator[Path]:
    """As `tmp_path`, where a socket's path must not be longer than the kernel allows."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """So many seconds pass for the running event loop, and for nobody else: no test need be faster than a timeout."""

    def pass_by(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        time = loop.time
        monkeypatch.setattr(loop, "time", lambda: time() + seconds)

    return pass_by


@pytest.fixture
def server_factory(initialised_directory: Path, tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts real server processes, and stops them after the test."""
    started: list[ServerProcess] = []

    def start(*arguments: str, below: Path = tmp_path) -> ServerProcess:
        directory = below / f"server-{len(started)}"
        shutil.copytree(initialised_directory, directory)
        started.append(ServerProcess(directory, *arguments))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def _database(cluster: Cluster, name: str) -> str:
    return cluster.dsn.replace("/postgres?", f"/{name}?")


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
