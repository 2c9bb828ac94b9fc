"""Real object stores for tests: SeaweedFS and JuiceFS for S3, Azurite, and Google's emulator."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import PORTS, free_port

START_TIMEOUT_S = 60
BUCKET = "runs"


@contextmanager
def seaweedfs(directory: Path, memory: str = "1GiB") -> Iterator[dict[str, str]]:
    """An S3 server that verifies signatures; what the environment must say to use it.

    `memory` bounds its heap: near the bound it does nothing but collect garbage.
    """
    directory.mkdir(parents=True)
    config = directory / "s3.json"
    identity = {
        "name": "app",
        "credentials": [{"accessKey": "AK", "secretKey": "SK"}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    names, found = ("master.port", "volume.port", "filer.port", "s3.port"), set[int]()
    while len(found) < len(names):
        # Nor may two of them be 10000 apart.
        port = _low_port()
        found |= {port} if found.isdisjoint({port - 10_000, port + 10_000}) else set()
    ports = dict(zip(names, found, strict=True))
    command = [
        str(Path(sys.executable).with_name("weed")),
        "-logtostderr=true",
        "mini",
        f"-dir={directory}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.config={config}",
        *(f"-{name}={port}" for name, port in ports.items()),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
    ]
    environ = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports['s3.port']}",
        "AWS_ACCESS_KEY_ID": "AK",
        "AWS_SECRET_ACCESS_KEY": "SK",
        "AWS_REGION": "us-east-1",
    }
    with _process(command, directory / "weed.log", {"GOMEMLIMIT": memory}, signal.SIGINT):
        _retry(lambda: _make_bucket(environ))
        yield environ


@contextmanager
def juicefs(directory: Path) -> Iterator[dict[str, str]]:
    """JuiceFS' gateway, which is MinIO's: it verifies signatures and takes half of SeaweedFS' CPU for a gigabyte."""
    directory.mkdir(parents=True)
    program = str(Path(sys.executable).with_name("juicefs"))
    meta = f"sqlite3://{directory}/meta.db"
    disk = ["--storage", "file", "--bucket", f"{directory}/data/", "--trash-days", "0"]
    made = subprocess.run([program, "format", *disk, meta, "test"], capture_output=True, text=True, check=False)
    if made.returncode:
        raise RuntimeError(f"juicefs format: {made.stderr}")
    port = free_port()
    options = ["--multi-buckets", "--keep-etag", "--object-meta", "--no-usage-report", "--backup-meta", "0"]
    places = ["--cache-dir", f"{directory}/cache", "--cache-size", "0", "--log", f"{directory}/gateway.log"]
    command = [program, "gateway", *options, *places, "--metrics", f"127.0.0.1:{free_port()}", meta]
    environ = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "AK-juicefs",
        "AWS_SECRET_ACCESS_KEY": "SK-juicefs",
        "AWS_REGION": "us-east-1",
        # It is older than these, and takes a body with them for another one.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    root = {"MINIO_ROOT_USER": environ["AWS_ACCESS_KEY_ID"], "MINIO_ROOT_PASSWORD": environ["AWS_SECRET_ACCESS_KEY"]}
    with _process([*command, f"127.0.0.1:{port}"], directory / "juicefs.log", root, signal.SIGTERM):
        _retry(lambda: _make_bucket(environ))
        yield environ


@contextmanager
def azurite(directory: Path, command: str) -> Iterator[dict[str, str]]:
    """Microsoft's emulator; what the environment must say to use it."""
    port = free_port()
    # Azurite's own account, which its documentation names; its key is public.
    account, key = "devstoreaccount1", "ZGV2c3RvcmVhY2NvdW50MS1rZXktb2YtdGhlLXRlc3Rz"
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{account};"
    )
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(directory), "--silent"]
    extra = {"AZURITE_ACCOUNTS": f"{account}:{key}"}
    log = directory.with_suffix(".log")
    with _process([command, *arguments, "--skipApiVersionCheck"], log, extra, signal.SIGTERM):
        _retry(lambda: _make_container(connection))
        yield {"AZURE_STORAGE_CONNECTION_STRING": connection}


@contextmanager
def google(directory: Path) -> Iterator[dict[str, str]]:
    """Google's emulator, which takes any signature, and a service account that signs; its public key is beside it."""
    directory.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    environ = {
        "STORAGE_EMULATOR_HOST": url,
        "STEPSTREAM_ARTIFACT_PUBLIC_ENDPOINT": url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(_service_account(directory)),
        "GOOGLE_CLOUD_PROJECT": "test",
    }
    with _process([*command, "--in-memory", "--default-bucket", BUCKET], directory / "log", {}, signal.SIGTERM):
        _retry(lambda: urllib.request.urlopen(url, timeout=2).close())
        yield environ


def find_azurite() -> str | None:
    """Its command, where it is installed (npm install -g azurite)."""
    return shutil.which("azurite-blob")


def _service_account(directory: Path) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    (directory / "public.pem").write_bytes(public)
    account = {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "1",
        "private_key": private.decode(),
        "client_email": "tests@test.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "http://127.0.0.1:1/token",
    }
    path = directory / "account.json"
    path.write_text(json.dumps(account))
    return path


def _make_bucket(environ: dict[str, str]) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="probe", Body=b"x")
    client.delete_object(Bucket=BUCKET, Key="probe")


def _make_container(connection: str) -> None:
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient.from_connection_string(connection, retry_total=0) as service:
        service.create_container(BUCKET)


@contextmanager
def _process(command: list[str], log: Path, extra: dict[str, str], stop: signal.Signals) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | extra, cwd=log.parent)
    try:
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _retry(attempt: Callable[[], object]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            attempt()
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _low_port() -> int:
    """A free port whose neighbour 10000 further is free too: SeaweedFS opens both."""
    while True:
        port = free_port()
        if port + 10_000 not in PORTS:
            continue
        with socket.socket() as one, socket.socket() as two:
            try:
                one.bind(("127.0.0.1", port))
                two.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
