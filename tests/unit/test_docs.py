"""The documentation says what the code does: settings, routes, limits, codes of errors, and the bytes of a frame."""

import ast
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final, get_args

import msgpack
import pytest
import zstandard

import stepstream
from stepstream.process import ProcessId
from stepstream.spool.segment import SegmentHeader, encode_entry, encode_header
from stepstream_schema import errors, limits, paths, records

ROOT: Final = Path(__file__).parents[2]
WIRE_FORMAT: Final = ROOT / "docs" / "wire-format.md"
GOLDEN: Final = ROOT / "tests" / "golden"


def pages() -> str:
    """All that a user may read, as one text."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def settings_in_sources() -> set[str]:
    """Every STEPSTREAM_* name that stands in a string of the packages, or that settings.py puts together."""
    names: set[str] = set()
    for path in [*(ROOT / "client").rglob("*.py"), *(ROOT / "ingest").rglob("*.py")]:
        source = path.read_text(encoding="utf-8")
        names.update(re.findall(r"STEPSTREAM_[A-Z0-9_]*[A-Z0-9]", source))
        # number("SPOOL_MAX_BYTES", ...) reads STEPSTREAM_SPOOL_MAX_BYTES.
        names.update(f"STEPSTREAM_{name}" for name in re.findall(r'number\("([A-Z_]+)"', source))
    return names


def routes() -> set[str]:
    tree = ast.parse(Path(paths.__file__).read_text(encoding="utf-8"))
    constants = {
        node.target.id for node in tree.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    fixed = {getattr(paths, name) for name in constants}
    return fixed | {path("{run_id}") for path in (paths.run, paths.run_metrics, paths.run_history, paths.run_ranks)}


def block(marker: str) -> bytes:
    """The bytes of the marked block: the hex digits that begin each of its lines, two spaces before the comment."""
    text = WIRE_FORMAT.read_text(encoding="utf-8")
    lines = text.split(f"<!-- {marker} -->\n```\n")[1].split("```")[0].splitlines()
    return bytes.fromhex("".join(re.split(r"\s{2,}", line)[0] for line in lines))


def server_options() -> list[str]:
    source = (ROOT / "ingest" / "stepstream_ingest" / "config.py").read_text(encoding="utf-8")
    return re.findall(r'add_argument\(\s*"(--[a-z-]+)"', source)


@pytest.mark.parametrize("option", server_options())
def test_every_option_of_the_server_is_in_the_readme(option: str) -> None:
    assert f"`{option}`" in (ROOT / "README.md").read_text(encoding="utf-8")


def error_codes() -> set[str]:
    """Every code that an answer of the server can carry."""
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "ingest").rglob("*.py"))
    raised = re.findall(r'ApiError\(\s*\d{3},\s*"([A-Z_]+)"', sources)
    translated = re.findall(r'\b\d{3}: "([A-Z_]+)"', sources)
    return {*raised, *translated, "INTERNAL_ERROR", "HTTP_ERROR"}


@pytest.mark.parametrize("code", sorted(error_codes()))
def test_every_error_code_is_in_the_readme(code: str) -> None:
    assert f"`{code}`" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(settings_in_sources()))
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert name in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in stepstream.__all__ if name[0].islower()])
def test_every_public_function_is_in_the_page_of_the_sdk(name: str) -> None:
    assert f"`{name}`" in (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")


def test_every_method_of_the_client_is_in_the_page_of_the_sdk() -> None:
    page = (ROOT / "docs" / "sdk.md").read_text(encoding="utf-8")
    methods = [name for name in dir(stepstream.MlflowClient) if not name.startswith("_")]
    assert [name for name in methods if f"`{name}`" not in page] == []


@pytest.mark.parametrize("path", sorted(routes()))
def test_every_route_is_documented(path: str) -> None:
    assert path in pages()


@pytest.mark.parametrize("name", [name for name in dir(limits) if name.isupper()])
def test_every_limit_is_documented_with_its_value(name: str) -> None:
    row = f"| `{name}` | {getattr(limits, name):,} |"
    assert row in pages()


@pytest.mark.parametrize("code", get_args(errors.FrameErrorCode))
def test_every_code_of_a_refusal_is_in_the_wire_format(code: str) -> None:
    assert f"| `{code}` |" in WIRE_FORMAT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["START", "MATRIX", "RAGGED", "PARAMS", "TAGS", "STATUS", "HEARTBEAT", "DATASET"])
def test_every_kind_of_record_is_in_the_wire_format(name: str) -> None:
    assert f"| {getattr(records, name)} | {name.lower()} |" in WIRE_FORMAT.read_text(encoding="utf-8")
    assert f"below {records.OPTIONAL_KINDS} " in WIRE_FORMAT.read_text(encoding="utf-8")


def test_the_worked_example_is_the_golden_file() -> None:
    assert block("example: tests/golden/frame_v1_matrix.bin") == (GOLDEN / "frame_v1_matrix.bin").read_bytes()


def test_the_inflated_example_is_what_the_golden_file_holds() -> None:
    body = msgpack.unpackb((GOLDEN / "frame_v1_matrix.bin").read_bytes())[6][0][-1]
    assert block("inflated: tests/golden/frame_v1_matrix.bin") == zstandard.ZstdDecompressor().decompress(body)


def test_every_link_to_a_file_leads_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        broken += [f"{page.name}: {link}" for link in links if not (page.parent / link).exists()]
    assert broken == []


def test_every_decision_is_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert numbers == list(range(1, len(numbers) + 1))


def test_every_make_target_that_the_readme_names_exists() -> None:
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", pages())) <= made
    assert {"install", "demo", "test", "lint", "format", "types", "bench", "clean"} <= made


def test_a_spool_segment_is_laid_out_as_documented() -> None:
    owner = ProcessId(**dict.fromkeys(ProcessId.__dataclass_fields__, 1))  # type: ignore[arg-type]
    header = SegmentHeader(
        run_id="ab" * 16, writer=7, number=1, owner=owner, tracking_uri="u", experiment="e", created_ms=5
    )
    data = encode_header(header) + encode_entry(b"frame")
    assert data[:8] == b"SSSPOOL1"
    length, checksum = struct.unpack_from("<II", data, 8)
    first = data[16 : 16 + length]
    assert zlib.crc32(first) == checksum
    text = WIRE_FORMAT.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in json.loads(first))
    assert data[16 + length :] == struct.pack("<II", 5, zlib.crc32(b"frame")) + b"frame"


def test_the_script_of_the_readme_runs_while_no_server_is_there(tmp_path: Path) -> None:
    script = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STEPSTREAM_", "MLFLOW_"))}
    environment |= {
        "STEPSTREAM_TRACKING_URI": "http://127.0.0.1:9",
        "STEPSTREAM_SPOOL_DIR": str(tmp_path),
        "STEPSTREAM_SPOOL_MIN_FREE_BYTES": "0",
        "STEPSTREAM_FINISH_TIMEOUT": "0.2",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    said = done.stderr, sorted(path.name for path in tmp_path.iterdir())
    assert done.returncode == 0, said
    assert "stepstream sync" in done.stderr, said
    assert len(list(tmp_path.glob("*.seg"))) == 1, said


def test_every_module_that_the_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    have = {path.name for root in ("client", "ingest", "schema") for path in (ROOT / root).rglob("*.py")}
    assert set(re.findall(r"`([a-z_]+\.py)`", text)) <= have
