"""`tramontane up`: everything on one machine, in order, or nothing."""

import asyncio
import os
import socket
from collections.abc import Mapping

from cli.home import lock, prepare
from cli.live import Context, UpOptions, live
from cli.pools import worker_pools
from cli.progress import Progress
from cli.state import read_state
from core.clock import Clock
from core.errors import SetupError
from core.ids import IdSource
from core.installation import catalog_for, config_path
from gateway.accounts.settings import AccountSettings
from workers.engines.factory import check_engines

PRIVATE_UMASK = 0o077
BACKLOG = 2_048


def up(
    settings: AccountSettings,
    options: UpOptions,
    inherited: Mapping[str, str],
    progress: Progress,
    clock: Clock,
    ids: IdSource,
) -> bool:
    """Run until SIGINT or SIGTERM. Answers whether it was ever ready; raises SetupError with one sentence."""
    progress.begin("Reading the configuration")
    catalog = catalog_for(settings)
    check_engines(catalog)
    worker_pools(catalog)  # an interpreter that is not there is told before anything starts
    os.umask(PRIVATE_UMASK)
    home = prepare(settings.home)
    taken = lock(home)
    if taken is None:
        state = read_state(home)
        where = "" if state is None else f" at {state.base_url}"
        raise SetupError(f"Tramontane already runs on {home.root}{where}; stop it with `tramontane down`.")
    try:
        with listen(options.host, options.port) as listener:
            count = len(catalog.tiers)
            progress.done("Configuration", f"{count} tier{'s' * (count > 1)} from {config_path(settings)}")
            settings = settings.model_copy(update={"home": home.root})
            context = Context(home, catalog, settings, options, listener, inherited, progress, clock, ids)
            return asyncio.run(live(context))
    finally:
        os.close(taken)


def listen(host: str, port: int) -> socket.socket:
    """The socket that all gateways inherit: a restart of one loses no connection."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except socket.gaierror as error:
        raise SetupError(f"{host} is not an address of this machine; choose another --host.") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise SetupError(f"{host}:{port} cannot be listened on ({reason}); choose another --port.") from error
