"""The real server process: what it refuses to start with, and how it ends."""

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import asyncpg
import psutil
import pytest

from stepstream_ingest import migrations
from stepstream_ingest.errors import DatabaseTooNew, ServerSetupError
from stepstream_ingest.migrations import migrate
from stepstream_schema import batch, paths, sql
from tests.integration.app import RUN, frame, metrics, start
from tests.servers import free_port


def refused(*arguments: str) -> str:
    """What a server says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "stepstream.cli", "server", *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family_of(server) -> list[int]:
    """The workers' parent, the workers, and PostgreSQL with its processes."""
    return [one.pid for one in psutil.Process(server.pid).children(recursive=True)]


def post(url: str, *frames: bytes) -> dict:
    request = urllib.request.Request(url + paths.FRAMES, batch.pack(frames), {"Content-Type": "application/msgpack"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def test_what_a_server_writes_is_its_users_alone_and_lies_in_its_directory(
    short_path, server_factory, tmp_path, monkeypatch
):
    # As a batch job has it from the machine that it was sent from.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    server = server_factory("--workers", "1", below=short_path)
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/{'ab' * 16}/artifacts/x"
    urllib.request.urlopen(urllib.request.Request(url, b"x", method="PUT"), timeout=20).close()
    assert server.database_url.endswith(f"host={server.directory}/postgres-socket")
    written = {path for path in server.directory.rglob("*") if "postgres" not in path.parts} - {server.log}
    assert {path.name for path in written} >= {"artifacts", "objects", "workers", "server.lock", "postgres.log"}
    assert [path for path in written if path.is_file() and path.stat().st_mode & 0o077] == []


def test_a_server_that_cannot_start_says_why_and_what_to_do(server_factory, initialised_directory, tmp_path):
    server = server_factory()
    port = str(free_port())
    assert "--port" in refused("--port", str(server.port), "--data-dir", str(tmp_path / "new"))
    in_use = refused("--port", port, "--data-dir", str(server.directory))
    assert f"in use by process {server.pid}" in in_use
    away = refused("--port", port, "--database-url", "postgresql://me:hidden@127.0.0.1:1/x")
    assert "127.0.0.1" in away
    assert "hidden" not in away
    assert "STEPSTREAM_TOKEN" in refused("--port", port, "--host", "0.0.0.0")
    old = tmp_path / "old"
    shutil.copytree(initialised_directory, old)
    (old / "postgres" / "PG_VERSION").write_text("9\n")
    assert "pg_dumpall" in refused("--port", port, "--data-dir", str(old))
    crowded = refused("--port", port, "--database-url", server.database_url, "--workers", "100")
    assert "max_connections" in crowded
    newer = tmp_path / "newer"
    shutil.copytree(initialised_directory, newer)
    (newer / "format.json").write_text('{"format": 99}')
    assert "newer StepStream" in refused("--port", port, "--data-dir", str(newer))


def test_sigterm_drains_and_leaves_nothing_running(server_factory):
    server = server_factory("--workers", "2")
    assert post(server.url, frame(1, start(), metrics({"a": [1.0]})))["stored"] == 1
    family = family_of(server)
    assert server.stop() == 0
    assert not [pid for pid in family if is_alive(pid)]
    server.restart()
    assert post(server.url, frame(1, start(), metrics({"a": [1.0]})))["duplicates"] == 1


def test_a_killed_supervisor_takes_its_workers_and_postgresql_with_it(server_factory):
    server = server_factory("--workers", "2")
    family = family_of(server)
    server.kill()
    deadline = time.monotonic() + 20
    while any(is_alive(pid) for pid in family):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_worker_is_replaced(server_factory):
    server = server_factory("--workers", "1")
    (worker,) = server.workers()
    os.kill(worker, 9)
    deadline = time.monotonic() + 20
    while is_alive(worker) or not server.answers():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert post(server.url, frame(1, start()))["stored"] == 1


def test_connections_that_come_together_are_spread_over_the_workers(server_factory):
    server = server_factory("--workers", "2")
    workers = ready_workers(server, 2)
    seen = []
    # A worker that has something else to do for a tenth of a second, as in its first one, leaves a burst to the other.
    while not seen or (min(seen[-1]) < 5 and len(seen) < 3):
        opened = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(16)]
        assert [answer(connection) for connection in opened] == [200] * 16
        seen.append([connections_of(worker, server.port) for worker in workers])
        assert sum(seen[-1]) == 16
        for connection in opened:
            connection.close()
        time.sleep(1)
    assert min(seen[-1]) >= 5, seen


def test_a_worker_that_is_stuck_keeps_nobody_from_the_others(server_factory):
    server = server_factory("--workers", "2")
    stuck, free = ready_workers(server, 2)
    os.kill(stuck, signal.SIGSTOP)
    try:
        opened = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(8)]
        assert [answer(connection) for connection in opened] == [200] * 8
        assert connections_of(free, server.port) == 8
    finally:
        os.kill(stuck, signal.SIGCONT)
    for connection in opened:
        connection.close()


