"""Accounts as tests need them: a seeded database, keys in one call, and the arguments that every change takes."""

from pydantic import SecretStr

from core.catalog import Catalog
from core.clock import ManualClock
from core.db import Database
from core.ids import CountingIds
from gateway.accounts.api_keys import create_key
from gateway.accounts.keys import Pepper, Peppers
from gateway.accounts.organisations import create_organisation
from gateway.accounts.seed import ensure_default
from gateway.accounts.terms import KeyTerms
from gateway.accounts.trail import Actor

PEPPERS = Peppers(Pepper(1, SecretStr("pepper")))
PLAN = {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrency": 5, "credit": "1.5", "weight": 3}
ACTOR = Actor("cli", "ada", "Ada", "127.0.0.1", "r1")
TIERS = ("mistral-tiny", "mistral-embed")


def catalog(**changes):
    return Catalog.model_validate({"plans": {"development": {**PLAN, **changes}}, "tiers": []})


class AccountsWorld:
    def __init__(self, database: Database) -> None:
        self.clock = ManualClock()
        self.ids = CountingIds()
        self.database = database
        with database.unit_of_work() as session:
            self.default = ensure_default(session, catalog(), clock=self.clock, ids=self.ids)

    @property
    def by(self):
        return {"actor": ACTOR, "clock": self.clock}

    def do(self, change, *arguments, **options):
        """One change in a unit of work of its own."""
        with self.database.unit_of_work() as session:
            return change(session, *arguments, **self.by, **options)

    def do_plain(self, change, *arguments, **options):
        """Of what acts in its own name."""
        with self.database.unit_of_work() as session:
            return change(session, *arguments, clock=self.clock, ids=self.ids, **options)

    def see(self, read, *arguments, **options):
        with self.database.reading() as session:
            return read(session, *arguments, **options)

    def key(self, name="test", *, workspace=None, within=None, **terms):
        return self.do(
            create_key,
            workspace or self.default.workspace,
            KeyTerms(name, **terms),
            within=within,
            peppers=PEPPERS,
            ids=self.ids,
            known_tiers=TIERS,
        )

    def organisation(self, name):
        return self.do(create_organisation, name, ids=self.ids).id
