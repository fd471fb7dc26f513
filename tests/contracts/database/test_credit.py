"""Credit accounts and grants, on both databases: nobody overdraws one, and everything agrees."""

import threading

import pytest

from billing.account_check import check_accounts
from billing.accounts import Available, Charged, available, charge, hold, post, release, set_limit
from billing.grants import GrantKind, correct, ensure_plan_credit, expire, grant, statement, top_up
from billing.journal import balances, check_journal
from billing.settling import UsageItem, book_usage
from core.clock import ManualClock
from core.db import DatabaseUnavailableError
from core.errors import CONFLICT, VALIDATION, PlatformError

UNIT = 10**9
DAY_MS = 86_400_000


@pytest.fixture
def clock():
    return ManualClock()


def do(database, function, *arguments, **options):
    with database.unit_of_work() as session:
        return function(session, *arguments, **options)


def persist(database, function, *arguments, **options):
    """Under many writers SQLite may give up its turn: nothing was done, so the same call again."""
    for _ in range(20):
        try:
            return do(database, function, *arguments, **options)
        except DatabaseUnavailableError:
            continue
    raise TimeoutError


def read(database, function, *arguments):
    with database.reading() as session:
        return function(session, *arguments)


def agrees(database):
    with database.reading() as session:
        assert check_accounts(session) == []
        assert check_journal(session) == []
        return balances(session)


def use(database, *costs, epoch=1, open_epochs=frozenset({1}), key="u1", now_ms=0):
    items = [UsageItem(f"{key}-{number}", epoch, cost_nano) for number, cost_nano in enumerate(costs)]
    return do(database, book_usage, organisation="o1", items=items, open_epochs=open_epochs, key=key, now_ms=now_ms)


def at_once(number, work):
    barrier = threading.Barrier(number)
    failed = []

    def run(index):
        barrier.wait(10)
        try:
            work(index)
        except Exception as error:  # noqa: BLE001 - told to the test below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_an_unknown_organisation_has_nothing(database):
    assert read(database, available, "o1") == Available(0, 0, 0)
    assert not do(database, hold, "o1", 1, 1)
    assert do(database, release, "o1", 1, 5) == 0
    assert do(database, charge, "o1", 1, 5, epoch_open=True) == Charged(0, 5)
    agrees(database)