def ready_workers(server, count: int) -> list[int]:
    deadline = time.monotonic() + 20
    while not all(f"worker {number} is ready" in server.log.read_text() for number in range(count)):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    return server.workers()


def answer(connection: socket.socket) -> int:
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return int(connection.recv(4096).split()[1])


def connections_of(pid: int, port: int) -> int:
    return sum(
        one.status == psutil.CONN_ESTABLISHED and one.laddr.port == port
        for one in psutil.Process(pid).net_connections("tcp")
    )


def test_the_counters_of_all_workers_are_added_up(server_factory):
    server = server_factory("--workers", "2")
    for seq in range(1, 21):
        post(server.url, frame(seq, metrics({"a": [1.0, 2.0]})))
    assert "stepstream_points_stored_total 40.0" in counters(server)


def test_who_goes_away_in_the_middle_is_counted_and_leaves_no_traceback(server_factory):
    server = server_factory("--workers", "1")
    sent = [("POST", paths.FRAMES), ("POST", "/v1/history"), ("POST", "/api/2.0/mlflow/runs/log-batch")]
    sent.append(("PUT", f"/api/2.0/mlflow-artifacts/artifacts/0/{'ab' * 16}/artifacts/x"))
    assert post(server.url, frame(1, start()))["stored"] == 1
    file = {"path": "y", "size": 100_000, "sha256": "ab" * 32, "logged_at_ms": 1}
    asked = urllib.request.Request(
        server.url + paths.run_artifacts(RUN) + "/uploads", json.dumps({"files": [file]}).encode()
    )
    with urllib.request.urlopen(asked) as response:
        sent.append(("PUT", re.search(rf'"({paths.STORE}/[^"]+)"', response.read().decode())[1]))
    before = server.log.read_text()
    for method, path in sent:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head.encode() + b"{")
            time.sleep(0.1)
    deadline = time.monotonic() + 60
    while f'stepstream_requests_total{{status="499"}} {len(sent):.1f}' not in counters(server):
        assert time.monotonic() < deadline, counters(server)
        time.sleep(0.05)
    assert server.log.read_text() == before


def test_who_cannot_be_let_in_is_not_taken_for_silent(server_factory):
    server = server_factory("--workers", "1")
    (worker,) = ready_workers(server, 1)
    # Who has asked whether it is ready has a descriptor of it for a moment longer.
    deadline = time.monotonic() + 20
    while any(one.raddr for one in psutil.Process(worker).net_connections("tcp")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    unheard = server.directory / "workers" / "unheard"
    before = unheard.read_bytes()
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    taken = {int(one.name) for one in Path(f"/proc/{worker}/fd").iterdir()}
    first_free = min(set(range(len(taken) + 1)) - taken)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (first_free, limits[1]))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        deadline = time.monotonic() + 60
        while "no connection can be accepted" not in server.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert unheard.read_bytes() > before
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
        assert answer(connection) == 200


def counters(server) -> list[str]:
    with urllib.request.urlopen(server.url + paths.METRICS) as response:
        return response.read().decode().splitlines()


