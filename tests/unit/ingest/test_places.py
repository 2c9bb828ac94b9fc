"""Where a server keeps what is its own: nobody else's, bounded, and found again."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from stepstream_ingest import config, private, supervisor
from stepstream_ingest.errors import ServerSetupError
from stepstream_ingest.postgres import cluster as clusters
from stepstream_ingest.postgres import given, socket_dir
from stepstream_ingest.postgres.cluster import Cluster
from tests.unit.ingest.test_small import parsed


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_directory_that_somebody_else_has_made_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir(mode=0o777)
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    with pytest.raises(ServerSetupError, match="belongs to somebody else"):
        private.make(tmp_path / "link")
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(ServerSetupError, match="belongs to somebody else"):
        private.make(tmp_path / "theirs")
    monkeypatch.undo()
    (tmp_path / "mine").mkdir(mode=0o755)
    private.make(tmp_path / "mine")
    assert mode(tmp_path / "mine") == 0o700


def test_the_socket_lies_beside_the_data_and_elsewhere_where_its_path_is_too_long(short_path, monkeypatch):
    near = short_path / "d" / "postgres"
    assert socket_dir.choose(near) == short_path / "d" / "postgres-socket"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "gone"))
    far = short_path / ("long" * 30) / "postgres"
    found = socket_dir.choose(far)
    assert found.parent not in (far.parent, short_path / "gone")
    assert mode(found) == 0o700
    found.rmdir()
    (short_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path / "run"))
    assert socket_dir.choose(far).parent == short_path / "run"


def test_the_data_directory_is_private_from_the_start_and_one_that_is_not_is_said(tmp_path, caplog):
    asked = config.load(parsed("--data-dir", str(tmp_path / "new" / "data")), {})
    left = asked.data_dir / "workers" / "left"
    for _ in range(2):
        with supervisor._places(asked) as shared:
            assert (mode(asked.data_dir), shared, list(shared.iterdir())) == (0o700, left.parent, [])
        shared.mkdir()
        left.write_text("by a server that was killed")
    assert "may look into" not in caplog.text
    asked.data_dir.chmod(0o755)
    with supervisor._places(asked):
        assert "may look into" in caplog.text


def test_where_nothing_can_be_written_is_said_with_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    asked = config.load(parsed("--database-url", "postgresql://h/d", "--artifact-root", f"file://{tmp_path}"), {})
    with pytest.raises(ServerSetupError, match="TMPDIR"), supervisor._places(asked):
        pass


def test_what_postgresql_says_is_cut_in_the_file_that_it_appends_to(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "LOG_BYTES", 100)
    subject = Cluster(tmp_path / "postgres", binaries=None)
    log = tmp_path / "postgres.log"
    subject.keep_log_short()
    with log.open("ab", buffering=0) as file:
        for number in range(50):
            file.write(b"line %d\n" % number)
            subject.keep_log_short()
            assert log.stat().st_size <= 100 + 8
    kept = (tmp_path / "postgres.log.1").read_bytes() + log.read_bytes()
    assert kept.endswith(b"line 48\nline 49\n")
    assert b"\0" not in kept


def test_a_full_disk_keeps_postgresql_from_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(clusters, "LOG_BYTES", 100)
    subject = Cluster(tmp_path / "postgres", binaries=None)
    (tmp_path / "postgres.log").write_bytes(b"x" * 101)

    def full(*_: object) -> None:
        """A fake, as a full disk is hard to have."""
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    subject.keep_log_short()
    assert (tmp_path / "postgres.log").read_bytes() == b""
    (tmp_path / "postgres.log").write_bytes(b"x" * 101)
    monkeypatch.setattr(os, "truncate", full)
    for _ in range(3):
        subject.keep_log_short()
    assert caplog.text.count("cannot be kept short") == 1


async def test_a_server_that_is_told_to_stop_does_not_wait_for_postgresql_to_recover(tmp_path, monkeypatch):
    stopped = []

    class Recovers(Cluster):
        """A fake, as a recovery takes as long as it likes."""

        async def start(self) -> None:
            await asyncio.sleep(60)

        async def stop(self) -> None:
            stopped.append(self)

    monkeypatch.setattr(supervisor, "Cluster", Recovers)
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, stop.set)
    async with asyncio.timeout(10):
        async with supervisor._database(config.load(parsed("--data-dir", str(tmp_path)), {}), stop) as found:
            assert found is None
    assert len(stopped) == 1


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hid/den@127.0.0.1/x", "postgresql://me:hidden@127.0.0.1:99999/x", "postgresql://me:hid[den@h/x"],
)
async def test_a_database_url_that_cannot_be_read_is_said_without_its_password(url):
    with pytest.raises(ServerSetupError, match="%2F") as caught, given.explained("PostgreSQL"):
        await given.check(url, 1)
    assert "hid" not in str(caught.value) + supervisor._without_password(url)


async def test_a_user_who_may_make_no_tables_is_told_so(cluster, empty_database_url):
    import asyncpg

    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("DROP ROLE IF EXISTS reader")
    await connection.execute("CREATE ROLE reader LOGIN")
    with pytest.raises(ServerSetupError, match="GRANT CREATE ON SCHEMA public"), given.explained("PostgreSQL"):
        await supervisor.migrate(empty_database_url.replace("stepstream@", "reader@"))
    await connection.execute("DROP ROLE reader")
    await connection.close()


def test_a_token_is_taken_without_the_newline_of_its_file():
    assert config.load(parsed(), {"STEPSTREAM_TOKEN": "secret\n"}).token == "secret"
    assert config.load(parsed(), {"STEPSTREAM_TOKEN": "\n"}).token is None
