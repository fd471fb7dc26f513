"""The three ways of `up`: in this terminal, detached with the progress shown here, and the detached one itself."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.home import Home, prepare
from cli.live import UpOptions
from cli.pools import worker_pools
from cli.process import bound_log, log_tail
from cli.progress import Progress, ProgressPipe, replay
from cli.terminal import Terminal
from cli.up import up
from core.clock import SystemClock
from core.errors import SetupError
from core.ids import SystemIds
from core.installation import catalog_for
from core.settings import environment, read_settings
from gateway.accounts.settings import AccountSettings
from gateway.settings import GatewaySettings
from workers.engines.factory import check_engines

INTERRUPTED = 130
SUPERVISOR = "supervisor"


@dataclass(frozen=True, slots=True)
class StartOptions:
    """As on the command line; None: not given."""

    host: str
    port: int
    gateways: int
    tiers: str | None
    engine: str | None
    detached: bool


def start_here(options: StartOptions) -> int:
    """Until Ctrl-C; 0, or 130 if it came before everything was ready."""
    terminal = Terminal(SystemClock())
    terminal.title()
    try:
        return _up(options, terminal)
    finally:
        terminal.close()


def start_behind(options: StartOptions, progress_fd: int) -> int:
    """The detached process: progress goes to the parent, which alone speaks to a person."""
    with os.fdopen(progress_fd, "w", encoding="utf-8") as file:
        pipe = ProgressPipe(file, later=Terminal(SystemClock()))
        try:
            return _up(options, pipe)
        except SetupError as error:
            pipe.failed(str(error))
            raise


def start_detached(options: StartOptions) -> int:
    """Start the platform in its own session, show its progress, return once it is ready."""
    terminal = Terminal(SystemClock())
    terminal.title()
    settings = _settings(options)
    catalog = catalog_for(settings)
    check_engines(catalog)  # a broken line is told before anything is made
    worker_pools(catalog)  # and an interpreter that is not there
    home = prepare(settings.home)
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as progress:
        try:
            child = _spawn(options, home, writing)
        finally:
            os.close(writing)
        try:
            sentence = replay(progress, terminal)
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            return INTERRUPTED
        finally:
            terminal.close()
    if sentence is not None:
        child.wait()
        raise SetupError(sentence or _unexplained(home))
    return 0


def _up(options: StartOptions, progress: Progress) -> int:
    clock = SystemClock()
    how = UpOptions(
        host=options.host,
        port=options.port,
        gateways=options.gateways,
        drain_s=read_settings(GatewaySettings).drain_s,
        detached=options.detached,
    )
    ready = up(_settings(options), how, environment(), progress, clock, SystemIds(clock))
    return 0 if ready else INTERRUPTED


def _settings(options: StartOptions) -> AccountSettings:
    given = {name: value for name, value in (("tiers", options.tiers), ("engine", options.engine)) if value is not None}
    return read_settings(AccountSettings, **given)


def _spawn(options: StartOptions, home: Home, progress_fd: int) -> subprocess.Popen[bytes]:
    log = home.log(SUPERVISOR)
    bound_log(log)
    with Path(log).open("ab") as output:
        return subprocess.Popen(
            _argv(options, progress_fd),
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(progress_fd,),
            start_new_session=True,
        )


def _environment(home: Home) -> Mapping[str, str]:
    return {**environment(), "TRAMONTANE_HOME": str(home.root)}


def _argv(options: StartOptions, progress_fd: int) -> list[str]:
    argv = [sys.executable, "-P", "-m", "cli.main", "up", "--progress-fd", str(progress_fd)]
    argv += ["--host", options.host, "--port", str(options.port), "--gateways", str(options.gateways)]
    if options.tiers is not None:
        argv += ["--tiers", options.tiers]
    if options.engine is not None:
        argv += ["--engine", options.engine]
    return argv


def _unexplained(home: Home) -> str:
    log = home.log(SUPERVISOR)
    return f"The platform ended while it was starting; its log is {log}.\n{log_tail(log)}"
