"""Which processes a catalog needs, and what they are told."""

import sys
from pathlib import Path

import pytest

from cli.children import Backends, Gateways, demo_names, environment_of, process_table
from cli.home import Home
from cli.pools import served, worker_pools
from cli.run import MODULES, ProcessName
from core.catalog import read_catalog
from core.errors import SetupError
from core.installation import BESIDE_THE_PROGRAM
from core.settings import PlatformSettings

CATALOG = read_catalog(BESIDE_THE_PROGRAM)
BACKENDS = Backends("unix:///redis.sock", None, Path("tramontane.toml"))


def env_of(home: Home, catalog=CATALOG, backends=BACKENDS, **settings) -> dict[str, str]:
    return environment_of({"PATH": "/bin"}, PlatformSettings(**settings), home, catalog, backends)


@pytest.mark.parametrize(
    ("tiers", "gateways", "names"),
    [
        ({"mistral-tiny", "mistral-embed"}, 1, ["collector", "celery", "worker", "embed", "console", "gateway"]),
        ({"mistral-tiny"}, 2, ["collector", "celery", "worker", "console", "gateway-1", "gateway-2"]),
        ({"mistral-embed"}, 1, ["collector", "celery", "embed", "console", "gateway"]),
    ],
)
def test_a_pool_without_tiers_has_no_process(tmp_path, tiers, gateways, names):
    table = process_table(Home(tmp_path), CATALOG.only(frozenset(tiers)), {}, Gateways(gateways, 7, 5.0))
    assert [spec.name for spec in table] == names
    assert [spec.stage for spec in table] == sorted(spec.stage for spec in table)


def test_only_gateways_get_the_socket_and_each_has_its_own_beat(tmp_path):
    table = process_table(Home(tmp_path), CATALOG, {}, Gateways(2, 7, 5.0))
    with_socket = {spec.name for spec in table if spec.pass_fds == (7,) and spec.env["TRAMONTANE_LISTEN_FD"] == "7"}
    assert with_socket == {"gateway-1", "gateway-2"}
    assert len({spec.env["TRAMONTANE_HEARTBEAT_FILE"] for spec in table}) == len(table)


def test_pages_have_a_process_of_their_own_where_a_socket_can_be(tmp_path):
    table = {spec.name: spec for spec in process_table(Home(tmp_path), CATALOG, {}, Gateways(1, 7, 5.0))}
    path = str(tmp_path / "run" / "console.sock")
    assert table["console"].env["TRAMONTANE_CONSOLE_SOCKET"] == path
    assert table["gateway"].env["TRAMONTANE_CONSOLE_SOCKET"] == path
    assert "TRAMONTANE_LISTEN_FD" not in table["console"].env
    deep = {spec.name: spec for spec in process_table(Home(tmp_path / ("x" * 90)), CATALOG, {}, Gateways(1, 7, 5.0))}
    assert "console" not in deep
    assert "TRAMONTANE_CONSOLE_SOCKET" not in deep["gateway"].env


def test_children_see_the_installation_as_up_saw_it(tmp_path):
    env = env_of(Home(tmp_path), engine="echo", tiers="mistral-tiny")
    assert env["PATH"] == "/bin"
    assert env["TRAMONTANE_HOME"] == str(tmp_path)
    assert env["TRAMONTANE_CONFIG"] == str(Path("tramontane.toml").absolute())
    assert (env["TRAMONTANE_ENGINE"], env["TRAMONTANE_TIERS"]) == ("echo", "mistral-tiny")
    assert env["TRAMONTANE_REDIS_URL"] == "unix:///redis.sock"
    assert "TRAMONTANE_DATABASE_URL" not in env
    assert env["OMP_WAIT_POLICY"] == "PASSIVE"


def test_hubs_are_asked_only_if_some_weights_are_not_here(tmp_path):
    assert env_of(Home(tmp_path))["HF_HUB_OFFLINE"] == "1"
    elsewhere = CATALOG.tiers[0].model_copy(update={"weights": "mistralai/Mistral-7B-Instruct-v0.2"})
    assert "HF_HUB_OFFLINE" not in env_of(Home(tmp_path), CATALOG.model_copy(update={"tiers": (elsewhere,)}))


def test_the_tiers_demo_checkpoints_are_named_once_each():
    wanted = [tier.weights.removeprefix("demo:") for tier in CATALOG.tiers]
    twice = CATALOG.model_copy(update={"tiers": (*CATALOG.tiers, CATALOG.tiers[0])})
    assert demo_names(CATALOG) == demo_names(twice) == wanted
    assert demo_names(CATALOG.with_engine("echo")) == wanted[3:]


def with_chat(**changes):
    """The catalog with its chat tiers changed by what is given for their names."""
    tiers = [t.model_copy(update=changes.get(t.name.replace("-", "_"), {})) for t in CATALOG.tiers]
    return CATALOG.model_copy(update={"tiers": tuple(tiers)})


def interpreter(folder: Path) -> Path:
    path = folder / "python"
    path.symlink_to("/bin/true")
    return path


def test_a_pool_runs_under_the_interpreter_that_it_names(tmp_path):
    python = interpreter(tmp_path)
    catalog = with_chat(mistral_small={"interpreter": python}, mistral_medium={"interpreter": python})
    table = process_table(Home(tmp_path), catalog, {"TRAMONTANE_TIERS": ""}, Gateways(1, 7, 5.0))
    workers = {spec.name: spec for spec in table if spec.name.startswith("worker")}
    assert {name: (spec.argv[0], spec.env["TRAMONTANE_TIERS"]) for name, spec in workers.items()} == {
        "worker-mistral-tiny": (sys.executable, "mistral-tiny"),
        "worker-mistral-small": (str(python), "mistral-small,mistral-medium"),
    }
    assert len({spec.beat for spec in workers.values()}) == 2


def test_one_interpreter_needs_one_worker(tmp_path):
    [pool] = worker_pools(CATALOG)
    assert (pool.name, pool.interpreter) == ("worker", sys.executable)
    python = interpreter(tmp_path)
    [pool] = worker_pools(CATALOG.with_engine("vllm"), vllm=python)
    assert (pool.name, pool.interpreter) == ("worker", str(python))
    assert served([pool]) == {"worker": "mistral-tiny, mistral-small, mistral-medium"}


def test_an_interpreter_that_is_not_there_is_told(tmp_path):
    with pytest.raises(SetupError, match="mistral-tiny: the vllm engine is not installed; run `make vllm`"):
        worker_pools(CATALOG.with_engine("vllm"), vllm=tmp_path / "python")
    (tmp_path / "text").write_text("")
    for missing in (tmp_path / "python", tmp_path / "text", tmp_path):
        with pytest.raises(SetupError, match=r"mistral-small: the interpreter .* is not there"):
            worker_pools(with_chat(mistral_small={"interpreter": missing}))


def test_every_process_has_a_module():
    assert set(MODULES) == set(ProcessName)
