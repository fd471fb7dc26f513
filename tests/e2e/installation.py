"""An installation of its own, driven by the real command, for end-to-end tests."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
from typer.testing import CliRunner

from cli.home import Home
from cli.main import app
from core.installation import BESIDE_THE_PROGRAM

PROGRAM = (sys.executable, "-P", "-m", "cli.main")
UP = ("up", "--detach", "--engine", "echo", "--port", "0")
BOUND_S = 240.0
ROOT = Path(__file__).parents[2]
# What a stock installation lacks: a plan without credit, and a tier with tokens for tools and fill-in-the-middle.
FURTHER = """
[plans.penniless]
requests_per_minute = 60
tokens_per_minute = 1_000_000
concurrency = 10
credit = "0"

[tiers.codestral]
engine = "transformers"
weights = "{weights}"
tokenizer = "v3"
context_tokens = 2048
aliases = ["codestral-2405"]
capabilities = ["completion_chat", "completion_fim"]
slots = 16
batch_tokens_max = 128
price = {{ input = "0.20", output = "0.60" }}
"""


class Installation:
    """A home of its own, with the tiers of the product; unless asked for real engines, the encoder needs no weights.
    With real ones there is a tier more, and a plan without credit.
    """

    def __init__(self, folder: Path, *, real_engines: bool = False, settings: Mapping[str, str] | None = None):
        self.settings = {f"TRAMONTANE_{name}": value for name, value in (settings or {}).items()}
        self.home = Home(folder / "home")
        self.config = folder / "tramontane.toml"
        text = BESIDE_THE_PROGRAM.read_text().replace('"demo:mistral-', '"demo:standin-')  # quick, and endless
        assert 'engine = "sentence-transformers"' in text
        if real_engines:
            weights = folder / "codestral"
            argv = [sys.executable, "-m", "tests.e2e.code_checkpoint", str(weights)]
            subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, timeout=BOUND_S)
            text += FURTHER.format(weights=weights)
        else:
            text = text.replace('engine = "sentence-transformers"', 'engine = "hash"')
        self.config.write_text(text)

    def call(self, *arguments: str, bound_s: float = BOUND_S) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRAMONTANE_")}
        own = {"TRAMONTANE_HOME": str(self.home.root), "TRAMONTANE_CONFIG": str(self.config)}
        env = {**clean, **own, **self.settings}
        argv = [*PROGRAM, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=bound_s, check=False)

    def ok(self, *arguments: str, bound_s: float = BOUND_S) -> str:
        answer = self.call(*arguments, bound_s=bound_s)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def json(self, *arguments: str):
        return json.loads(self.ok(*arguments, "--json"))

    def quick(self, *arguments: str):
        """As `json`, but in this process: a command of its own takes a second to load."""
        clean = dict.fromkeys((name for name in os.environ if name.startswith("TRAMONTANE_")), None)
        env = clean | {"TRAMONTANE_HOME": str(self.home.root), "TRAMONTANE_CONFIG": str(self.config)}
        answer = CliRunner().invoke(app, [*arguments, "--json"], env=env)
        assert answer.exit_code == 0, answer.output
        return json.loads(answer.stdout)

    def chat(self, key: str, content: str = "Hello", **fields) -> httpx.Response:
        body = {"model": "mistral-tiny", "messages": [{"role": "user", "content": content}], **fields}
        url = self.json("status")["base_url"] + "/v1/chat/completions"
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=BOUND_S)


def until(condition) -> None:
    end_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def key_in(text: str) -> str | None:
    """The key that `up` has shown."""
    words = [word for line in text.splitlines() if "API key" in line for word in line.split()]
    return next((word for word in words if word.startswith("tmt_")), None)
