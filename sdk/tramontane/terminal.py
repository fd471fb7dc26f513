"""`tramontane-chat`: a conversation in a terminal. The key comes from the environment: no process list shows it."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence

from tramontane._sync.client import Tramontane
from tramontane.errors import TramontaneError
from tramontane.wire.config import KEY_VARIABLE, URL_VARIABLE

HELP = """/model NAME   talk to another model; without a name: which there are
/system TEXT  what the model is told first; without a text: nothing
/clear        forget the conversation
/quit         leave (so does end of input); Ctrl-C stops an answer"""


class Talk:
    """One conversation. `read` asks for a line and raises EOFError at the end; `write` puts text on the screen."""

    def __init__(
        self,
        client: Tramontane,
        model: str,
        system: str,
        read: Callable[[str], str],
        write: Callable[[str], Any],
        max_tokens: Optional[int] = None,
    ) -> None:
        self._client = client
        self._model = model
        self._system = system
        self._max_tokens = max_tokens
        self._read = read
        self._write = write
        self._messages: List[Dict[str, Any]] = []

    def run(self) -> None:
        self._write(f"{self._model}; /help for commands\n")
        while True:
            try:
                line = self._read("> ").strip()
            except (EOFError, KeyboardInterrupt):
                self._write("\n")
                return
            if line == "/quit":
                return
            if line.startswith("/"):
                self._command(*line[1:].partition(" ")[::2])
            elif line:
                self._ask(line)

    def _command(self, name: str, rest: str) -> None:
        rest = rest.strip()
        if name == "model" and rest:
            self._model = rest
        elif name == "model":
            self._show_models()
        elif name == "system":
            self._system = rest
        elif name == "clear":
            self._messages = []
        else:
            self._write(HELP + "\n")

    def _show_models(self) -> None:
        try:
            names = chat_models(self._client)
        except TramontaneError as error:
            self._write(f"! {error}\n")
            return
        self._write("".join(f"{'*' if name == self._model else ' '} {name}\n" for name in names))

    def _ask(self, line: str) -> None:
        """What came of an answer that was stopped stays in the conversation; a question that failed does not."""
        question = {"role": "user", "content": line}
        system = [{"role": "system", "content": self._system}] if self._system else []
        talk = [*system, *self._messages, question]
        said: List[str] = []
        try:
            with self._client.chat.stream(model=self._model, messages=talk, max_tokens=self._max_tokens) as stream:
                for text in stream.texts():
                    said.append(text)
                    self._write(text)
        except KeyboardInterrupt:
            self._write(" [stopped]")
        except TramontaneError as error:
            self._write(f"\n! {error}")
        if said:
            self._messages += [question, {"role": "assistant", "content": "".join(said)}]
        self._write("\n")


def chat_models(client: Tramontane) -> List[str]:
    return [model.id for model in client.models.list() if model.capabilities.get("completion_chat")]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tramontane-chat", description=f"Chat in a terminal. The key is read from {KEY_VARIABLE}."
    )
    parser.add_argument("--model", help="the first chat model of the platform, if not given")
    parser.add_argument("--system", default="", help="what the model is told first")
    parser.add_argument("--max-tokens", type=int, help="of one answer; what the context leaves, if not given")
    parser.add_argument("--base-url", help=f"of the platform; else {URL_VARIABLE}")
    asked = parser.parse_args(arguments)
    try:
        with Tramontane(base_url=asked.base_url) as client:
            models = [asked.model] if asked.model else chat_models(client)
            if not models:
                print("this key may use no chat model", file=sys.stderr)
                return 1
            Talk(client, models[0], asked.system, input, _write, asked.max_tokens).run()
    except TramontaneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _write(text: str) -> None:
    print(text, end="", flush=True)
