"""A whole platform of several gateways with the echo engine, and organisations on it that start with nothing.

What is asked of `mistral-tiny` costs exactly 0.01; `mistral-small` and `codestral` obey faults in prompts, and
`mistral-medium` has room for one request and a queue for one more. Commands run in this process, but for the start and
the end.
"""

import os
import re
import signal
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import httpx
import redis
from prometheus_client.mmap_dict import MmapedDict
from sqlalchemy import text
from typer.testing import CliRunner

from cli.accounts.acting import hands
from cli.main import app
from cli.state import alive, read_state
from core.db import connect_database
from core.meter.keys import cell_key
from core.settings import DEVELOPMENT_CELL
from tests.e2e.installation import BOUND_S, Installation, until

CENT_NANO = 10**7
UNIT_NANO = 10**9
START_S_MAX = 600.0  # of 16 gateways on two cores
TINY, FAULTY, NARROW, CODE, EMBED = "mistral-tiny", "mistral-small", "mistral-medium", "codestral", "mistral-embed"
CELL = cell_key(DEVELOPMENT_CELL)
PLAN = """[plans.bare]
requests_per_minute = 6_000_000
tokens_per_minute = 6_000_000_000
concurrency = 100_000
credit = "0"

"""
FAULTS = "echo = { faults = true, answer_tokens = 30 }"
PRICES = {
    TINY: ('price = { input = "0.14", output = "0.42" }', 'price = { input = "1000" }'),  # 10 tokens cost 0.01
    FAULTY: ('price = { input = "0.60", output = "1.80" }', f'price = {{ input = "0.60", output = "1.80" }}\n{FAULTS}'),
    NARROW: (
        'slots = 48\nbatch_tokens_max = 256\nprice = { input = "2.50", output = "7.50" }',
        f'slots = 1\nqueue_jobs_max = 1\nprice = {{ input = "2.50", output = "7.50" }}\n{FAULTS}',
    ),
}
CODE_TIER = f"""
[tiers.codestral]
engine = "transformers"
weights = "demo:none"
tokenizer = "v3"
context_tokens = 2048
capabilities = ["completion_chat", "completion_fim"]
price = {{ input = "0.20", output = "0.60" }}
{FAULTS}
"""


@dataclass(frozen=True)
class Tenant:
    """`name` and `id` of the organisation, and its key."""

    name: str
    id: str
    key: str = field(repr=False)
    key_id: str


class Platform(Installation):
    """`secrets` are all keys that were ever made here."""

    def __init__(self, folder, backend, settings):
        super().__init__(folder, settings=settings)
        self.backend = backend
        self.database_url = settings.get("DATABASE_URL", f"sqlite:///{self.home.root / 'tramontane.sqlite3'}")
        config = self.config.read_text()
        for old, new in PRICES.values():
            assert config.count(old) == 1
            config = config.replace(old, new)
        self.config.write_text(config.replace("[tiers.mistral-tiny]", PLAN + "[tiers.mistral-tiny]") + CODE_TIER)
        self.base_url = ""
        self.secrets = []

    def start(self, *, gateways):
        arguments = ("up", "--detach", "--engine", "echo", "--port", "0", "--gateways", str(gateways))
        shown = self.ok(*arguments, bound_s=START_S_MAX)
        self.secrets += set(re.findall(r"tmt_\w+", shown))
        assert len(self.secrets) == 1, "the first key"
        self.base_url = self.json("status")["base_url"]

    def do(self, *arguments):
        """A command's answer. Raises what it refuses."""
        with self.environment() as environment:
            done = CliRunner().invoke(app, [*arguments, "--json"], env=environment)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return httpx.Response(200, text=done.stdout).json()

    @contextmanager
    def environment(self):
        own = {"TRAMONTANE_HOME": str(self.home.root), "TRAMONTANE_CONFIG": str(self.config), **self.settings}
        with mock.patch.dict(os.environ, own):
            yield own

    def hands(self):
        """For what no command does."""
        with self.environment():
            return hands()

    def tenant(self, name, credit=None):
        made = self.do("orgs", "create", f"{name}-{len(self.secrets)}", "--plan", "bare")["id"]
        if credit is not None:
            self.do("credit", "top-up", made, credit)
        return self.key(made)

    def key(self, organisation, *options):
        made = self.do("keys", "create", "--org", organisation, "--name", "drill", *options)
        self.secrets.append(made["key"])
        return Tenant(organisation, organisation, made["key"], made["id"])

    def client(self, tenant, connections=64, *, kept=True):
        """`kept` False: a connection for each request, so that whichever gateway is awake takes it."""
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {tenant.key}"},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections if kept else 0),
            timeout=BOUND_S,
        )

    def rows(self, query, **values):
        database = connect_database(self.database_url)
        try:
            with database.reading() as session:
                return session.execute(text(query), values).all()
        finally:
            database.close()

    def records(self, tenant):
        """Everything settled for the organisation so far, by request."""
        self.collected()
        found = self.rows("SELECT * FROM usage_records WHERE organisation = :id ORDER BY admitted_ms", id=tenant.id)
        return {row.request_id: row for row in found}

    def account(self, tenant):
        """Balance and what of it is held, in nano-units."""
        query = "SELECT posted_nano, held_nano FROM credit_accounts WHERE organisation = :id"
        ((posted, held),) = self.rows(query, id=tenant.id)
        return int(posted), int(held)

    def collected(self):
        """Waits until everything settled so far is in SQL."""
        self.do("usage")

    def check_books(self):
        self.collected()
        assert self.do("books", "check")["ok"]

    def redis(self):
        return redis.Redis.from_url(read_state(self.home).redis_url)

    def open_requests(self):
        with self.redis() as client:
            return client.zcard(f"{CELL}:open")

    def running(self, tier):
        """Requests that a worker has taken."""
        with self.redis() as client:
            return int(client.hget(f"{CELL}:t:{tier}", "running") or 0)

    def until_idle(self):
        until(lambda: self.open_requests() == 0)

    def processes(self, prefix):
        return [process for process in read_state(self.home).processes if process.name.startswith(prefix)]

    @contextmanager
    def stopped(self, prefix):
        """Processes that hang, though nothing tells the system so."""
        found = self.processes(prefix)
        for process in found:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in found:
                os.kill(process.pid, signal.SIGCONT)

    @contextmanager
    def without_redis(self):
        """Redis is killed, and its supervisor does not notice until the block ends."""
        supervisor = read_state(self.home).supervisor
        (server,) = self.processes("redis")
        os.kill(supervisor.pid, signal.SIGSTOP)
        try:
            os.kill(server.pid, signal.SIGKILL)
            until(lambda: not alive(server))
            yield
        finally:
            os.kill(supervisor.pid, signal.SIGCONT)

    def append_only_file(self):
        return max(self.home.redis.rglob("*.aof"), key=lambda path: path.stat().st_mtime_ns)

    def answers_by_gateway(self):
        """Answers sent so far, by process: from the files that /metrics sums up."""
        sent = Counter()
        for path in self.home.metrics.glob("counter_*.db"):
            for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):
                if "tramontane_http_requests" in key:
                    sent[path.stem] += int(value)
        return sent
