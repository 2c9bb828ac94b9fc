"""Checkpoints from many processes at once: `python -m benchmarks.artifacts --mlflow-python ...`.

StepStream, boto3's own transfer and MLflow's proxied upload send the same number of files to the same S3 server, in
turns. Both servers to choose from verify signatures; what they take of these cores themselves is measured too.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from tests.e2e.proxy import in_thread
from tests.stores import BUCKET, juicefs, seaweedfs

from benchmarks import page_cache, results
from benchmarks.servers import BenchmarkServer, Postgres, Process, free_port

WARM_UPS = 5

STEPSTREAM = """
import sys, stepstream
run = stepstream.start_run(tracking_uri=sys.argv[1], run_id=sys.argv[3], spool_dir=sys.argv[4])
run.log({"x": 1.0}, step=0)
run.flush()
print("ready", flush=True); sys.stdin.readline()
handle = run.log_artifact(sys.argv[2], "checkpoint")
assert handle.wait(600), handle.errors
print("done", flush=True)
run.finish()
"""

BOTO3 = """
import sys, boto3
client = boto3.client("s3", endpoint_url=sys.argv[1])
print("ready", flush=True); sys.stdin.readline()
client.upload_file(sys.argv[2], sys.argv[3], "boto3/" + sys.argv[4])
print("done", flush=True)
"""

MLFLOW = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.start_run()
print("ready", flush=True); sys.stdin.readline()
mlflow.log_artifact(sys.argv[2], "checkpoint")
print("done", flush=True)
mlflow.end_run()
"""


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mlflow-python", default=sys.executable, help="a Python that has MLflow and boto3")
    parser.add_argument("--store", choices=("juicefs", "seaweedfs"), default="juicefs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text, Postgres(Path(text) / "pg") as postgres:
        scratch = Path(text)
        with _store(arguments.store, scratch / "s3") as environ:
            os.environ.update(environ)
            bench = Bench(scratch, arguments.processes, arguments.megabytes, _processes_in(scratch / "s3"))
            results.say(f"StepStream and boto3, to {arguments.store}")
            ours: list[dict[str, Any]] = []
            boto3: list[dict[str, Any]] = []
            with stepstream_server(scratch, postgres, environ["AWS_ENDPOINT_URL_S3"]) as server:
                # Every worker loads its S3 client with its first request, and the store its volumes.
                for number in range(WARM_UPS):
                    server.measure(lambda url, n=number: Bench(scratch, 4, 40, ()).stepstream(url, 10**6 + n))
                bench.boto3(environ["AWS_ENDPOINT_URL_S3"], 10**6)
                for number in range(arguments.rounds):
                    ours.append(server.measure(lambda url, n=number: bench.stepstream(url, n)))
                    boto3.append(bench.boto3(environ["AWS_ENDPOINT_URL_S3"], number))
            results.say("MLflow")
            mlflow = _mlflow(arguments.mlflow_python, postgres, scratch, bench, arguments.rounds)
    rates = {name: _median(rounds) for name, rounds in (("stepstream", ours), ("boto3", boto3), ("mlflow", mlflow))}
    traffic = max(one["server_traffic_kb"] for one in ours)
    growth = max(one["server_growth_mb"] for one in ours)
    results.emit(
        files=f"{arguments.processes} x {arguments.megabytes} MB",
        store=arguments.store,
        stepstream=ours,
        boto3=boto3,
        mlflow=mlflow,
        ratio_to_boto3=round(rates["stepstream"] / rates["boto3"], 2),
        ratio_to_mlflow=round(rates["stepstream"] / rates["mlflow"], 2),
        reached={
            "server's own traffic < 1 MB": traffic < 1000,
            "server's memory flat: grows < 16 MB": growth < 16,
            ">= 0.8 x boto3's transfer": rates["stepstream"] >= 0.8 * rates["boto3"],
            ">= 3 x MLflow's proxied upload": rates["stepstream"] >= 3 * rates["mlflow"],
        },
    )


def _median(rounds: Sequence[Mapping[str, Any]]) -> float:
    return statistics.median(one["mb_per_s"] for one in rounds)


def _store(name: str, directory: Path) -> contextlib.AbstractContextManager[dict[str, str]]:
    return juicefs(directory) if name == "juicefs" else seaweedfs(directory, memory="4GiB")


def _processes_in(directory: Path) -> list[psutil.Process]:
    """The S3 server: its command line names its directory."""
    return [one for one in psutil.process_iter() if any(str(directory) in word for word in one.cmdline())]


class Bench:
    """The same work for every contender: new random files each time, so that nothing is known to any store."""

    def __init__(self, scratch: Path, processes: int, megabytes: int, store: Sequence[psutil.Process]) -> None:
        self._files = [scratch / f"shard-{number}.bin" for number in range(processes)]
        self._scratch = scratch
        self._megabytes = megabytes
        self._store = store

    @property
    def gigabytes(self) -> float:
        """Of one round."""
        return len(self._files) * self._megabytes / 1000

    def stepstream(self, url: str, number: int) -> dict[str, float]:
        """MB/s of all processes together, from log_artifact to stored, and what the store took for it."""
        run_id = f"{number:032x}"
        spool = str(self._scratch / "spool")
        return self._time([[sys.executable, "-c", STEPSTREAM, url, str(file), run_id, spool] for file in self._files])

    def boto3(self, endpoint: str, number: int) -> dict[str, float]:
        """The same for boto3."""
        return self._time(
            [
                [sys.executable, "-c", BOTO3, endpoint, str(file), BUCKET, f"{number}/{file.name}"]
                for file in self._files
            ]
        )

    def mlflow(self, python: str, url: str) -> dict[str, float]:
        """The same for MLflow."""
        return self._time([[python, "-c", MLFLOW, url, str(file)] for file in self._files])

    def _time(self, commands: Sequence[Sequence[str]]) -> dict[str, float]:
        for file in self._files:
            file.write_bytes(os.urandom(self._megabytes * 10**6))
        os.sync()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes: list[subprocess.Popen[str]] = [subprocess.Popen(command, **pipes) for command in commands]  # type: ignore[call-overload]
        for process in processes:
            _expect(process, "ready")
        page_cache.fill(self._scratch / "holes")
        began, store_began = time.monotonic(), self._store_cpu_s()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            _expect(process, "done")
        elapsed, store_ended = time.monotonic() - began, self._store_cpu_s()
        for process in processes:
            process.communicate()
        return {
            "mb_per_s": round(len(processes) * self._megabytes / elapsed, 1),
            "store_cpu_s_per_gb": round((store_ended - store_began) / self.gigabytes, 2),
        }

    def _store_cpu_s(self) -> float:
        """What the S3 server has burnt: on the same cores nobody can be faster than that allows."""
        return sum(sum(one.cpu_times()[:2]) for one in self._store)


class Watched:
    """A StepStream server whose every byte and whose memory are counted."""

    def __init__(self, proxies: Sequence[Any], pid: int) -> None:
        self._proxies = proxies
        self._pid = pid

    def measure(self, work: Any) -> dict[str, Any]:
        """Run `work`, which takes the server's URL."""
        passed, before = self._passed(), self._memory()
        peak = dict(before)
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.2):
                for pid, size in self._memory().items():
                    peak[pid] = max(peak.get(pid, 0), size)

        watcher = threading.Thread(target=watch)
        watcher.start()
        measured = work(self._proxies[0].url)
        stop.set()
        watcher.join()
        growth = max(peak[pid] - size for pid, size in before.items())
        return {
            **measured,
            "server_traffic_kb": round((self._passed() - passed) / 1000, 1),
            "server_growth_mb": round(growth / 10**6, 1),
        }

    def _passed(self) -> int:
        return sum(proxy.bytes_passed for proxy in self._proxies)

    def _memory(self) -> Mapping[int, int]:
        found = {}
        for process in psutil.Process(self._pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "stepstream_ingest.workers" in process.cmdline():
                    found[process.pid] = process.memory_info().rss
        return found


@contextlib.contextmanager
def stepstream_server(scratch: Path, postgres: Postgres, endpoint: str) -> Iterator[Watched]:
    """Its clients reach it, and it reaches the store, through proxies that count; clients reach the store directly."""
    with in_thread(int(endpoint.rpartition(":")[2])) as to_store:
        os.environ["AWS_ENDPOINT_URL_S3"] = to_store.url
        os.environ["STEPSTREAM_ARTIFACT_PUBLIC_ENDPOINT"] = endpoint
        root = ("--artifact-root", f"s3://{BUCKET}/stepstream")
        with BenchmarkServer(scratch / "stepstream", postgres.fresh("artifacts"), None, *root) as server:
            os.environ["AWS_ENDPOINT_URL_S3"] = endpoint
            with in_thread(int(server.url.rpartition(":")[2])) as to_server:
                yield Watched([to_server, to_store], server.pid)


def _mlflow(python: str, postgres: Postgres, scratch: Path, bench: Bench, rounds: int) -> list[dict[str, Any]]:
    postgres.fresh("mlflow")
    port = free_port()
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "4"]
    store = ["--backend-store-uri", postgres.by_tcp("mlflow"), "--artifacts-destination", f"s3://{BUCKET}/mlflow"]
    environment = {"MLFLOW_S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL_S3"]}
    with Process([*command, *store], f"http://127.0.0.1:{port}", scratch / "mlflow.log", environment) as server:
        urllib.request.urlopen(server.url + "/version").close()
        return [bench.mlflow(python, server.url) for _ in range(rounds)]


def _expect(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if said != word:
        raise RuntimeError(f"a process said {said!r}, not {word!r}; it ended with {process.poll()}")


if __name__ == "__main__":
    main()