async def test_a_server_runs_on_a_postgresql_that_it_is_given(server_factory, empty_database_url):
    server = server_factory("--database-url", empty_database_url)
    answer = await asyncio.to_thread(post, server.url, frame(1, start(), metrics({"a": [1.0, 2.0]})))
    assert answer["stored"] == 1
    connection = await asyncpg.connect(empty_database_url)
    assert await connection.fetchval("SELECT sum(points) FROM frames") == 2
    await connection.close()
    await asyncio.to_thread(server.stop)


async def test_migrations_are_applied_once_by_servers_that_start_together(empty_database_url):
    applied = await asyncio.gather(*[migrate(empty_database_url) for _ in range(4)])
    assert sorted(len(names) for names in applied) == [0, 0, 0, len(sql.migrations())]


@pytest.mark.parametrize(("used", "in_the_way_of"), [("ROW EXCLUSIVE", 18), ("ACCESS SHARE", 19)])
async def test_a_migration_lets_others_pass_while_a_table_is_in_use(
    empty_database_url, monkeypatch, caplog, used, in_the_way_of
):
    monkeypatch.setattr(migrations, "LOCK_WAIT_S", 0.1)
    monkeypatch.setattr(migrations, "LOCK_PAUSE_S", 0.1)
    older = tuple(one for one in sql.migrations() if one.version <= 17)
    with monkeypatch.context() as before:
        before.setattr(migrations.sql, "migrations", lambda: older)
        await migrate(empty_database_url)
    user = await asyncpg.connect(empty_database_url)
    other = await asyncpg.connect(empty_database_url)
    async with user.transaction():
        await user.execute(f"LOCK TABLE chunks IN {used} MODE")
        with monkeypatch.context() as hasty:
            hasty.setattr(migrations, "PATIENCE_S", 0.2)
            with pytest.raises(ServerSetupError, match=f"migration {in_the_way_of} .*in use.*pg_stat_activity"):
                await migrate(empty_database_url)
        # Where the first try has taken all of its patience, it did not say so.
        caplog.clear()
        migrating = asyncio.create_task(migrate(empty_database_url))
        # As soon as it has been refused once, whoever writes to the table comes through.
        async with asyncio.timeout(20):
            while "trying again" not in caplog.text:
                await asyncio.sleep(0.01)
            await other.execute("DELETE FROM chunks")
            # So would one that has read, and writes only now.
            await user.execute("DELETE FROM chunks")
        assert not migrating.done()
    assert await migrating == [one.name for one in sql.migrations() if one.version >= in_the_way_of]
    await user.close()
    await other.close()


async def test_a_server_that_waits_for_its_turn_to_migrate_can_be_ended(empty_database_url):
    other = await asyncpg.connect(empty_database_url)
    await other.execute("SELECT pg_advisory_lock($1)", migrations.LOCK)
    arguments = ["--port", str(free_port()), "--database-url", empty_database_url]
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stepstream.cli", "server", *arguments, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        while b"waiting for it" not in (line := await server.stderr.readline()):
            assert line, "it has ended"
        server.terminate()
        assert await server.wait() == 0
    await other.close()


async def test_a_database_of_a_newer_stepstream_is_left_alone(database_url):
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO schema_migrations (version, name) VALUES (999, 'future')")
    await connection.close()
    with pytest.raises(DatabaseTooNew, match="999"):
        await migrate(database_url)


def test_a_request_that_is_under_way_at_sigterm_is_committed_and_answered(server_factory):
    server = server_factory("--workers", "1")
    body = batch.pack([frame(1, start(), metrics({"a": [1.0, 2.0]}))])
    length = f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"POST {paths.FRAMES} HTTP/1.1\r\nHost: localhost\r\n{length}".encode())
        # Now it is under way.
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body[: len(body) // 2])
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[len(body) // 2 :])
        answer = b""
        while b'"stored"' not in answer:
            piece = connection.recv(65536)
            assert piece, answer
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert server.stop() == 0
    server.restart()
    assert post(server.url, frame(1, start(), metrics({"a": [1.0, 2.0]})))["duplicates"] == 1
