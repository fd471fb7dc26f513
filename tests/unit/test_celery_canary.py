"""A process of Celery that lives and does nothing does not beat; nothing but names goes through the broker."""

import pytest
import structlog

from billing.celery_app import CANARY, MAKE_UP, broker_url, make_app
from billing.celery_main import CANARY_S_MAX, Canary, perform
from billing.jobs import JOBS, RUN_MS_MAX
from core.clock import ManualClock
from core.heartbeat import Heartbeat, read_beat


@pytest.fixture
def beat(tmp_path):
    return tmp_path / "beat"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def canary(beat, clock):
    return Canary(Heartbeat(beat), clock)


def beats(canary, beat):
    beat.unlink(missing_ok=True)
    canary.look()
    return read_beat(beat)


def test_it_is_ready_once_a_message_came_through(canary, beat):
    assert not beats(canary, beat).ready
    canary.sing()
    assert beats(canary, beat).ready


def test_without_messages_it_stops_to_beat_and_with_them_it_goes_on(canary, beat, clock):
    for _ in range(10):
        canary.sing()
        clock.advance(round(CANARY_S_MAX * 1000))
        assert beats(canary, beat).ready
    clock.advance(1)
    assert beats(canary, beat) is None


def test_a_long_job_is_work_but_not_forever(canary, beat, clock):
    canary.sing()
    canary.busy()
    clock.advance(RUN_MS_MAX)
    assert beats(canary, beat).ready
    clock.advance(1)
    assert beats(canary, beat) is None
    canary.idle()
    assert beats(canary, beat).ready


def test_a_job_that_fails_leaves_the_canary_idle(canary, beat, clock):
    class Away:
        log = structlog.get_logger()

        @property
        def clock(self):
            raise ConnectionResetError("gone")

    perform(Away(), canary, "seal")
    clock.advance(round(CANARY_S_MAX * 1000) + 1)
    assert beats(canary, beat) is None


def test_sockets_are_written_as_the_broker_wants_them():
    assert broker_url("unix://:secret@/run/redis.sock") == "redis+socket://:secret@/run/redis.sock"
    assert broker_url("rediss://:secret@host:6380/2") == "rediss://:secret@host:6380/2"


def test_every_job_is_scheduled_by_its_name_and_no_pickle_is_read():
    app = make_app("redis://localhost", _nothing)
    assert {entry["args"] for entry in app.conf.beat_schedule.values()} == {
        (name,) for name in (*JOBS, CANARY, MAKE_UP)
    }
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_acks_late
    assert app.conf.result_backend is None


def _nothing(_name):
    pass
