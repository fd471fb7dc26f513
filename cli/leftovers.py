"""Processes of an earlier life whose supervisor was killed: they end by themselves, or are ended here."""

import signal
import time

from cli.home import Home
from cli.state import ProcessState, alive, read_state, send
from core.clock import Clock
from core.errors import SetupError

PATIENCE_S = 10.0
LOOK_S = 0.05


def end_leftovers(home: Home, clock: Clock) -> None:
    """Call it only with the lock of the home. SIGTERM, SIGKILL after PATIENCE_S."""
    state = read_state(home)
    if state is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in state.processes:
            send(process, number)
        if _gone(state.processes, clock):
            return
    names = ", ".join(f"{process.name} ({process.pid})" for process in state.processes if alive(process))
    raise SetupError(f"Processes of an earlier start do not end: {names}; end them by hand.")


def _gone(processes: tuple[ProcessState, ...], clock: Clock) -> bool:
    until_s = clock.monotonic_s() + PATIENCE_S
    while clock.monotonic_s() < until_s:
        if not any(alive(process) for process in processes):
            return True
        time.sleep(LOOK_S)
    return False
