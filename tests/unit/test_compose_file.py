"""docker-compose.yml against the Compose specification, and against what we demand of every service."""

import json
import re
import subprocess

import jsonschema
import pytest
import yaml

from cli.configuration import PREFIX, document
from core.catalog import read_catalog
from tests.compose_file import FILE, ROOT, compose, filled_in, one_shots, own_services, variables

SCHEMA = ROOT / "tests" / "compose_spec" / "compose-spec.json"
STARTS_AS_ROOT = {"certificates"}  # it hands a volume over, and may do nothing else
SECRET_WORDS = re.compile("PASSWORD|SECRET|PEPPER|TOKEN(?!IZERS)|_KEY")


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


@pytest.fixture(scope="module")
def file():
    return compose()


@pytest.fixture(scope="module")
def services(file):
    return file["services"]


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)([sm])", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def test_the_file_follows_the_specification(validator, file):
    assert [error.message for error in validator.iter_errors(yaml.safe_load(FILE.read_text()))] == []
    assert [error.message for error in validator.iter_errors(file)] == []


@pytest.mark.parametrize(
    "mistake",
    [
        {"comand": ["tramontane"]},
        {"healthcheck": {"every": "5s"}},
        {"depends_on": {"redis": {"condition": "healthy"}}},
        {"deploy": {"resources": {"limits": {"ram": "1g"}}}},
    ],
)
def test_the_specification_finds_mistakes(validator, services, mistake):
    planted = {"services": {"gateway": {**services["gateway"], **mistake}}}
    assert list(validator.iter_errors(planted)) != []


def test_variables_are_filled_in_as_compose_does():
    assert filled_in(["${A:-x}/${B:-}", "$$(cat f)", 3], {"B": "y"}) == ["x/y", "$(cat f)", 3]
    with pytest.raises(AssertionError, match="without a default"):
        filled_in("${A}", {})


def test_what_the_issue_asks_for_is_there(services):
    asked = "postgres redis migrate gateway worker-tiny worker-small worker-medium embed collector celery prometheus"
    assert {*asked.split(), "grafana", "proxy"} <= set(services)


def test_every_service_is_confined(services):
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= set(limits), name
        assert not {"privileged", "devices", "pid", "ipc"} & set(service), name
        if name not in STARTS_AS_ROOT:
            user, _, group = service["user"].partition(":")
            assert int(user) > 0, name
            assert group, name
            assert set(service.get("cap_add", ())) <= {"NET_BIND_SERVICE"}, name


def test_every_image_is_pinned(services):
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), name


def test_what_stays_is_watched_and_started_again_and_what_ends_is_not(services):
    ending = one_shots(services)
    for name, service in services.items():
        if name in ending:
            assert service.get("healthcheck", {"disable": True}) == {"disable": True}, name
        else:
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"], name
            assert service["logging"]["options"], name


def test_nothing_is_killed_before_it_has_drained(services):
    for name in own_services(services).keys() - one_shots(services).keys():
        service = services[name]
        drain_s = float(service.get("environment", {}).get("TRAMONTANE_DRAIN_S", 0))
        assert seconds(service["stop_grace_period"]) >= drain_s + 15, name


def test_secrets_come_from_files_and_are_mounted_where_they_are_read(services, file):
    for name, service in services.items():
        mounted = set(service.get("secrets", ()))
        assert mounted <= set(file["secrets"]), name
        for key, value in service.get("environment", {}).items():
            assert not re.search(r"//[^/@]*:[^/@]*@", value), f"{name}: a password in {key}"
            if SECRET_WORDS.search(key):
                assert key.endswith("_FILE"), f"{name}: {key}"
        text = json.dumps([service.get("environment"), service.get("command"), service.get("healthcheck")])
        read = set(re.findall(r"/run/secrets/(\w+)", text))
        assert read == mounted, name
    assert {each["file"] for each in file["secrets"].values()} == {f"./secrets/{name}" for name in file["secrets"]}


def test_every_name_that_is_used_is_made_and_the_other_way_round(services, file):
    used = {kind: set() for kind in ("configs", "secrets", "volumes", "networks")}
    for service in services.values():
        used["configs"] |= {config["source"] for config in service.get("configs", ())}
        used["secrets"] |= set(service.get("secrets", ()))
        used["volumes"] |= {volume.partition(":")[0] for volume in service.get("volumes", ())}
        used["networks"] |= set(service.get("networks", ()))
        assert set(service.get("depends_on", ())) <= set(services)
    assert used == {kind: set(file[kind]) for kind in used}
    for config in file["configs"].values():
        assert (ROOT / config["file"]).is_file()


