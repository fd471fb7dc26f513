"""The Celery process as `up` starts it: over a private Redis on a socket, jobs are done, SIGTERM ends it in order."""

import os
import signal
import subprocess
import sys
import time

import pytest

from billing.models import TaskRun
from core.db import connect_database
from core.heartbeat import read_beat
from migrations.run import migrate
from tests.books import rows_of
from tests.redis_servers import bundled_redis, newer_redis, redis_server

WAIT_S = 60
PROGRAM = "import sys; from billing.celery_main import main; sys.exit(main())"


def until(done, process, log):
    ends_s = time.monotonic() + WAIT_S
    while not done():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < ends_s, log.read_text()
        time.sleep(0.05)


@pytest.mark.parametrize("binary", [bundled_redis, newer_redis])
def test_jobs_are_done_and_it_ends_in_order(tmp_path, binary):
    url, beat, log = f"sqlite:///{tmp_path}/test.sqlite3", tmp_path / "beat", tmp_path / "log"
    migrate(url)
    database = connect_database(url)
    with redis_server(binary()) as (_, socket), log.open("wb") as output:
        env = {
            **os.environ,
            "TRAMONTANE_HOME": str(tmp_path),
            "TRAMONTANE_DATABASE_URL": url,
            "TRAMONTANE_REDIS_URL": f"unix://{socket}",
            "TRAMONTANE_HEARTBEAT_FILE": str(beat),
        }
        process = subprocess.Popen([sys.executable, "-c", PROGRAM], env=env, stdout=output, stderr=output)
        try:
            until(lambda: (found := read_beat(beat)) and found.ready, process, log)
            until(lambda: any(row["state"] == "done" for row in rows_of(database, TaskRun)), process, log)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=WAIT_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
            database.close()
    assert {row["name"] for row in rows_of(database, TaskRun)} == {"treasury"}
