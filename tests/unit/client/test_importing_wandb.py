"""What records mean, and a `wandb` that cannot be used. Records are as `wandb leet inspect --json` prints them."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.errors import ConfigurationError
from stepstream.importing import wandb_log
from stepstream.importing.keys import Keys
from stepstream.importing.values import Point
from stepstream.importing.wandb_log import Log, Printers
from stepstream.importing.wandb_run import Head, Histories, flat, number, parted
from stepstream_schema import limits

RUN = {
    "config": {"update": {"_wandb": {}, "lr": 0.1, "net": {"layers": 3, "none": None}, "empty": {}, "all": [1, "a"]}},
    "display_name": "first",
    "entity": "team",
    "notes": "a\0b",
    "project": "vision",
    "run_group": "g",
    "run_id": "abc",
    "start_time": "2026-11-26T17:34:42.851804Z",
    "tags": ["good", "very (good)"],
}
START_MS = 1_795_714_482_852


def head(*records: tuple[str, dict[str, Any]]) -> Head:
    made = Head()
    for kind, said in records:
        made.take(kind, said)
    return made


def points(*records: tuple[str, dict[str, Any]]) -> tuple[list[Point], Histories]:
    histories = Histories(START_MS)
    made = [point for kind, said in records for point in histories.take(kind, said)]
    return [*made, *histories.rest()], histories


def row(step: int, **values: Any) -> tuple[str, dict[str, Any]]:
    item = {"_runtime": 1.5, "_step": step, "_timestamp": 2000.0004 + step, **values}
    return "history", {"item": item, "step": {"num": step}}


def test_a_run_is_what_its_records_say_last() -> None:
    made = head(
        ("run", RUN),
        ("config", {"update": {"lr": 0.2, "net": {"layers": 4}}}),
        ("config", {"remove": [{"key": "all"}]}),
        ("environment", {"program": "train.py", "git": {"commit": "c0ffee", "remote_url": "https://me:pw@host/x.git"}}),
        ("environment", {"cpu_count": 2}),
        ("run", {**RUN, "display_name": "second", "config": {}}),
        row(3, loss=1),
        ("stats", {"item": {"cpu": 1}, "timestamp": "2026-11-26T17:35:42.926988813Z"}),
        ("exit", {}),
    )
    assert (made.identity, made.name, made.status) == (("team", "vision", "abc"), "second", "FINISHED")
    assert (made.start_ms, made.end_ms) == (START_MS, START_MS + 60_075)
    assert made.params(Keys()) == {"lr": "0.2", "net.layers": "4", "empty": "{}"}
    assert made.tags() == {
        "good": "true",
        "very _good_": "true",
        "mlflow.note.content": "a\ufffdb",
        "mlflow.runName": "second",
        "mlflow.source.name": "train.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "c0ffee",
        "mlflow.source.git.repoURL": "https://host/x.git",
        "wandb.entity": "team",
        "wandb.group": "g",
        "wandb.project": "vision",
        "wandb.run_id": "abc",
    }


@pytest.mark.parametrize(
    ("records", "status"),
    [([], "FAILED"), ([("exit", {"exit_code": 0})], "FINISHED"), ([("exit", {"exit_code": 3})], "FAILED")],
)
def test_only_a_run_that_says_it_ended_well_is_finished(records: list[Any], status: str) -> None:
    assert head(("run", RUN), *records).status == status


def test_a_run_ends_when_it_was_heard_last() -> None:
    assert head(("run", RUN)).end_ms == START_MS
    assert head(("run", RUN), ("summary", {"update": {"_wandb.runtime": 7}})).end_ms == START_MS + 7000


def test_a_resumed_run_starts_with_its_first_part_and_ends_with_its_last() -> None:
    first = head(("run", RUN), ("exit", {"exit_code": 0}))
    later = head(("run", {**RUN, "start_time": "2026-11-26T18:00:00Z", "notes": "late"}))
    whole = first.goes_on_with(later)
    assert (whole.start_ms, whole.end_ms, whole.status) == (START_MS, later.start_ms, "FAILED")
    assert whole.tags()["mlflow.note.content"] == "late"


def test_a_name_is_as_long_as_one_may_be() -> None:
    assert len(head(("run", {**RUN, "display_name": "x" * 600})).name) == limits.MAX_NAME_CHARS
    assert head(("run", {"run_id": "abc"})).name == "abc"


def test_numbers_become_points_and_the_rest_is_counted() -> None:
    media = {"img._type": "image-file", "img.width": 4, "img.path": "x.png", "deep.hist._type": "histogram"}
    made, histories = points(
        row(0, loss=0.5, ok=True, nan="NaN", word="hey", none=None, many=[1, 2], **media),
        row(7, loss="-Infinity", nested={"a": 1}, **{"odd (key)": 2, "_step_size": 3}),
    )
    assert [(key, value, step) for key, value, _, step in made if not math.isnan(value)] == [
        ("loss", 0.5, 0),
        ("ok", 1.0, 0),
        ("loss", -math.inf, 7),
        ("nested.a", 1.0, 7),
        ("odd _key_", 2.0, 7),
        ("_step_size", 3.0, 7),
    ]
    assert [(key, step) for key, value, _, step in made if math.isnan(value)] == [("nan", 0)]
    assert {time_ms for _, _, time_ms, _ in made} == {2_000_000, 2_007_000}
    # A word, None, a list, an image and a histogram.
    assert histories.left_out == 5


def test_a_row_without_step_and_time_of_its_own_takes_those_of_the_record() -> None:
    made, _ = points(
        row(3, a=1), ("history", {"item": {"a": 2}, "step": {"num": "4"}}), ("history", {"item": {"a": 3}})
    )
    assert made == [("a", 1.0, 2_003_000, 3), ("a", 2.0, 2_003_000, 4), ("a", 3.0, 2_003_000, 4)]


def test_what_the_summary_alone_says_is_a_point_at_the_last_step() -> None:
    made, histories = points(
        ("summary", {"update": {"_runtime": 1, "_wandb.runtime": 1, "loss": {"min": 0.5}, "word": "a"}}),
        row(5, loss=1, word="a"),
        ("summary", {"update": {"loss": {"min": 0.25}, "best": 9, "gone": {"x": 1}, "text": "b"}}),
        ("summary", {"remove": [{"key": "gone"}]}),
    )
    assert made[1:] == [("loss.min", 0.25, 2_005_000, 5), ("best", 9.0, 2_005_000, 5)]
    # `word` of the row, and `text` of the summary.
    assert histories.left_out == 2


def test_what_a_machine_was_measured_to_do_is_counted_from_zero() -> None:
    stats = [("stats", {"item": {"gpu.0.temp": 60 + one}, "timestamp": f"1970-01-01T00:00:0{one}Z"}) for one in (1, 2)]
    made, _ = points(*stats)
    assert made == [("system/gpu.0.temp", 61.0, 1000, 0), ("system/gpu.0.temp", 62.0, 2000, 1)]


def test_parts_give_the_same_points_together_and_one_by_one() -> None:
    parts = [
        [("stats", {"item": {"cpu": 10 * part + one}, "timestamp": f"1970-01-01T00:0{part}:0{one}Z"}) for one in (1, 2)]
        for part in (0, 1)
    ]
    whole = Histories(START_MS)
    together: list[Point] = []
    for part in parts:
        whole.next_part()
        together += [point for kind, said in part for point in whole.take(kind, said)]
    assert together == [point for part in parts for point in points(*part)[0]]


def test_names_that_would_have_one_key_have_two() -> None:
    made, histories = points(row(0, **{"top@1": 0.1, "top_1": 0.9}), row(1, **{"top_1": 0.8, "top@1": 0.2}))
    other = histories.keys.marked["top_1"]
    assert [(key, value) for key, value, _, _ in made] == [("top_1", 0.1), (other, 0.9), (other, 0.8), ("top_1", 0.2)]
    keys = Keys()
    said = head(("run", {**RUN, "config": {"update": {"a@b": 1, "a#b": 2}}})).params(keys)
    assert said == {"a_b": "1", keys.marked["a#b"]: "2"}


def test_artifacts_are_counted_and_tables_are_files() -> None:
    _, histories = points(("artifact", {"type": "dataset"}), ("artifact", {"type": "run_table"}))
    assert histories.artifacts == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1.0),
        (2, 2.0),
        (0.5, 0.5),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        ("1", None),
        (None, None),
        ({}, None),
    ],
)
def test_a_number_is_a_number(value: Any, expected: float | None) -> None:
    assert number(value) == expected


LEAVES = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
ITEMS = st.recursive(
    st.dictionaries(st.text("ab._", min_size=1, max_size=3), LEAVES, max_size=5),
    lambda inner: st.dictionaries(st.text("ab", min_size=1, max_size=2), inner | LEAVES, max_size=4),
)


@given(ITEMS)
def test_every_value_of_a_row_is_a_number_or_left_out(item: dict[str, Any]) -> None:
    values = dict(flat(item))
    numbers, left_out = parted(values)
    assert len(numbers) + left_out <= len(values)
    assert {key for key, _ in numbers} <= values.keys()
    if not any(key.startswith("_") or "._type" in key for key in values):
        assert len(numbers) + left_out == len(values)


def test_that_wandb_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ConfigurationError, match=r"stepstream\[import-wandb\]"):
        wandb_log.check()


@pytest.mark.parametrize(
    ("version", "will_do"), [("0.30.9", False), ("0.31.0rc1", True), ("1.0", True), ("odd", False)]
)
def test_that_wandb_is_too_old_is_said(
    version: str, will_do: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    described = tmp_path / "wandb-0.dist-info" / "METADATA"
    described.parent.mkdir()
    described.write_text(f"Metadata-Version: 2.1\nName: wandb\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    if will_do:
        wandb_log.check()
    else:
        with pytest.raises(ConfigurationError, match=r"0\.31"):
            wandb_log.check()


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import sys; print('{\"type\": \"exit\"}'); sys.exit('the disk is gone')", "the disk is gone"),
        ('import os; print(\'{"type": "exit"}\', flush=True); os._exit(3)', "wandb ended with 3"),
        ('print(\'{"type": "exit"}\'); print(\'{"type": \')', "1 records could not be understood"),
        ("import sys; print('{\"type\": \"exit\"}'); print('some warning', file=sys.stderr)", ""),
    ],
)
def test_a_command_that_fails_is_said_after_all_that_it_printed(
    program: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A disk that fails half-way cannot be had otherwise.
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "__init__.py").touch()
    (tmp_path / "wandb" / "__main__.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    log = Log(tmp_path / "run-x.wandb", Printers())
    assert list(log.records()) == [("exit", {})]
    assert log.problem == (f"{log.file}: {problem}" if problem else "")


def test_what_was_printed_is_kept_for_the_next_reading_within_its_bound(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A process that leaves a file behind for each time it was started: the real one tells nobody.
    program = "import os, sys; open(os.environ['STARTS'], 'a').write('x'); print('{\"type\": \"exit\"}\\n' * 1000)"
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "__init__.py").touch()
    (tmp_path / "wandb" / "__main__.py").write_text(program)
    starts = tmp_path / "starts"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("STARTS", str(starts))
    log = Log(tmp_path / "run-x.wandb", Printers())
    log.file.touch()

    def started() -> int:
        starts.write_text("")
        assert list(log.records()) == [("exit", {})] * 1000
        return len(starts.read_text())

    assert next(log.records()) == ("exit", {})
    assert (log.kept_bytes, started()) == (0, 1), "what was not read to the end was kept"
    assert 0 < log.kept_bytes < 1000
    assert started() == 0
    log.forget()
    assert started() == 1
    log.file.unlink()
    assert started() == 1, "a file that is gone was read from memory"
    monkeypatch.setattr(wandb_log, "MAX_KEPT_BYTES", 5)
    assert (started(), log.kept_bytes) == (1, 0)


def test_the_package_is_imported_once_for_all_files_that_are_read_to_their_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    (tmp_path / "wandb" / "cli").mkdir(parents=True)
    for folder in ("wandb", "wandb/cli"):
        (tmp_path / folder / "__init__.py").touch()
    (tmp_path / "wandb" / "cli" / "cli.py").write_text(
        "import os; print(os.getpid(), file=open(os.environ['SAID'], 'a'))"
    )
    program = 'import sys, wandb.cli.cli; print(\'{"type": "exit", "exit": {"of": "%s"}}\' % sys.argv[-1])'
    (tmp_path / "wandb" / "__main__.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SAID", str(said))
    printers = Printers()
    logs = [Log(tmp_path / f"run-{number}.wandb", printers) for number in range(3)]
    for log in logs:
        assert list(log.records()) == [("exit", {"of": str(log.file)})]
    assert len(said.read_text().split()) == 1
    half_read = logs[0].records()
    next(half_read)
    assert list(logs[1].records()) == [("exit", {"of": str(logs[1].file)})], "another one prints meanwhile"
    half_read.close()
    assert list(logs[2].records()) == [("exit", {"of": str(logs[2].file)})]
    started = [int(number) for number in said.read_text().split()]
    assert len(started) == 2
    del logs, log, half_read, printers
    assert not any(psutil.pid_exists(number) for number in started)


@pytest.mark.parametrize("ends_first", [False, True])
def test_a_python_that_does_not_start_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ends_first: bool
) -> None:
    class Ended(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.wait()

    monkeypatch.setattr(sys, "executable", "/bin/false")
    if ends_first:
        monkeypatch.setattr(subprocess, "Popen", Ended)
    log = Log(tmp_path / "run-x.wandb", Printers())
    assert list(log.records()) == []
    assert log.problem == f"{log.file}: wandb ended with 1"
