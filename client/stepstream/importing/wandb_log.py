"""The border to the `wandb` package, whose documented command prints what is in a run's file, a record a line."""

import gzip
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from stepstream.errors import ConfigurationError
from stepstream.importing import wandb_printer

OLDEST: Final = (0, 31)
"""The first that has the command."""
REMARK: Final = "wandb leet inspect:"
CUT_OFF: Final = "incomplete .wandb file"
"""What it remarks of a run that was killed or is still running: all that the file holds is printed."""
MAX_PROBLEM_CHARS: Final = 500
"""A traceback's end tells more than its beginning."""
MAX_KEPT_BYTES: Final = 16 * 2**20
"""Of what one file says, compressed: a file that says more is printed again when it is read again."""


def check() -> None:
    """Raises ConfigurationError where the package is not installed, or is too old."""
    install = "pip install 'stepstream[import-wandb]'"
    try:
        version = importlib.metadata.version("wandb")
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigurationError(f"reading W&B's files needs the package 'wandb': {install}") from error
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise ConfigurationError(f"wandb {version} cannot print its files, which {oldest} can: {install}")


class Log:
    """A .wandb file. Law: it says the same again unless it was written to; one that was cut off says all it holds."""

    def __init__(self, file: Path, printers: "Printers") -> None:
        self.file = file
        self._printers = printers
        self.problem = ""
        """What the last reading to the end could not read, and why; empty where it could read everything."""
        self._kept = b""

    @property
    def kept_bytes(self) -> int:
        """Of memory, for the next reading."""
        return len(self._kept)

    def forget(self) -> None:
        """Keeps nothing: the next reading has the file printed again."""
        self._kept = b""

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, what it says), in the order in which they were written."""
        # What was kept of a file that is gone would pass for a run that is still there.
        if self._kept and self.file.exists():
            with gzip.open(io.BytesIO(self._kept)) as lines:
                yield from (record for line in lines if (record := _record(line)))
        else:
            yield from self._printed()

    def _printed(self) -> Iterator[tuple[str, dict[str, Any]]]:
        self.problem, self._kept, broken, kept = "", b"", 0, _Kept()
        with self._printers.one() as printer:
            for line in printer.lines(self.file):
                record = _record(line)
                if record is None:
                    broken += 1
                else:
                    kept.add(line)
                    yield record
            problem = _problem(printer.code, printer.errors(), broken)
        self.problem = f"{self.file}: {problem}" if problem else ""
        self._kept = kept.end()


class Printers:
    """Processes that print files, as many as are read at a time; they end with this."""

    def __init__(self) -> None:
        self._idle: list[_Printer] = []
        weakref.finalize(self, _end_all, self._idle)

    @contextmanager
    def one(self) -> Iterator["_Printer"]:
        """One that prints for nobody else. What is not read to its end costs a new process, and nothing else."""
        try:
            printer = self._idle.pop()
        except IndexError:
            printer = _Printer()
        try:
            yield printer
        finally:
            if printer.is_done:
                self._idle.append(printer)
            else:
                printer.end()


class _Printer:
    """See wandb_printer. Law: what it says of one file stands in no other's lines."""

    def __init__(self) -> None:
        # -P: the working directory may well have a folder `wandb`.
        command = [sys.executable, "-P", "-m", wandb_printer.__name__]
        # Reading a file is nothing to tell anybody's server, and no setting of a training concerns it.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environ |= {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environ
        )
        self.code = 0
        """Of the command for the last file."""
        self.is_done = False
        """The last file was printed to its end."""

    def lines(self, file: Path) -> Iterator[bytes]:
        """What the command prints of a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.is_done = False
        self._errors.seek(0)
        self._errors.truncate()
        # One that could not even start has said why.
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(str(file.resolve())).encode() + b"\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            said, end, code = line.partition(wandb_printer.END.encode())
            if said:
                yield said
            if end:
                self.code, self.is_done = int(code), True
                return
        self.code = self._process.wait()

    def errors(self) -> str:
        """What it said beside the records of the last file."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def end(self) -> None:
        """Whatever it prints."""
        assert self._process.stdin is not None
        self._process.kill()
        # What a process that ended did not take is written once more by closing.
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        # Its child finds nobody who reads.
        with self._process, self._errors:
            pass


def _end_all(printers: list[_Printer]) -> None:
    for printer in printers:
        printer.end()


class _Kept:
    """Lines for the next reading, compressed; none once they are too much."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._file = gzip.GzipFile(fileobj=self._bytes, mode="wb", compresslevel=1)

    def add(self, line: bytes) -> None:
        if self._bytes.tell() <= MAX_KEPT_BYTES:
            self._file.write(line)

    def end(self) -> bytes:
        self._file.close()
        return self._bytes.getvalue() if self._bytes.tell() <= MAX_KEPT_BYTES else b""


def _record(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """None for a line that cannot be understood."""
    try:
        record = json.loads(line)
        return str(record["type"]), dict(record.get(record["type"]) or {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _problem(code: int, errors: str, broken: int) -> str:
    if code:
        return errors.strip()[-MAX_PROBLEM_CHARS:] or f"wandb ended with {code}"
    remarks = [line for line in errors.splitlines() if line.startswith(REMARK) and CUT_OFF not in line]
    remarks = [line.removeprefix(REMARK).strip() for line in remarks]
    return "; ".join([*remarks, *([f"{broken} records could not be understood"] if broken else [])])
