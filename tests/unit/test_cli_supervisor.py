"""The supervisor over small real processes: start, failure, restart, order of the end, death of the supervisor."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.process import ChildFailedError, ProcessSpec, bound_log, end, log_tail, spawn
from cli.state import alive, describe
from cli.supervisor import SILENT_LOOKS_MAX, Supervisor
from core.clock import SystemClock
from core.heartbeat import STALE_S

BOUND_S = 20.0

# Beats once, then waits for SIGTERM, says so in a file that all share, and ends.
OBEDIENT = """
import json, os, signal, sys
beat, journal, name = sys.argv[1:4]
def stop(*_):
    with open(journal, "a") as file:
        file.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
with open(beat + ".tmp", "w") as file:
    json.dump({"ready": True, "note": ""}, file)
os.replace(beat + ".tmp", beat)
while True:
    signal.pause()
"""
DEAF = OBEDIENT.replace("signal.signal(signal.SIGTERM, stop)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
DOOMED = "import sys; sys.exit('the config says no')"


class Told:
    def __init__(self):
        self.sentences = []
        self.processes = {}
        self.ended = []

    def supervisor(self) -> Supervisor:
        return Supervisor(
            SystemClock(),
            self.sentences.append,
            self.processes.update,
            lambda name, _pid: self.ended.append(name),
        )


def spec(folder: Path, name: str, *, code: str = OBEDIENT, stage: int = 1, drain_s: float = BOUND_S) -> ProcessSpec:
    beat = folder / f"{name}.beat"
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-I", "-S", "-c", code, str(beat), str(folder / "journal"), name),
        env=dict(os.environ),
        log=folder / f"{name}.log",
        stage=stage,
        drain_s=drain_s,
        beat=beat,
    )


async def ready(supervisor: Supervisor, *names: str) -> list[str]:
    reached = []
    await asyncio.wait_for(supervisor.ready(names, reached.append, lambda _: None), BOUND_S)
    return reached


async def until(condition) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.02)


async def test_the_start_waits_for_every_beat_and_the_end_goes_down_the_stages(tmp_path):
    told = Told()
    supervisor = told.supervisor()
    await supervisor.start([spec(tmp_path, "low", stage=1), spec(tmp_path, "high", stage=3)])
    assert sorted(await ready(supervisor, "low", "high")) == ["high", "low"]
    await supervisor.stop(lambda _: None)
    assert (tmp_path / "journal").read_text().split() == ["high", "low"]
    assert told.sentences == []


async def test_a_death_during_the_start_is_told_with_the_end_of_its_log(tmp_path):
    supervisor = Told().supervisor()
    await supervisor.start([spec(tmp_path, "fine"), spec(tmp_path, "doomed", code=DOOMED)])
    with pytest.raises(ChildFailedError, match=r"(?s)doomed did not start \(exit code 1\).*the config says no"):
        await ready(supervisor, "fine", "doomed")
    await supervisor.stop(lambda _: None)


async def test_what_dies_later_is_started_again(tmp_path):
    told = Told()
    supervisor = told.supervisor()
    await supervisor.start([spec(tmp_path, "worker")])
    await ready(supervisor, "worker")
    watch = asyncio.create_task(supervisor.watch())
    await asyncio.sleep(0)
    first = told.processes["worker"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: told.processes["worker"] != first)
    await ready(supervisor, "worker")
    assert told.ended == ["worker"]
    assert "worker ended (killed by SIGKILL) and is started again" in told.sentences[0]
    await supervisor.stop(lambda _: None)
    await asyncio.wait_for(watch, BOUND_S)
    assert not alive(describe("worker", told.processes["worker"]))


async def test_one_that_does_not_hear_is_killed_when_its_time_is_over(tmp_path):
    told = Told()
    supervisor = told.supervisor()
    await supervisor.start([spec(tmp_path, "deaf", code=DEAF, drain_s=0.2)])
    await ready(supervisor, "deaf")
    await asyncio.wait_for(supervisor.stop(lambda _: None), BOUND_S)
    assert not alive(describe("deaf", told.processes["deaf"]))


async def test_a_second_signal_cuts_the_wait_short(tmp_path):
    told = Told()
    supervisor = told.supervisor()
    await supervisor.start([spec(tmp_path, "deaf", code=DEAF, drain_s=3_600)])
    await ready(supervisor, "deaf")
    stop = asyncio.create_task(supervisor.stop(lambda _: None))
    await asyncio.sleep(0)
    supervisor.hurry()
    await asyncio.wait_for(stop, BOUND_S)
    assert not alive(describe("deaf", told.processes["deaf"]))


async def test_one_that_stopped_beating_is_ended_and_started_again(tmp_path):
    told = Told()
    supervisor = told.supervisor()
    await supervisor.start([spec(tmp_path, "stuck")])
    await ready(supervisor, "stuck")
    watch = asyncio.create_task(supervisor.watch())
    await until(lambda: supervisor._children["stuck"].has_beaten)
    first = told.processes["stuck"]
    long_ago = time.time() - 2 * STALE_S
    os.utime(tmp_path / "stuck.beat", (long_ago, long_ago))
    for _ in range(SILENT_LOOKS_MAX + 1):  # what the watch does, once a second
        supervisor.look()
    await until(lambda: told.processes["stuck"] != first)
    assert any("has not beaten" in sentence for sentence in told.sentences)
    await supervisor.stop(lambda _: None)
    await asyncio.wait_for(watch, BOUND_S)


async def test_children_do_not_outlive_a_killed_supervisor(tmp_path):
    script = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_cli_supervisor import Told, ready, spec\n"
        "async def main():\n"
        "    told = Told()\n"
        "    supervisor = told.supervisor()\n"
        "    await supervisor.start([spec(Path(sys.argv[1]), 'child')])\n"
        "    await ready(supervisor, 'child')\n"
        "    print(told.processes['child'], flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    argv = (sys.executable, "-c", script, str(tmp_path))
    parent = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    child = describe("child", int(await parent.stdout.readline()))
    assert alive(child)
    parent.kill()
    await parent.communicate()
    await until(lambda: not alive(child))


async def test_a_full_log_is_put_aside_and_its_last_lines_are_found(tmp_path):
    log = tmp_path / "noisy.log"
    log.write_text("a line from an earlier life\n")
    bound_log(log, bytes_max=10)
    process = await spawn(spec(tmp_path, "noisy", code="print('hello'); print('again')"))
    await process.wait()
    assert log_tail(log) == "hello\nagain"
    assert (tmp_path / "noisy.log.1").read_text() == "a line from an earlier life\n"
    await end(process, BOUND_S, asyncio.Event())  # ending what has ended is no error
