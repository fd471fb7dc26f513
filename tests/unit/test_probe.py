"""The health check of containers, as a process of its own."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from core.heartbeat import STALE_S, Beat, Heartbeat


def probe(*arguments):
    argv = [sys.executable, "-P", "-m", "cli.probe", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.strip()


@pytest.fixture
def beat_file(tmp_path):
    return tmp_path / "gateway.beat"


@pytest.fixture
def answering():
    """A server that answers with the status in its path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.strip("/")))
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_process_that_beats_and_is_ready_is_healthy(beat_file):
    Heartbeat(beat_file).beat(Beat(ready=True))
    assert probe(beat_file) == (0, "ready")


def test_a_process_that_is_not_ready_says_why(beat_file):
    Heartbeat(beat_file).beat(Beat(ready=False, note="loading mistral-tiny"))
    assert probe(beat_file) == (1, "loading mistral-tiny")


def test_a_process_that_never_beat_or_beats_no_longer_is_not_healthy(beat_file):
    assert probe(beat_file) == (1, "no fresh heartbeat")
    Heartbeat(beat_file).beat(Beat(ready=True))
    long_ago_s = beat_file.stat().st_mtime - STALE_S - 1
    os.utime(beat_file, (long_ago_s, long_ago_s))
    assert probe(beat_file) == (1, "no fresh heartbeat")


def test_a_gateway_must_answer_as_well(beat_file, answering):
    Heartbeat(beat_file).beat(Beat(ready=True))
    assert probe(beat_file, f"{answering}/200") == (0, "ready")
    assert probe(beat_file, f"{answering}/503") == (1, f"{answering}/503 does not answer 200")


def test_a_wrong_command_line_is_told():
    assert probe()[0] == 2
