"""What `up` shows, here and through the pipe of a detached start."""

import io
import shlex

import pytest

from cli.progress import ProgressPipe, Summary, replay
from cli.terminal import Terminal, examples
from core.clock import ManualClock

FIRST = Summary("http://127.0.0.1:8000", "/srv/home", "tmt_id_secret", "mistral-tiny", "mistral-embed", detached=True)
LATER = Summary("http://127.0.0.1:8000", "/srv/home", None, "mistral-tiny", None, detached=False)


class Listed:
    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append((name, *arguments))


def shown(summary: Summary) -> str:
    file = io.StringIO()
    clock = ManualClock()
    terminal = Terminal(clock, file)
    terminal.title()
    terminal.begin("Starting Redis")
    clock.advance(250)
    terminal.note("loading")
    terminal.done("Redis", "6.2.14, private")
    terminal.warn("a warning [not markup]")
    terminal.ready(summary)
    terminal.close()
    return file.getvalue()


def test_without_a_terminal_there_are_no_codes_and_no_spinner():
    text = shown(FIRST)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "Redis            6.2.14, private  0.2 s" in text
    assert "a warning [not markup]" in text


def test_the_first_run_shows_the_key_and_later_ones_the_variable():
    assert "tmt_id_secret" in shown(FIRST)
    later = shown(LATER)
    assert "tmt_" not in later
    assert "$TRAMONTANE_API_KEY" in later
    assert "keys create" in later


@pytest.mark.parametrize("summary", [FIRST, LATER])
def test_what_is_to_be_copied_stands_there_whole(summary):
    text = shown(summary)
    for title, example in examples(summary):
        assert example in text, "not wrapped, not cut"
        if title.startswith("Python"):
            compile(example, title, "exec")
        else:
            assert shlex.split(example.replace("\\\n", ""))[0] == "curl"
    assert examples(summary)[0][0] == "Chat"


def test_embeddings_are_shown_only_if_they_are_served():
    assert "/v1/embeddings" in shown(FIRST)
    assert "/v1/embeddings" not in shown(LATER)


def test_the_pipe_carries_every_call_and_then_falls_silent():
    file = io.StringIO()
    file.close = lambda: None
    later = Listed()
    pipe = ProgressPipe(file, later)
    pipe.begin("Starting")
    pipe.note("worker: loading")
    pipe.done("worker", "mistral-tiny")
    pipe.warn("careful")
    pipe.ready(FIRST)
    pipe.begin("Stopping")
    pipe.warn("worker ended")
    shows = Listed()
    assert replay(file.getvalue().splitlines(), shows) is None
    assert shows.calls == [
        ("begin", "Starting"),
        ("note", "worker: loading"),
        ("done", "worker", "mistral-tiny"),
        ("warn", "careful"),
        ("ready", FIRST),
    ]
    assert later.calls == [("warn", "worker ended")]


def test_a_failure_behind_the_pipe_is_answered_and_silence_is_one_too():
    file = io.StringIO()
    ProgressPipe(file, Listed()).failed("The port is taken.")
    assert replay(file.getvalue().splitlines(), Listed()) == "The port is taken."
    assert replay([], Listed()) == ""


def test_a_parent_that_is_gone_does_not_harm_the_platform():
    class Broken(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    pipe = ProgressPipe(Broken(), Listed())
    pipe.begin("Starting")
    pipe.ready(FIRST)
