"""Random histories of credit against a model that is written down independently, in plain sums.

After each step the database says what the model says, and a refused step has changed nothing; at the end of each
history all identities of the books hold. TRAMONTANE_MONEY_HISTORIES (default 16) histories of 50 steps.
"""

import os
import shutil
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from billing.account_check import check_accounts
from billing.accounts import CreditAccount, CreditHold, available, hold, release, set_limit
from billing.grants import Grant, GrantKind, correct, expire, grant, top_up
from billing.journal import LedgerEntry, LedgerTransaction, balances, check_journal
from billing.seal import seal_closed_hours, verify_seals
from billing.settling import UsageItem, book_usage
from core.clock import ManualClock
from core.db import connect_database
from core.errors import PlatformError
from migrations.run import migrate

HISTORIES = int(os.environ.get("TRAMONTANE_MONEY_HISTORIES", "16"))
STEPS = 50
ORGANISATION = "o1"
EPOCHS = st.sampled_from([1, 1, 1, 2, 3])
AMOUNTS = st.one_of(
    st.integers(0, 12), st.integers(0, 12), st.integers(0, 1_000), st.sampled_from([10**14 + 1, 2**51, 2**52])
)
COSTS = st.one_of(st.integers(0, 60), st.integers(0, 60), AMOUNTS)
KEYS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
TABLES = (CreditAccount, CreditHold, Grant, LedgerTransaction, LedgerEntry)
NEVER = 2**60
PAID = frozenset({GrantKind.TOP_UP, GrantKind.CORRECTION})


@dataclass
class Given:
    kind: str
    amount: int
    left: int
    order: tuple


@dataclass
class Model:
    """Sums by account of the journal; grants by key; holds by epoch."""

    books: dict = field(default_factory=dict)
    grants: dict = field(default_factory=dict)
    taken: dict = field(default_factory=dict)
    used: set = field(default_factory=set)
    holds: dict = field(default_factory=lambda: {1: 0, 2: 0, 3: 0})
    limit: int = 0

    @property
    def held(self):
        return sum(self.holds.values())

    @property
    def posted(self):
        return self.books.get("prepaid:o1", 0) + self.books.get("receivable:o1", 0)

    @property
    def free(self):
        return self.posted - self.held + self.limit

    def move(self, amount, source, target):
        if amount:
            self.books[source] = self.books.get(source, 0) - amount
            self.books[target] = self.books.get(target, 0) + amount

    def burn(self, amount, kinds=frozenset(GrantKind)):
        """What each kind of grant paid, and what is left to pay."""
        by_kind = {}
        for each in sorted((one for one in self.grants.values() if one.kind in kinds), key=lambda one: one.order):
            part = min(each.left, amount)
            each.left -= part
            amount -= part
            by_kind[each.kind] = by_kind.get(each.kind, 0) + part
        return by_kind, amount