def test_a_service_that_is_in_a_profile_is_never_required_by_one_that_is_not(services):
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if not set(service.get("profiles", ())) and services[other].get("profiles"):
                assert how["required"] is False, name
            if how["condition"] == "service_completed_successfully":
                assert services[other]["restart"] == "no", name
            if how["condition"] == "service_healthy":
                assert services[other]["healthcheck"]["test"], name


def test_the_networks_keep_apart_what_need_not_meet(services, file):
    def on(network):
        return {name for name, service in services.items() if network in service.get("networks", ())}

    assert on("books") == {"postgres", "migrate", "gateway", "collector", "celery"}
    assert on("queue") - on("books") == {"redis", "embed"} | {f"{k}-{t}" for k in ("demo", "worker") for t in TIERS}
    assert on("edge") == {"gateway", "proxy"}
    assert {name for name, network in file["networks"].items() if network.get("internal")} == {
        "queue",
        "books",
        "watch",
    }
    assert {name for name, service in services.items() if "ports" in service} == {"proxy", "grafana"}
    assert services["grafana"]["ports"][0].startswith("127.0.0.1:")
    for name, service in services.items():
        assert ("networks" in service) != (service.get("network_mode") == "none"), name


def test_prometheus_asks_every_process_of_ours_where_it_answers(services):
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {name: dns["port"] for job in scraped for dns in job.get("dns_sd_configs", ()) for name in dns["names"]}
    answering = {}
    for name in own_services(services).keys() - one_shots(services).keys():
        environment = services[name]["environment"]
        answering[name] = int(environment["TRAMONTANE_PORT" if name == "gateway" else "TRAMONTANE_METRICS_PORT"])
        assert "watch" in services[name]["networks"], name
    assert asked == answering


TIERS = ("tiny", "small", "medium")


@pytest.mark.parametrize("profile", ["demo", "gpu"])
def test_a_profile_serves_every_tier_once(services, profile):
    active = [service for service in services.values() if profile in service.get("profiles", [profile])]
    served = [service["environment"].get("TRAMONTANE_TIERS") for service in active if "environment" in service]
    config = {"demo": ROOT / "tramontane.toml", "gpu": ROOT / "deploy" / "tramontane.gpu.toml"}[profile]
    tiers = {tier.name: tier for tier in read_catalog(config).tiers}
    assert sorted(filter(None, served)) == sorted(name for name, tier in tiers.items() if tier.kind == "chat")


def test_each_gpu_worker_has_cards_of_its_own_as_many_as_its_tier_wants(services):
    tiers = {tier.name: tier for tier in read_catalog(ROOT / "deploy" / "tramontane.gpu.toml").tiers}
    seen = []
    for name in TIERS:
        service = services[f"worker-{name}"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        tier = tiers[service["environment"]["TRAMONTANE_TIERS"]]
        assert (tier.engine, tier.device) == ("vllm", "cuda")
        assert len(device["device_ids"]) == tier.vllm.tensor_parallel * tier.vllm.pipeline_parallel
        seen += device["device_ids"]
    assert len(set(seen)) == len(seen)


def test_the_further_tier_of_the_document_goes_with_the_others(tmp_path):
    (section,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "deployment.md").read_text(), re.DOTALL)
    config = tmp_path / "tramontane.toml"
    config.write_text((ROOT / "deploy" / "tramontane.gpu.toml").read_text() + "\n" + section)
    tier = read_catalog(config).tiers[-1]
    assert (tier.name, tier.vllm.tensor_parallel) == ("mistral-large", 4)


def test_every_setting_is_one_that_a_process_knows(services):
    known = set(re.findall(rf"`({PREFIX}\w+)`", document()))
    used = {key for service in own_services(services).values() for key in service.get("environment", {})}
    assert {key for key in used if key.startswith(PREFIX)} <= known


def test_the_example_of_env_names_what_the_file_takes():
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    named = dict(line.split("=", 1) for line in lines)
    assert set(named) - {"COMPOSE_PROFILES"} == variables()
    assert compose(named) == compose()


def test_secrets_are_made_once(tmp_path, file):
    def make():
        script = ROOT / "deploy" / "make-secrets"
        subprocess.run([script, tmp_path / "secrets"], check=True, capture_output=True, timeout=60)
        return {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}

    made = make()
    assert set(made) == set(file["secrets"])
    assert all(re.fullmatch("[0-9a-f]{64}\n", text) for text in made.values())
    assert len(set(made.values())) == len(made)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    (tmp_path / "secrets" / "grafana_password").unlink()
    again = make()
    assert again["key_pepper"] == made["key_pepper"]
    assert again["grafana_password"] != made["grafana_password"]
