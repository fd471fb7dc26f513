"""An installation of its own, driven by the real command, for end-to-end tests."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from cli.home import Home
from core.installation import BESIDE_THE_PROGRAM

PROGRAM = (sys.executable, "-P", "-m", "cli.main")
UP = ("up", "--detach", "--engine", "echo", "--port", "0")
BOUND_S = 120.0


class Installation:
    """A home of its own, with the tiers of the product; unless asked for real engines, the encoder needs no weights."""

    def __init__(self, folder: Path, *, real_engines: bool = False):
        self.home = Home(folder / "home")
        self.config = folder / "tramontane.toml"
        text = BESIDE_THE_PROGRAM.read_text()
        assert 'engine = "sentence-transformers"' in text
        self.config.write_text(
            text if real_engines else text.replace('engine = "sentence-transformers"', 'engine = "hash"')
        )

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TRAMONTANE_")}
        env = {**clean, "TRAMONTANE_HOME": str(self.home.root), "TRAMONTANE_CONFIG": str(self.config)}
        argv = [*PROGRAM, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=BOUND_S, check=False)

    def ok(self, *arguments: str) -> str:
        answer = self.call(*arguments)
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    def json(self, *arguments: str):
        return json.loads(self.ok(*arguments, "--json"))

    def chat(self, key: str, content: str = "Hello", **fields) -> httpx.Response:
        body = {"model": "mistral-tiny", "messages": [{"role": "user", "content": content}], **fields}
        url = self.json("status")["base_url"] + "/v1/chat/completions"
        return httpx.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=BOUND_S)


def until(condition) -> None:
    end_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)