def test_one_unit_of_credit_is_held_a_hundred_times_by_a_hundredth(database, clock):
    """200 holds at once, over several connections: exactly 100 succeed."""
    do(database, top_up, "o1", UNIT, key="k", clock=clock)
    won = []

    def run(index):
        answers = [persist(database, hold, "o1", 1 + index % 2, UNIT // 100) for _ in range(40)]
        won.extend(answer for answer in answers if answer)

    at_once(5, run)
    assert len(won) == 100
    assert read(database, available, "o1") == Available(UNIT, UNIT, 0)
    agrees(database)


def test_charges_releases_and_holds_at_once_never_cross(database, clock):
    do(database, top_up, "o1", 1_000, key="k", clock=clock)
    do(database, top_up, "o2", 1_000, key="k", clock=clock)

    def spend(session, name):
        for organisation in ("o1", "o2"):
            if hold(session, organisation, 1, 40):
                book_usage(
                    session,
                    organisation=organisation,
                    items=[UsageItem(name, 1, 30)],
                    open_epochs=frozenset({1}),
                    key=f"{organisation}-{name}",
                    now_ms=0,
                )
                release(session, organisation, 1, 10)

    def run(index):
        for number in range(9):
            persist(database, spend, f"{index}-{number}")

    at_once(4, run)
    found = agrees(database)
    for organisation in ("o1", "o2"):
        account = read(database, available, organisation)
        assert account.held_nano == 0
        assert account.posted_nano == found[f"prepaid:{organisation}"] == 1_000 - 30 * 33
    assert found["revenue:paid"] == 2_000 - found["prepaid:o1"] - found["prepaid:o2"]


def test_a_top_up_many_times_at_once_is_one(database, clock):
    at_once(5, lambda _index: persist(database, top_up, "o1", UNIT, key="webhook-1", clock=clock))
    assert agrees(database) == {"cash": -UNIT, "prepaid:o1": UNIT}
    with pytest.raises(PlatformError) as caught:
        do(database, top_up, "o1", 2 * UNIT, key="webhook-1", clock=clock)
    assert caught.value.kind is CONFLICT
    do(database, top_up, "o2", UNIT, key="webhook-1", clock=clock)  # keys are the organisation's own
    assert agrees(database)["prepaid:o2"] == UNIT


def test_the_plan_gives_once(database, clock):
    at_once(4, lambda _index: persist(database, ensure_plan_credit, "o1", 7, clock))
    clock.advance(DAY_MS)
    do(database, ensure_plan_credit, "o1", 9, clock)  # the plan changed since
    do(database, ensure_plan_credit, "o2", 0, clock)
    assert agrees(database) == {"prepaid:o1": 7, "promo": -7}


def test_what_we_gave_is_used_first_and_never_becomes_paid_revenue(database, clock):
    do(database, top_up, "o1", 100, key="paid", clock=clock)
    do(database, grant, "o1", 10, key="later", clock=clock, expires_ms=clock.now_ms() + 2 * DAY_MS)
    do(database, grant, "o1", 10, key="sooner", clock=clock, expires_ms=clock.now_ms() + DAY_MS)
    do(database, grant, "o1", 10, key="first", clock=clock, priority=1)
    order = [each.key for each in read(database, statement, "o1").grants]
    assert order == ["first", "sooner", "later", "paid"]
    do(database, hold, "o1", 1, 60)
    booked = use(database, 8, 7, 0, 20)
    assert booked.charged_nano == {"u1-0": 8, "u1-1": 7, "u1-2": 0, "u1-3": 20}
    assert [(each.key, each.remaining_nano) for each in read(database, statement, "o1").grants] == [("paid", 95)]
    found = agrees(database)
    assert (found["revenue:promo"], found["revenue:paid"], found["prepaid:o1"]) == (30, 5, 95)
    assert read(database, available, "o1") == Available(95, 25, 0)
    assert use(database, 8).charged_nano == {}  # the same key once more
    assert agrees(database) == found


def test_beyond_grants_a_postpaid_organisation_owes(database, clock):
    do(database, top_up, "o1", 10, key="k", clock=clock)
    assert do(database, set_limit, "o1", 50)
    assert do(database, hold, "o1", 1, 60)
    assert not do(database, hold, "o1", 1, 1)
    use(database, 35)
    found = agrees(database)
    assert (found["prepaid:o1"], found["receivable:o1"], found["revenue:paid"]) == (0, -25, 35)
    assert read(database, statement, "o1").owed_nano == 25
    assert not do(database, set_limit, "o1", 49)  # 25 are owed, 25 are held
    do(database, release, "o1", 1, 25)
    assert do(database, set_limit, "o1", 25)
    assert read(database, available, "o1").available_nano == 0


def test_usage_that_no_open_epoch_covers_is_our_loss(database, clock):
    do(database, top_up, "o1", 100, key="k", clock=clock)
    do(database, hold, "o1", 1, 10)
    assert use(database, 6, 6, 6).charged_nano == {"u1-0": 6, "u1-1": 4, "u1-2": 0}
    assert use(database, 5, epoch=0, key="u2").charged_nano == {"u2-0": 0}
    do(database, hold, "o1", 2, 10)
    assert use(database, 5, epoch=2, key="u3").charged_nano == {"u3-0": 0}  # closed
    found = agrees(database)
    assert found["loss"] == -found["revenue:lost"] == -18
    assert read(database, available, "o1") == Available(90, 10, 0)
    assert use(database, 0, key="u4").transaction_id is None


def test_expired_credit_goes_to_breakage_but_not_while_it_is_held(database, clock):
    do(database, grant, "o1", 10, key="promo", clock=clock, expires_ms=clock.now_ms() + DAY_MS)
    do(database, hold, "o1", 1, 6)
    assert do(database, expire, clock.now_ms()) == 0
    clock.advance(DAY_MS)
    assert [do(database, expire, clock.now_ms()) for _ in range(2)] == [4, 0]
    use(database, 5)
    do(database, release, "o1", 1, 1)
    assert [do(database, expire, clock.now_ms()) for _ in range(2)] == [1, 0]
    assert agrees(database) == {"breakage": 5, "prepaid:o1": 0, "promo": -10, "revenue:promo": 5}


def test_a_limit_does_not_pay_for_what_expired_while_it_was_held(database, clock):
    do(database, grant, "o1", 10, key="promo", clock=clock, expires_ms=clock.now_ms() + DAY_MS)
    do(database, set_limit, "o1", 10)
    do(database, hold, "o1", 1, 8)
    clock.advance(DAY_MS)
    assert do(database, expire, clock.now_ms()) == 2
    use(database, 8)
    assert agrees(database)["revenue:promo"] == 8


def test_held_by_paid_credit_does_not_keep_what_expired(database, clock):
    do(database, grant, "o1", 10, key="promo", clock=clock, expires_ms=clock.now_ms() + DAY_MS)
    do(database, top_up, "o1", 10, key="paid", clock=clock)
    do(database, hold, "o1", 1, 6)
    clock.advance(DAY_MS)
    assert do(database, expire, clock.now_ms()) == 10


def test_paid_back_is_what_was_paid(sqlite_database, clock):
    do(sqlite_database, top_up, "o1", 10, key="k", clock=clock)
    do(sqlite_database, grant, "o1", 10, key="promo", clock=clock)
    with pytest.raises(PlatformError):
        do(sqlite_database, correct, "o1", -11, against="cash", key="a", clock=clock)
    do(sqlite_database, correct, "o1", -10, against="cash", key="a", clock=clock)
    do(sqlite_database, correct, "o1", -3, against="promo", key="b", clock=clock)
    assert [(each.key, each.remaining_nano) for each in read(sqlite_database, statement, "o1").grants] == [("promo", 7)]
    assert agrees(sqlite_database) == {"cash": 0, "prepaid:o1": 7, "promo": -7}


def test_corrections_are_new_entries(database, clock):
    do(database, top_up, "o1", 10, key="k", clock=clock)
    do(database, correct, "o1", 3, against="revenue", key="sorry", clock=clock, note="slow on Monday")
    do(database, correct, "o1", -4, against="cash", key="back", clock=clock)
    do(database, correct, "o1", -4, against="cash", key="back", clock=clock)
    assert agrees(database) == {"cash": -6, "prepaid:o1": 9, "revenue:paid": -3}
    do(database, hold, "o1", 1, 5)
    for wrong in ({"amount_nano": -5, "key": "new"}, {"amount_nano": -3, "key": "back"}):
        with pytest.raises(PlatformError) as caught:
            do(database, correct, "o1", against="cash", clock=clock, **wrong)
        assert caught.value.kind is CONFLICT
    assert agrees(database) == {"cash": -6, "prepaid:o1": 9, "revenue:paid": -3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_nano": 0},
        {"amount_nano": -1},
        {"amount_nano": 2**52 + 1},
        {"key": ""},
        {"key": "x" * 129},
        {"key": "a\nb"},
        {"priority": -1},
        {"expires_ms": 0},
        {"note": "x" * 201},
    ],
)
def test_what_is_no_grant_leaves_nothing(sqlite_database, clock, wrong):
    with pytest.raises(PlatformError) as caught:
        do(sqlite_database, grant, "o1", **{"amount_nano": 5, "key": "k", "clock": clock, **wrong})
    assert caught.value.kind is VALIDATION
    assert agrees(sqlite_database) == {}


def test_balances_stay_within_exact_numbers(sqlite_database, clock):
    do(sqlite_database, top_up, "o1", 2**52, key="k", clock=clock)
    with pytest.raises(PlatformError):
        do(sqlite_database, top_up, "o1", 1, key="more", clock=clock)
    assert not do(sqlite_database, set_limit, "o1", 1)
    assert agrees(sqlite_database) == {"cash": -(2**52), "prepaid:o1": 2**52}


def test_the_check_finds_what_does_not_agree(sqlite_database, clock):
    do(sqlite_database, top_up, "o1", 10, key="k", clock=clock)
    do(sqlite_database, post, "o1", 5)  # and not booked
    do(sqlite_database, post, "o2", 0)
    problems = read(sqlite_database, check_accounts)
    assert len(problems) == 1
    assert "o1: balance and journal differ" in problems[0]


def test_kinds_that_are_given(sqlite_database, clock):
    with pytest.raises(ValueError, match="not given"):
        do(sqlite_database, grant, "o1", 5, key="k", clock=clock, kind=GrantKind.TOP_UP)
