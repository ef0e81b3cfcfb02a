"""Inside a task of a Dask worker, everything works, although the task holds the last thread."""

import subprocess
import sys
from pathlib import Path

import pytest
from cluster_tools import environment
from resume_tools import source

pytest.importorskip("distributed")
# A run that hangs must end the test and not the patience of people.
LIMIT_SECONDS = 120


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_three_tasks_on_a_worker_of_one_thread_do_not_wait_for_each_other(kind, tmp_path):
    program = Path(__file__).with_name("nested_tasks.py")
    command = [sys.executable, str(program), kind, str(source(tmp_path)), str(tmp_path)]
    found = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert found.stdout == "done\n", found.stderr[-3000:]
