"""`tramontane down`: ask the supervisor of this home to stop, and wait until everything is gone."""

import signal
import time

from cli.home import Home, is_locked
from cli.state import read_state, send
from cli.terminal import Terminal
from core.clock import SystemClock
from core.errors import SetupError
from core.settings import PlatformSettings, read_settings

PATIENCE_S = 180.0  # three stages that drain, each bounded by its own
LOOK_S = 0.05


def down() -> None:
    home = Home(read_settings(PlatformSettings).home.absolute())
    clock = SystemClock()
    terminal = Terminal(clock)
    state = read_state(home)
    if state is None or not is_locked(home):
        raise SetupError(f"Nothing runs on {home.root}.")
    terminal.begin("Stopping")
    try:
        send(state.supervisor, signal.SIGTERM)
        until_s = clock.monotonic_s() + PATIENCE_S
        while is_locked(home):
            if clock.monotonic_s() > until_s:
                raise SetupError(f"It has not stopped after {PATIENCE_S:.0f} s; its logs are in {home.logs}.")
            time.sleep(LOOK_S)
        terminal.done("Stopped", str(home.root))
    finally:
        terminal.close()
