"""What vLLM starts below a worker ends with it, even if the worker is killed."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

from workers.engines.vllm_process import stay_with_parent

ROOT = Path(__file__).parents[2]
PARENT = """
import multiprocessing, time
from tests.unit.test_vllm_process import child
process = multiprocessing.get_context("spawn").Process(target=child)
process.start()
time.sleep(600)
"""
BOUND_S = 60


def child() -> None:
    stay_with_parent()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    time.sleep(600)


def test_a_process_ends_when_its_parent_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "begun\n"
    finally:
        parent.kill()
    rest, _ = parent.communicate(timeout=BOUND_S)  # to the end of what the child holds open, too
    assert rest == ""


def test_a_process_of_our_own_follows_nobody():
    assert multiprocessing.parent_process() is None
    stay_with_parent()
