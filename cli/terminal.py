"""What a person sees while the platform starts, and the block to copy from at the end."""

import importlib.metadata
import sys
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.status import Status
from rich.text import Text

from cli.progress import Summary
from core.clock import Clock

NAME_WIDTH = 16
PIPE_WIDTH = 250
KEY_VARIABLE = "TRAMONTANE_API_KEY"


class Terminal:
    """A list of steps with check marks; a spinner for the one that runs. Plain lines when nobody watches."""

    def __init__(self, clock: Clock, file: TextIO | None = None) -> None:
        self._console = Console(file=file or sys.stdout, highlight=False, soft_wrap=True)
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._step_began_s = self._began_s
        self._text = ""
        self._status: Status | None = None
        self._mark = "+" if self._console.options.ascii_only else "✓"

    def title(self) -> None:
        version = importlib.metadata.version("tramontane-platform")
        self._console.print(Text.assemble("\n  ", ("Tramontane", "bold"), f" {version}\n"))

    def begin(self, text: str) -> None:
        self._step_began_s = self._clock.monotonic_s()
        self._text = text
        if self._console.is_terminal:
            self._clear()
            self._status = self._console.status(Text(text), spinner_style="cyan")
            self._status.start()

    def note(self, text: str) -> None:
        if self._status is not None:
            self._status.update(Text.assemble(self._text, (f"  {text}", "dim")))

    def done(self, name: str, detail: str) -> None:
        passed_s = self._clock.monotonic_s() - self._step_began_s
        line = Text.assemble("  ", (self._mark, "green"), f" {name:<{NAME_WIDTH}} ", detail)
        line.append(f"  {passed_s:.1f} s", "dim")
        self._console.print(line)

    def warn(self, text: str) -> None:
        self._console.print(Text.assemble("  ", ("!", "yellow"), f" {text}"))

    def ready(self, summary: Summary) -> None:
        self._clear()
        passed_s = self._clock.monotonic_s() - self._began_s
        self._console.print(Text.assemble("\n  ", ("Ready", "bold green"), f" in {passed_s:.1f} s.\n"))
        write_block(summary, self._line)

    def close(self) -> None:
        self._clear()

    def _line(self, text: str, style: str = "") -> None:
        """Never wrapped, never interpreted: it is there to be copied."""
        self._console.print(Text(text, style), soft_wrap=True)

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def tables() -> Console:
    """For `status`, `usage` and `keys`: as wide as the terminal, and never broken for whoever reads a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def write_block(summary: Summary, line: Callable[[str, str], None]) -> None:
    """Base URL, key, and requests that work as they stand."""
    line(f"  Base URL   {summary.base_url}", "")
    if summary.api_key is not None:
        line(f"  API key    {summary.api_key}", "bold")
        line("             shown only this once; keep it", "dim")
    else:
        line(f"  API key    ${KEY_VARIABLE} (yours from the first run)", "")
        line("             another one: .venv/bin/tramontane keys create --workspace default --name NAME", "dim")
    if summary.login_link is None:
        line(f"  Console    {summary.base_url}/console", "")
    else:
        line(f"  Console    {summary.login_link}", "bold")
        line("             works once, for a day: open it to become the administrator", "dim")
    for title, text in examples(summary):
        line("", "")
        line(f"# {title}", "dim")
        line(text, "")
    line("", "")
    line(f"  State lies in {summary.home}: keys, usage, weights, logs/", "")
    line(f"  Stop it with {'.venv/bin/tramontane down' if summary.detached else 'Ctrl-C'}", "")


def examples(summary: Summary) -> list[tuple[str, str]]:
    """Title and text of each request to copy."""
    key = summary.api_key or f"${KEY_VARIABLE}"
    python_key = f'"{summary.api_key}"' if summary.api_key else f'os.environ["{KEY_VARIABLE}"]'
    head = f'-H "Authorization: Bearer {key}" -H "Content-Type: application/json"'
    out = []
    if summary.chat_model is not None:
        model = summary.chat_model
        body = f'{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
        out.append(("Chat", f"curl {summary.base_url}/v1/chat/completions {head} \\\n  -d '{body}'"))
    if summary.embed_model is not None:
        body = f'{{"model": "{summary.embed_model}", "input": ["Hello"]}}'
        out.append(("Embeddings", f"curl {summary.base_url}/v1/embeddings {head} \\\n  -d '{body}'"))
    if summary.chat_model is not None:
        lines = [
            *([] if summary.api_key else ["import os"]),
            "from mistralai.client import Mistral",
            f'client = Mistral(api_key={python_key}, server_url="{summary.base_url}")',
            'messages = [{"role": "user", "content": "Hello"}]',
            f'print(client.chat.complete(model="{summary.chat_model}", messages=messages).choices[0].message.content)',
        ]
        out.append(("Python, after pip install mistralai", "\n".join(lines)))
    return out
