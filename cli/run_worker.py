"""`tramontane run worker`: under the interpreter that the pools name, for the tiers that are named."""

import os
import sys
from collections.abc import Sequence

from cli.pools import worker_pools
from cli.run import ProcessName, run
from core.errors import SetupError
from core.installation import catalog_for
from core.settings import PlatformSettings, environment, read_settings


def run_worker(tiers: Sequence[str]) -> int:
    """The exit code, unless another program takes this process's place. SetupError if no one interpreter serves all."""
    given = {"tiers": ",".join(tiers)} if tiers else {}
    settings = read_settings(PlatformSettings, **given)
    pools = worker_pools(catalog_for(settings))
    if len(pools) > 1:
        sets = "; ".join(", ".join(pool.tier_names) for pool in pools)
        raise SetupError(f"No one interpreter serves all of them; name with --tier one of these sets: {sets}.")
    program = pools[0].interpreter if pools else sys.executable
    if tiers or program != sys.executable:
        argv = [program, "-P", "-m", "cli.run", ProcessName.WORKER]
        os.execve(program, argv, {**environment(), "TRAMONTANE_TIERS": settings.tiers})  # noqa: S606 - the very purpose
    return run(ProcessName.WORKER)