class CreditMachine(RuleBasedStateMachine):
    """`url` is of a migrated database that nothing is in yet."""

    def __init__(self, url):
        super().__init__()
        self.database = connect_database(url)
        self.clock = ManualClock()
        self.model = Model()
        self.numbers = count(1)
        self.work = self.database.unit_of_work

    def teardown(self):
        with self.database.unit_of_work() as session:
            self.clock.advance(2 * 3_600_000)
            seal_closed_hours(session, self.clock.now_ms())
            assert check_accounts(session) == []
            assert check_journal(session) == []
            assert verify_seals(session) is None
        self.database.close()

    def rows(self):
        with self.database.reading() as session:
            return [[tuple(row) for row in session.execute(select(table.__table__))] for table in TABLES]

    def attempt(self, function, *arguments, **options):
        """True if it was done, False if it was refused, which changes nothing."""
        self.clock.advance(1)
        before = self.rows()
        try:
            with self.work() as session:
                done = function(session, ORGANISATION, *arguments, **options) is not False
        except PlatformError:
            done = False
        if not done:
            after = self.rows()
            empty = [("o1", 0, 0, 0)]  # an account may have been made on the way
            assert after == before or (before[0], after[0], after[1:]) == ([], empty, before[1:])
        return done

    def give(self, function, key, amount, kind, source, priority, expires_ms=None):
        known = self.model.grants.get(key)
        if known is None:
            expected = amount > 0 and self.model.posted + amount + self.model.limit <= 2**52
        else:
            expected = (known.kind, known.amount) == (kind, amount)
        assert self.attempt(function, amount, key=key, clock=self.clock) == expected
        if expected and known is None:
            order = (priority, NEVER if expires_ms is None else expires_ms, self.clock.now_ms())
            self.model.grants[key] = Given(kind, amount, amount, order)
            self.model.move(amount, source, "prepaid:o1")

    @initialize(paid=st.integers(1, 60), given=st.integers(1, 60), limit=st.integers(0, 90), kept=st.integers(0, 60))
    def begins(self, paid, given, limit, kept):
        self.tops_up("first", paid)
        self.gives("second", given, 50, 2_000)
        self.limits(limit)
        self.holds(1, max(0, self.model.free - kept), fits=False)

    @rule(key=KEYS, amount=AMOUNTS)
    def tops_up(self, key, amount):
        self.give(top_up, key, amount, GrantKind.TOP_UP, "cash", 100)

    @rule(key=KEYS, amount=AMOUNTS, priority=st.integers(49, 51), lives_ms=st.one_of(st.none(), st.integers(10, 200)))
    def gives(self, key, amount, priority, lives_ms):
        expires_ms = None if lives_ms is None else self.clock.now_ms() + lives_ms
        function = partial(grant, priority=priority, expires_ms=expires_ms)
        self.give(function, key, amount, GrantKind.PROMO, "promo", priority, expires_ms)

    @rule(key=KEYS, amount=st.integers(1, 500))
    def gives_back(self, key, amount):
        self.give(partial(correct, against="revenue"), key, amount, GrantKind.CORRECTION, "revenue:paid", 100)

    @rule(key=KEYS, amount=st.integers(1, 500))
    def takes_away(self, key, amount):
        model = self.model
        if key in model.taken:
            assert self.attempt(correct, -amount, against="cash", key=key, clock=self.clock) == (
                model.taken[key] == amount
            )
            return
        paid = sum(each.left for each in model.grants.values() if each.kind in PAID)
        expected = min(model.posted - model.held, paid) >= amount
        assert self.attempt(correct, -amount, against="cash", key=key, clock=self.clock) == expected
        if expected:
            model.taken[key] = amount
            model.burn(amount, PAID)
            model.move(amount, "prepaid:o1", "cash")

    @rule(limit=AMOUNTS)
    def limits(self, limit):
        model = self.model
        expected = model.posted - model.held + limit >= 0 and model.posted + limit <= 2**52
        assert self.attempt(set_limit, limit) == expected
        if expected:
            model.limit = limit

    @rule(epoch=EPOCHS, amount=AMOUNTS, fits=st.booleans())
    def holds(self, epoch, amount, fits):
        if fits:  # much of what is random would only be refused
            amount = min(amount, self.model.free)
        known = bool(self.rows()[0])
        expected = known and amount <= self.model.free
        assert self.attempt(hold, epoch, amount) == expected
        if expected:
            self.model.holds[epoch] += amount

    @rule(epoch=EPOCHS, amount=AMOUNTS)
    def releases(self, epoch, amount):
        self.attempt(release, epoch, amount)
        self.model.holds[epoch] -= min(self.model.holds[epoch], amount)

    @rule(
        costs=st.lists(st.tuples(EPOCHS, COSTS), min_size=1, max_size=6),
        open_epochs=st.sampled_from([frozenset({1, 2, 3}), frozenset({1, 2, 3}), frozenset({2}), frozenset()]),
        batch=st.integers(1, 300),
        fits=st.booleans(),
    )
    def uses(self, costs, open_epochs, batch, fits):
        if fits:
            costs = [(epoch, min(cost, self.model.holds[epoch])) for epoch, cost in costs]
            open_epochs = frozenset({1, 2, 3})
        items = [UsageItem(f"{next(self.numbers)}", epoch, cost) for epoch, cost in costs]
        key = f"usage:{batch}"
        if any(item.cost_nano > 2**52 for item in items) or sum(item.cost_nano for item in items) > 2**52:
            return
        self.clock.advance(1)
        with self.work() as session:
            booked = book_usage(
                session,
                organisation=ORGANISATION,
                items=items,
                open_epochs=open_epochs,
                key=key,
                now_ms=self.clock.now_ms(),
            )
        if key in self.model.used:
            assert booked.charged_nano == {}
            return
        charged = {}
        for item in items:
            left = self.model.holds[item.epoch] if item.epoch in open_epochs else 0
            charged[item.request_id] = min(item.cost_nano, left)
            self.model.holds[item.epoch] -= charged[item.request_id]
        assert booked.charged_nano == charged
        self.settle(sum(charged.values()), sum(item.cost_nano for item in items))
        if booked.transaction_id is not None:
            self.model.used.add(key)

    def settle(self, charged, cost):
        model = self.model
        by_kind, owed = model.burn(charged)
        for kind, amount in by_kind.items():
            target = "revenue:promo" if kind == GrantKind.PROMO else "revenue:paid"
            model.move(amount, "prepaid:o1", target)
        model.move(owed, "receivable:o1", "revenue:paid")
        model.move(cost - charged, "loss", "revenue:lost")

    @rule(passes_ms=st.integers(1, 900))
    def expires(self, passes_ms):
        self.clock.advance(passes_ms)
        model = self.model
        expired = 0
        for each in sorted(model.grants.values(), key=lambda one: one.order):
            if each.order[1] <= self.clock.now_ms():
                part = min(each.left, max(0, model.posted - model.held))
                each.left -= part
                expired += part
                model.move(part, "prepaid:o1", "breakage")
        with self.work() as session:
            assert expire(session, self.clock.now_ms()) == expired

    @rule()
    def an_hour_passes(self):
        self.clock.advance(3_600_000)
        with self.work() as session:
            seal_closed_hours(session, self.clock.now_ms())

    @invariant()
    def database_says_what_the_model_says(self):
        model = self.model
        with self.database.reading() as session:
            account = available(session, ORGANISATION)
            holds = {row.epoch: row.held_nano for row in session.scalars(select(CreditHold)) if row.held_nano}
            left = {row.key: row.remaining_nano for row in session.scalars(select(Grant))}
            books = balances(session)
        assert account.available_nano == model.free >= 0
        assert (account.posted_nano, account.held_nano, account.limit_nano) == (model.posted, model.held, model.limit)
        assert holds == {epoch: amount for epoch, amount in model.holds.items() if amount}
        assert {key: amount for key, amount in left.items() if amount} == {
            key: each.left for key, each in model.grants.items() if each.left
        }
        assert {name: amount for name, amount in books.items() if amount} == {
            name: amount for name, amount in model.books.items() if amount
        }
        assert sum(books.values()) == 0


def play(machine, histories):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=histories,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def fresh_sqlite(template, folder):
    """The URL of a copy of that file, in place of the one before."""
    for old in folder.glob("history.sqlite3*"):
        old.unlink()
    return f"sqlite:///{shutil.copy(template, folder / 'history.sqlite3')}"


def test_any_history_of_credit_keeps_the_books(sqlite_url, tmp_path):
    migrate(sqlite_url)
    template = sqlite_url.removeprefix("sqlite:///")
    play(lambda: CreditMachine(fresh_sqlite(template, tmp_path)), HISTORIES)
