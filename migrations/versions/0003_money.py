"""Customers, prices, the journal with its seals, credit accounts, grants, epochs and transfers of credit."""

import sqlalchemy as sa
from alembic import op

from migrations.append_only import protect, unprotect

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PROTECTED = ("price_versions", "ledger_transactions", "ledger_entries", "ledger_seals")
TABLES = (
    *("credit_transfers", "epochs", "grants", "credit_holds", "credit_accounts"),
    *("ledger_seals", "ledger_entries", "ledger_transactions", "price_versions", "customers"),
)
PRICE_BOUNDS = " AND ".join(f"{part}_nano BETWEEN 0 AND 10000000000" for part in ("input", "cached", "output"))
AMOUNT_NANO_MAX = 2**52
WHOLE = "tramontane_whole_transaction"
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")  # SQLite counts up INTEGER keys only


def upgrade() -> None:
    _customers()
    _prices()
    _journal()
    _accounts()
    _grants()
    _epochs()
    for table in PROTECTED:
        protect(table)
    if op.get_context().dialect.name == "postgresql":
        _demand_whole_transactions()


def downgrade() -> None:
    postgres = op.get_context().dialect.name == "postgresql"
    for table in PROTECTED:
        unprotect(table)
    for table in TABLES:
        op.drop_table(table)
    if postgres:
        op.execute(f"DROP FUNCTION {WHOLE}()")


def _customers() -> None:
    op.create_table(
        "customers",
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("address", sa.String(1_000), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("time_zone", sa.String(64), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", name=op.f("pk_customers")),
    )


def _prices() -> None:
    op.create_table(
        "price_versions",
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("plan", sa.String(128), nullable=False),
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("input_nano", sa.BigInteger(), nullable=False),
        sa.Column("cached_nano", sa.BigInteger(), nullable=False),
        sa.Column("output_nano", sa.BigInteger(), nullable=False),
        sa.Column("batch_percent", sa.BigInteger(), nullable=False),
        sa.Column("start_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_price_versions")),
        sa.UniqueConstraint(
            *("tier", "plan", "organisation", "start_ms"),
            name=op.f("uq_price_versions_tier_plan_organisation_start_ms"),
        ),
        sa.CheckConstraint(PRICE_BOUNDS, name=op.f("ck_price_versions_bounds")),
        sa.CheckConstraint("batch_percent BETWEEN 0 AND 100", name=op.f("ck_price_versions_batch")),
        sa.CheckConstraint("plan = '' OR organisation = ''", name=op.f("ck_price_versions_scope")),
    )


def _journal() -> None:
    op.create_table(
        "ledger_transactions",
        sa.Column("id", ID, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("booked_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_transactions")),
        sa.UniqueConstraint("key", name=op.f("uq_ledger_transactions_key")),
    )
    op.create_index(op.f("ix_ledger_transactions_booked_ms"), "ledger_transactions", ["booked_ms"])
    op.create_index(
        op.f("ix_ledger_transactions_organisation_booked_ms"), "ledger_transactions", ["organisation", "booked_ms"]
    )
    op.create_table(
        "ledger_entries",
        sa.Column("transaction_id", ID, nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.String(64), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["transaction_id"],
            ["ledger_transactions.id"],
            name=op.f("fk_ledger_entries_transaction_id_ledger_transactions"),
        ),
        sa.PrimaryKeyConstraint("transaction_id", "line", name=op.f("pk_ledger_entries")),
    )
    op.create_index(
        op.f("ix_ledger_entries_account_transaction_id_amount_nano"),
        "ledger_entries",
        ["account", "transaction_id", "amount_nano"],
    )
    op.create_table(
        "ledger_seals",
        sa.Column("hour_ms", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("transactions", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("hour_ms", name=op.f("pk_ledger_seals")),
    )


def _demand_whole_transactions() -> None:
    """At the commit every transaction has entries with the sum 0. SQLite has no such triggers: `books check` looks."""
    op.execute(
        "CREATE FUNCTION tramontane_whole_transaction() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "DECLARE concerned bigint; lines bigint; total numeric; "
        "BEGIN "
        "IF TG_TABLE_NAME = 'ledger_transactions' THEN concerned := NEW.id; "
        "ELSE concerned := NEW.transaction_id; END IF; "
        "SELECT count(*), coalesce(sum(amount_nano), 0) INTO lines, total "
        "FROM ledger_entries WHERE transaction_id = concerned; "
        "IF lines < 2 OR total <> 0 THEN RAISE EXCEPTION 'ledger transaction % has % entries with the sum %', "
        "concerned, lines, total USING ERRCODE = 'integrity_constraint_violation'; END IF; "
        "RETURN NULL; END $$"
    )
    for table in ("ledger_transactions", "ledger_entries"):
        op.execute(
            f"CREATE CONSTRAINT TRIGGER {table}_whole AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
            f"FOR EACH ROW EXECUTE FUNCTION {WHOLE}()"
        )


def _accounts() -> None:
    op.create_table(
        "credit_accounts",
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("posted_nano", sa.BigInteger(), nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.Column("limit_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", name=op.f("pk_credit_accounts")),
        sa.CheckConstraint("posted_nano - held_nano + limit_nano >= 0", name=op.f("ck_credit_accounts_covered")),
        sa.CheckConstraint("held_nano >= 0", name=op.f("ck_credit_accounts_held")),
        sa.CheckConstraint(f"limit_nano BETWEEN 0 AND {AMOUNT_NANO_MAX}", name=op.f("ck_credit_accounts_limit")),
        sa.CheckConstraint(f"posted_nano + limit_nano <= {AMOUNT_NANO_MAX}", name=op.f("ck_credit_accounts_bounds")),
    )
    op.create_table(
        "credit_holds",
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("held_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organisation", "epoch", name=op.f("pk_credit_holds")),
        sa.CheckConstraint("held_nano >= 0", name=op.f("ck_credit_holds_held")),
    )


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("remaining_nano", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("note", sa.String(200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint("organisation", "key", name=op.f("uq_grants_organisation_key")),
        sa.CheckConstraint("remaining_nano BETWEEN 0 AND amount_nano", name=op.f("ck_grants_remaining")),
    )
    op.create_index(op.f("ix_grants_organisation_priority"), "grants", ["organisation", "priority"])
    op.create_index(op.f("ix_grants_expires_ms"), "grants", ["expires_ms"])


def _epochs() -> None:
    op.create_table(
        "epochs",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("opened_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_ms", sa.BigInteger(), nullable=True),
        sa.Column("closed_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_epochs")),
    )
    op.create_table(
        "credit_transfers",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("organisation", sa.String(32), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("done_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_transfers")),
        sa.CheckConstraint("amount_nano >= 0", name=op.f("ck_credit_transfers_amount")),
    )
    op.create_index(op.f("ix_credit_transfers_state"), "credit_transfers", ["state"])
