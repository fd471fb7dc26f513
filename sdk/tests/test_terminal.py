import io

import pytest

from tramontane import Tramontane
from tramontane.terminal import Talk, main
from tramontane.testing import InstantTiming, MockTransport

CARDS = {
    "data": [
        {"id": "embed", "capabilities": {"completion_chat": False}},
        {"id": "tiny", "capabilities": {"completion_chat": True}},
        {"id": "small", "capabilities": {"completion_chat": True}},
    ]
}


def talk(mock, *lines, system=""):
    waiting = list(lines)
    shown = []

    def read(prompt):
        shown.append(prompt)
        if not waiting:
            raise EOFError
        return waiting.pop(0)

    client = Tramontane(api_key="k", transport=mock, timing=InstantTiming())
    Talk(client, "tiny", system, read, shown.append).run()
    return "".join(shown)


def asked(mock):
    return [request.body["messages"] for request in mock.requests]


def test_a_conversation_is_remembered_until_it_is_cleared():
    mock = MockTransport().stream("Hel", "lo").stream("Again").stream("New")
    shown = talk(mock, "Hi", "  ", "More", "/clear", "/system Be brief.", "Hi", "/quit", "never read")
    assert "> Hello\n> " in shown
    assert [[message["content"] for message in messages] for messages in asked(mock)] == [
        ["Hi"],
        ["Hi", "Hello", "More"],
        ["Be brief.", "Hi"],
    ]
    assert mock.unused == 0


def test_models():
    mock = MockTransport().json(CARDS).stream("Hi").refuse(401, message="Unauthorized")
    shown = talk(mock, "/model", "/model small", "Hi", "/model", "/what")
    assert "* tiny\n  small\n" in shown
    assert "embed" not in shown
    assert mock.requests[1].body["model"] == "small"
    assert "! 401: Unauthorized" in shown
    assert "/quit" in shown


def test_a_question_that_failed_is_forgotten_and_one_that_was_stopped_is_not():
    mock = MockTransport().refuse(402, message="Credit used up.").stream("Hel", failure=KeyboardInterrupt())
    mock.stream("Sure")
    shown = talk(mock, "One", "Two", "Three", system="Be kind.")
    assert "! 402: Credit used up." in shown
    assert "Hel [stopped]" in shown
    assert [message["content"] for message in asked(mock)[2]] == ["Be kind.", "Two", "Hel", "Three"]
    assert mock.bodies[1].closed


@pytest.fixture
def program(monkeypatch):
    mock = MockTransport()
    monkeypatch.setenv("TRAMONTANE_API_KEY", "k")
    monkeypatch.setattr("tramontane.terminal.Tramontane", lambda **said: Tramontane(transport=mock, **said))
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi\n"))
    return mock


def test_the_program(program, capsys):
    program.json(CARDS).stream("Hello")
    assert main(["--base-url", "http://test", "--max-tokens", "7"]) == 0
    assert program.requests[-1].body["max_tokens"] == 7
    assert "tiny; /help for commands\n> Hello\n> \n" in capsys.readouterr().out


def test_the_program_without_a_model(program, capsys):
    program.json({"data": []})
    assert main([]) == 1
    assert "no chat model" in capsys.readouterr().err


def test_the_program_without_a_key(program, monkeypatch, capsys):
    monkeypatch.delenv("TRAMONTANE_API_KEY")
    assert main(["--model", "tiny"]) == 1
    assert "TRAMONTANE_API_KEY" in capsys.readouterr().err
