"""What billing keeps of usage: one record for each settled request, and the roll-ups that reports read."""

from sqlalchemy import Index, LargeBinary, String, text
from sqlalchemy.orm import Mapped, mapped_column

from core.db import Base


class UsageRecord(Base):
    """One settled request, as its usage event said. Append-only: a trigger refuses changes and deletions.

    `cost_nano` is what the customer is charged and `loss_nano` what we bear of the event's cost: usage that came after
    its epoch was closed. `transaction_id` is the ledger transaction that covers the charge; None where nothing was
    charged.
    """

    __tablename__ = "usage_records"
    __table_args__ = (
        Index(None, "admitted_ms"),
        Index(None, "key_id", "admitted_ms"),
        Index(None, "organisation", "admitted_ms"),
        Index(None, "transaction_id"),
        Index(
            "ix_usage_records_unfinished",
            "organisation",
            "admitted_ms",
            "outcome",
            sqlite_where=text("outcome <> 'finished'"),
            postgresql_where=text("outcome <> 'finished'"),
        ),
    )

    request_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    organisation: Mapped[str] = mapped_column(String(64))
    workspace: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(String(64))
    tier: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(32))
    outcome: Mapped[str] = mapped_column(String(32))
    attempt: Mapped[int]
    streamed: Mapped[bool]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    decoded_tokens: Mapped[int]
    cost_nano: Mapped[int]
    price_version: Mapped[str] = mapped_column(String(128))
    admitted_ms: Mapped[int]
    taken_ms: Mapped[int]
    first_token_ms: Mapped[int]
    settled_ms: Mapped[int]
    epoch: Mapped[int] = mapped_column(server_default="0")
    loss_nano: Mapped[int] = mapped_column(server_default="0")
    transaction_id: Mapped[int | None]


class UsageSums:
    """What every roll-up sums, whatever its rows are for."""

    requests: Mapped[int]
    failed: Mapped[int]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    cost_nano: Mapped[int]
    loss_nano: Mapped[int]


class RollUp(UsageSums):
    """Usage admitted from start_ms on, by whom and on which tier: sums over usage records, nothing that they do not
    say.
    """

    organisation: Mapped[str] = mapped_column(String(64), primary_key=True)
    start_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    workspace: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tier: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)


class UsageSpan(RollUp, Base):
    """Of one quarter of an hour (UTC), rollups.SPAN_MS. The sketches are of billing/sketch.py, in ms."""

    __tablename__ = "usage_spans"
    __table_args__ = (
        Index(None, "start_ms"),
        Index(None, "key_id", "start_ms"),
        {"sqlite_with_rowid": False},  # the rows of an organisation's month lie side by side
    )

    first_token_sketch: Mapped[bytes] = mapped_column(LargeBinary)
    total_sketch: Mapped[bytes] = mapped_column(LargeBinary)


class UsageHour(RollUp, Base):
    """Of one hour (UTC): what most reports read."""

    __tablename__ = "usage_hours"
    __table_args__ = (
        Index(None, "start_ms"),
        Index(None, "key_id", "start_ms"),
        {"sqlite_with_rowid": False},
    )


class KeyLastUsed(Base):
    """When the youngest collected request of a key was admitted."""

    __tablename__ = "key_last_used"

    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_used_ms: Mapped[int]


class TaskRun(Base):
    """A periodic task's claim on one window of time: whoever inserts the row runs it. `state`: running, done, failed.
    `window_ms` is the start of the window.
    """

    __tablename__ = "task_runs"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    window_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16))
    started_ms: Mapped[int]
    finished_ms: Mapped[int | None]
    error: Mapped[str] = mapped_column(String(500))


class BooksCheck(Base):
    """What `books check` found, each time that it ran: `findings` is a JSON list, empty when the books are in order."""

    __tablename__ = "books_checks"

    at_ms: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ok: Mapped[bool]
    findings: Mapped[str]
