"""Usage in a console world: events stored as the collector stores them, charged in the ledger."""

from contextlib import contextmanager

from sqlalchemy import event

from billing.customers import CustomerChange, update_customer
from billing.records import store
from gateway.accounts.workspaces import create_workspace
from tests.books import fund
from tests.usage_events import usage_event


class Usage:
    """Requests of `console.ash`, in workspaces and by keys that exist; each event is different."""

    def __init__(self, console, zone="Europe/Paris") -> None:
        self.console = console
        self.accounts = console.accounts
        self.now_ms = self.accounts.clock.now_ms()
        self.made = 0
        fund(self.accounts.database, console.ash.id, console.birch.id)
        with self.accounts.database.unit_of_work() as session:
            update_customer(session, console.ash.id, CustomerChange(time_zone=zone))

    def workspace(self, name, tenant=None):
        """Its id, and that of a key in it."""
        tenant = tenant or self.console.ash
        made = self.accounts.do(create_workspace, tenant.id, name, ids=self.accounts.ids).id
        return made, self.accounts.key(f"{name} key", workspace=made, within=tenant.id).id

    def event(self, ago_ms=1_000, tenant=None, **changes):
        self.made += 1
        at_ms = self.now_ms - ago_ms
        fields = {
            "organisation": (tenant or self.console.ash).id,
            "workspace": "w1",
            "price_version": "launch:auto",
            "tier": "auto",
            "admitted_ms": at_ms,
            "taken_ms": at_ms + 40,
            "first_token_ms": 260,
            "settled_ms": at_ms + 1_800,
            "cost_nano": 1_000_000 + self.made,
        }
        return usage_event(self.made, **{**fields, **changes})

    def store(self, *events):
        store(self.accounts.database, events, self.now_ms)
        return events

    @contextmanager
    def statements(self):
        """Those that the database is sent meanwhile."""
        sent = []

        def note(_connection, _cursor, statement, *_rest):
            sent.append(statement)

        engine = self.accounts.database._engine
        event.listen(engine, "before_cursor_execute", note)
        yield sent
        event.remove(engine, "before_cursor_execute", note)
