"""A whole platform whose requests cost exactly 0.01, and organisations on it that start with nothing."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass

import httpx
from sqlalchemy import text

from core.db import connect_database
from tests.e2e.installation import BOUND_S, Installation

CENT_NANO = 10**7
PROMPT = "Hello there"  # 10 tokens of the v1 template
PRICE = 'price = { input = "1000" }'  # 10 tokens cost 0.01, answers nothing
PLAN = """[plans.bare]
requests_per_minute = 6_000_000
tokens_per_minute = 6_000_000_000
concurrency = 100_000
credit = "0"

[tiers.mistral-tiny]"""


@dataclass(frozen=True)
class Tenant:
    """`name` of the organisation, and its key."""

    name: str
    key: str
    key_id: str


class Platform(Installation):
    def __init__(self, folder, backend, settings):
        super().__init__(folder, settings=settings)
        self.backend = backend
        self.database_url = settings.get("DATABASE_URL", f"sqlite:///{self.home.root / 'tramontane.sqlite3'}")
        config = self.config.read_text()
        old = 'price = { input = "0.14", output = "0.42" }'
        assert config.count(old) == 1
        assert config.count("[tiers.mistral-tiny]") == 1
        self.config.write_text(config.replace(old, PRICE).replace("[tiers.mistral-tiny]", PLAN))
        self.base_url = ""

    def pace(self, tokens_per_s):
        config = self.config.read_text()
        self.config.write_text(config.replace(PRICE, f"{PRICE}\necho = {{ tokens_per_s = {tokens_per_s} }}"))

    def start(self, *, gateways=2):
        self.ok(
            *("up", "--detach", "--engine", "echo", "--port", "0", "--tiers", "mistral-tiny"),
            *("--gateways", str(gateways)),
        )
        self.base_url = self.json("status")["base_url"]

    def tenant(self, name, credit=None):
        self.ok("orgs", "create", name, "--plan", "bare")
        if credit is not None:
            self.ok("credit", "top-up", name, credit)
        made = self.json("keys", "create", "--org", name, "--name", "drill")
        return Tenant(name, made["key"], made["id"])

    def client(self, tenant, connections=64):
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {tenant.key}"},
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            timeout=BOUND_S,
        )

    def rows(self, query):
        database = connect_database(self.database_url)
        try:
            with database.reading() as session:
                return session.execute(text(query)).all()
        finally:
            database.close()

    def collected(self):
        """Waits until everything settled so far is in SQL."""
        self.ok("usage")

    def check_books(self):
        self.collected()
        self.ok("books", "check")


def body(**fields):
    return {"model": "mistral-tiny", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 4, **fields}


async def ask(client, *, seed=0, tries=400, **fields):
    """The last status after waiting out 429 and 503, and the answer."""
    pauses = random.Random(seed)
    for _ in range(tries):
        answer = await client.post("/v1/chat/completions", json=body(**fields))
        if answer.status_code not in {429, 503}:
            return answer
        await asyncio.sleep(0.05 + 0.2 * pauses.random())
    raise AssertionError(f"still {answer.status_code} after {tries} tries: {answer.text}")


def statuses(answers):
    return Counter(answer.status_code for answer in answers)
