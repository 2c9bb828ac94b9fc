"""What runs, also where nobody can say where it does."""

import subprocess
import sys

SCRIPT = """
import os, sys
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
from stepstream import code_version
print(code_version.tags()["mlflow.source.type"])
"""


def test_a_working_directory_that_was_removed_costs_only_the_commit(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(gone)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "LOCAL\n", done.stderr
