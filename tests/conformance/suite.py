"""Runs one client in its own environment against a running platform."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from tests.conformance.clients.features import FEATURES, World
from tests.conformance.known import excused
from tests.e2e.installation import ROOT

RUN_S_MAX = 280
FAMILIES: Mapping[str, str] = MappingProxyType(
    {"openai": "openai_client", "langchain-mistralai": "langchain_client", "litellm": "litellm_client"}
)
OLDEST = "mistralai-0.4.2"
HERE = Path(sys.executable)  # the newest clients of Mistral and OpenAI are installed beside the tests


@dataclass(frozen=True, slots=True)
class Told:
    """What one client said: by feature (result, note), and the tokens that it was told of."""

    package: str
    version: str
    found: dict[str, tuple[str, str]]
    tokens: Mapping[str, int]
    silent_tiers: tuple[str, ...]

    @property
    def failures(self) -> dict[str, str]:
        """What went wrong, and what a client can do although it is known that it cannot."""
        return {
            feature: note or result
            for feature, (result, note) in self.found.items()
            if not excused(self.package, self.version, feature, result)
        }


def python_of(client: str) -> Path:
    return ROOT / f".venv-client-{client}" / "bin" / "python"


def run_client(client: str, python: Path, world: World) -> Told:
    """`client` is PACKAGE-VERSION. Raises AssertionError if it does not come to an end."""
    package, _, version = client.rpartition("-")
    family = FAMILIES.get(package, "mistral_legacy" if version.startswith("0.") else "mistral")
    argv = [str(python), "-m", f"tests.conformance.clients.{family}", json.dumps(asdict(world))]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=RUN_S_MAX, check=False, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {line["feature"]: (line["result"], line["note"]) for line in lines}
    assert found.keys() == FEATURES.keys()
    assert last["version"] == version, f"{python} has {package} {last['version']}"
    return Told(package, version, found, last["told"], tuple(last["silent_tiers"]))
