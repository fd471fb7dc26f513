"""The processes that `up` starts on one machine, and what each finds in its environment."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cli.home import Home
from cli.pools import worker_pools
from cli.process import ProcessSpec
from cli.run import ProcessName
from core.catalog import Catalog
from core.settings import PlatformSettings

COLLECTOR_STAGE, MODELS_STAGE, GATEWAY_STAGE = 1, 2, 3
DRAIN_S = 30.0  # workers have nothing left to drain once the gateways are gone
CLOSE_S = 15.0  # on top of a gateway's own drain_s, which ends it in order
DEMO = "demo:"


@dataclass(frozen=True, slots=True)
class Backends:
    """Where the installation's Redis and database are; `database_url` None: the SQLite file in home."""

    redis_url: str
    database_url: str | None
    config: Path


@dataclass(frozen=True, slots=True)
class Gateways:
    """How many share the listening socket, and how long each may drain."""

    count: int
    listen_fd: int
    drain_s: float


def environment_of(
    inherited: Mapping[str, str], settings: PlatformSettings, home: Home, catalog: Catalog, backends: Backends
) -> dict[str, str]:
    """What all of them share: with it, `tramontane run NAME` does the same in any shell."""
    out = {
        **{name: value for name, value in inherited.items() if name != "TRAMONTANE_METRICS_PORT"},  # one for all
        "TRAMONTANE_HOME": str(home.root),
        "TRAMONTANE_CONFIG": str(backends.config.absolute()),
        "TRAMONTANE_REDIS_URL": backends.redis_url,
        "TRAMONTANE_TIERS": settings.tiers,
        "PROMETHEUS_MULTIPROC_DIR": str(home.metrics),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve the other processes
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if backends.database_url is not None:
        out["TRAMONTANE_DATABASE_URL"] = backends.database_url
    if settings.engine is not None:
        out["TRAMONTANE_ENGINE"] = settings.engine
    if all(weights_are_local(tier.weights) for tier in catalog.tiers):
        out["HF_HUB_OFFLINE"] = "1"
    return out


def weights_are_local(weights: str) -> bool:
    return weights.startswith(DEMO) or Path(weights).exists()


def demo_names(catalog: Catalog) -> list[str]:
    """The demo checkpoints that tiers want. The fake engines need none."""
    wanted = [
        tier.weights.removeprefix(DEMO)
        for tier in catalog.tiers
        if tier.weights.startswith(DEMO) and tier.engine not in {"echo", "hash"}
    ]
    return list(dict.fromkeys(wanted))


def process_table(home: Home, catalog: Catalog, env: Mapping[str, str], gateways: Gateways) -> list[ProcessSpec]:
    """In the order of their start. A pool without tiers has no process."""
    embed = [tier for tier in catalog.tiers if tier.kind == "embed"]
    count = gateways.count
    names = ["gateway"] if count == 1 else [f"gateway-{number}" for number in range(1, count + 1)]
    table = [
        _spec(home, "collector", ProcessName.COLLECTOR, COLLECTOR_STAGE, env, threads=1),
        _spec(home, "celery", ProcessName.CELERY, COLLECTOR_STAGE, env, threads=1),
    ]
    for pool in worker_pools(catalog):
        threads = max(tier.threads for tier in pool.tiers)
        its = {**env, "TRAMONTANE_TIERS": ",".join(pool.tier_names)}
        spec = _spec(home, pool.name, ProcessName.WORKER, MODELS_STAGE, its, threads=threads)
        table.append(replace(spec, argv=(pool.interpreter, *spec.argv[1:])))
    if embed:
        threads = max(tier.threads for tier in embed)
        table.append(_spec(home, "embed", ProcessName.EMBED, MODELS_STAGE, env, threads=threads))
    console = home.socket("console")
    if console is not None:
        env = {**env, "TRAMONTANE_CONSOLE_SOCKET": str(console)}
        spec = _spec(home, "console", ProcessName.CONSOLE, GATEWAY_STAGE, env, threads=1)
        table.append(replace(spec, drain_s=gateways.drain_s + CLOSE_S))
    listen = {**env, "TRAMONTANE_LISTEN_FD": str(gateways.listen_fd)}
    for name in names:
        spec = _spec(home, name, ProcessName.GATEWAY, GATEWAY_STAGE, listen, threads=1)
        table.append(replace(spec, pass_fds=(gateways.listen_fd,), drain_s=gateways.drain_s + CLOSE_S))
    return table


def _spec(home: Home, name: str, runs: ProcessName, stage: int, env: Mapping[str, str], *, threads: int) -> ProcessSpec:
    beat = home.beat(name)
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-P", "-m", "cli.run", runs),
        env={**env, "TRAMONTANE_HEARTBEAT_FILE": str(beat), "OMP_NUM_THREADS": str(threads)},
        log=home.log(name),
        stage=stage,
        drain_s=DRAIN_S,
        beat=beat,
    )
