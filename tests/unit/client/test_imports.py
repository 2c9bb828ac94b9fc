"""Modules are loaded by several threads at once: the handle's own, and whoever calls something for the first time."""

import subprocess
import sys
from pathlib import Path

import pytest

CROSSING = """
import importlib, sys, threading
begun, go_on = threading.Event(), threading.Event()

class Hold:
    '''The package is under way, in the other thread, and has not come to its modules yet.'''

    def find_spec(self, name, path=None, target=None):
        if name == "aiohttp.hdrs" and threading.current_thread() is other:
            begun.set()
            go_on.wait(1.0)
        return None

def load():
    try:
        import stepstream.transport
    except BaseException as error:
        failed.append(repr(error))

failed = []
sys.meta_path.insert(0, Hold())
other = threading.Thread(target=load)
other.start()
assert begun.wait(30)
importlib.import_module(sys.argv[1])
other.join()
assert not failed, failed
"""


@pytest.mark.parametrize("module", ["artifacts.body", "artifacts.item", "artifacts.uploader", "fluent", "sender"])
def test_what_needs_the_http_client_can_be_loaded_while_another_thread_loads_it(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CROSSING, f"stepstream.{module}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


USERS_OWN = """
import contextlib, sys, threading
begun, go_on = threading.Event(), threading.Event()

class Hold:
    def find_spec(self, name, path=None, target=None):
        if name == "aiohttp.hdrs" and threading.current_thread().name == "stepstream-open":
            begun.set()
            go_on.wait(1.0)
        return None

sys.meta_path.insert(0, Hold())
import stepstream
run = stepstream.start_run(tracking_uri="http://127.0.0.1:1", spool_dir=sys.argv[1])
assert begun.wait(30)
with contextlib.suppress(ImportError, KeyError):
    import aiohttp.payload
run.log({"loss": 1.0})
run._writer.loaded.wait(30)
assert run._writer._sender is not None
assert run.finish(timeout=0.1).points_left == 1
"""


def test_a_run_starts_though_the_script_loads_a_module_of_the_http_client_meanwhile(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", USERS_OWN, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "could not start" not in done.stderr


@pytest.mark.parametrize("package", ["artifacts", "demo", "importing", "spool", "tracking"])
def test_a_package_loads_none_of_its_modules_by_itself(package: str) -> None:
    """Two threads, one of which loads the package and one the module, would wait for each other."""
    load = f"import sys, stepstream.{package}; sys.exit(str([m for m in sys.modules if '.{package}.' in m]))"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"


def test_what_a_package_has_of_its_modules_is_there_all_the_same() -> None:
    from stepstream import tracking
    from stepstream.tracking.client import MlflowClient

    assert tracking.MlflowClient is MlflowClient
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        tracking.nonsense
