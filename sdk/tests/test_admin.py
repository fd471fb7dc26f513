"""Every method of the admin client: the request that it makes, and that the answer of the platform's shape is read."""

import inspect

import httpx
import pytest

from tramontane import AsyncTramontane, ConnectionLost, Tramontane, Unavailable
from tramontane.testing import AsyncInstantTiming, InstantTiming, MockTransport

KEY = {
    "key_id": "k1",
    "name": "n",
    "hidden_key": "tmt_k1_****",
    "created_at": "t",
    "expiration_date": None,
    "workspace_id": "w1",
    "workspace_name": "default",
    "organisation_id": "o1",
    "created_by": "cli",
    "user_id": None,
    "product": "API",
    "last_used": None,
    "can_delete": True,
    "revoked_at": None,
    "overlap_until": None,
    "scopes": ["inference"],
    "tiers": None,
    "networks": [],
}
NEW_KEY = {**KEY, "key": "tmt_k1_s"}
ORGANISATION = {"id": "o1", "name": "acme", "plan": "p", "status": "active", "lenient": False, "created_at": "t"}
WORKSPACE = {
    "id": "w1",
    "name": "w",
    "organisation_id": "o1",
    "is_default": True,
    "lenient": None,
    "created_at": "t",
    "archived_at": None,
}
CUSTOMER = {"organisation_id": "o1", "name": "", "address": "", "email": "", "currency": "EUR", "time_zone": "UTC"}
TERMS = {"kind": "concurrency", "tier": None, "value": 1, "amount": None, "hard": True}
LIMIT = {**TERMS, "id": "l1", "subject_kind": "key", "subject_id": "k1", "created_at": "t"}
SPEND = {
    "limits": {
        "completion": {
            "no_monthly_limit": True,
            "monthly_limit_reached": False,
            "usage": "0",
            "usage_nano": 0,
            "total_usage": "0",
            "usage_limit": None,
            "usage_limit_nano": None,
        },
        "last_payment_failure": None,
        "currency": "EUR",
    },
    "own_limit": None,
    "own_limit_nano": None,
}
RATE = {
    "requests_per_second": 1.0,
    "requests_per_minute": 60,
    "concurrency": None,
    "tokens_limits_by_model": {"m": {"tokens_per_minute": 1, "tokens_per_month": None}},
}
PLAN = {"name": "p", "credit": "1", "credit_nano": 10**9, "weight": 1, "limits": [TERMS]}
GRANT = {
    "id": "g1",
    "key": "i1",
    "kind": "paid",
    "amount": "1",
    "amount_nano": 10**9,
    "remaining": "1",
    "remaining_nano": 10**9,
    "priority": 100,
    "expires_at": None,
    "created_at": "t",
    "created_by": "cli",
    "note": "",
}
AMOUNTS = dict.fromkeys(("balance", "held", "limit", "available", "owed"), "0")
CREDIT = {
    "organisation_id": "o1",
    "currency": "EUR",
    **AMOUNTS,
    **{f"{name}_nano": 0 for name in AMOUNTS},
    "cell": {"available": "0", "available_nano": 0, "reserved": "0", "reserved_nano": 0},
    "grants": [GRANT],
}
PRICE = {
    "version": "v",
    "tier": "m",
    "plan": None,
    "organisation": None,
    **dict.fromkeys(("input", "cached", "output"), "0.1"),
    **dict.fromkeys(("input_nano", "cached_nano", "output_nano"), 100_000),
    "batch_percent": 50,
    "start": "t",
    "created_at": "t",
    "note": "",
}
PRICE_TERMS = {name: PRICE[name] or "" for name in ("tier", "plan", "organisation", "input", "cached", "output")}
CHANGES = {"changes": [{"before": None, "after": {**PRICE_TERMS, "batch_percent": 50}}]}
MEMBER = {
    "id": "u1",
    "kind": "person",
    "email": "a@b",
    "name": "A",
    "role": "owner",
    "workspace_roles": {"w1": "developer"},
    "disabled_at": None,
    "last_login_at": None,
}
INVITE = {
    "id": "i1",
    "email": "a@b",
    "role": "viewer",
    "workspace_id": None,
    "created_by": "cli",
    "created_at": "t",
    "expires_at": "t",
}
NEW_INVITE = {"id": "i1", "email": "a@b", "role": "viewer", "expires_at": "t", "mailed": False, "url": "http://x"}
ENTRY = {"event_type": "api_tokens", "billing_metric": "m", "billing_group": "input", "timestamp": "t", "value": 1}
MODEL_USAGE = {"input": [ENTRY], "cached": [], "output": [], "requests": 1, "cost": "0", "cost_nano": 0}
MONTH = {
    **dict.fromkeys(("start_date", "end_date", "previous_month", "next_month", "time_zone", "currency"), "x"),
    "currency_symbol": "E",
    "prices": [{"billing_metric": "m", "billing_group": "input", "price": "1", "price_nano": 1, "version": "v"}],
    "completion": {"models": {"m": MODEL_USAGE}},
    "embedding": {"models": {}},
    "requests": 1,
    "total": "0",
    "total_nano": 0,
}
AUDIT = {
    "id": 1,
    "created_at": "t",
    "actor": {"kind": "cli", "id": "", "name": ""},
    "organisation_id": None,
    "action": "api_key.create",
    "target": {"kind": "api_key", "id": "k1"},
    "before": None,
    "after": {"name": "n"},
    "address": "",
    "request_id": "",
}
REFUSED = {
    "request_id": "r1",
    "at": "t",
    "workspace_id": "w1",
    "key_id": "k1",
    "route": "/v1/chat/completions",
    "tier": None,
    "status": 429,
    "code": "1300",
    "rule": "concurrency",
    "scope": "key",
    "limit": 1,
    "remaining": 0,
    "left_out": 0,
}


def page(*entries):
    return {"object": "list", "data": list(entries)}


CASES = [
    (lambda a: a.organisations.list(limit=5), page(ORGANISATION), "GET", "/organisations", None, {"limit": "5"}),
    (
        lambda a: a.organisations.create("acme", plan="p"),
        ORGANISATION,
        "POST",
        "/organisations",
        {"name": "acme", "plan": "p"},
        {},
    ),
    (lambda a: a.organisations.retrieve("o1"), ORGANISATION, "GET", "/organisations/o1", None, {}),
    (
        lambda a: a.organisations.update("o1", lenient=True),
        ORGANISATION,
        "PATCH",
        "/organisations/o1",
        {"lenient": True},
        {},
    ),
    (lambda a: a.organisations.suspend("o1"), ORGANISATION, "POST", "/organisations/o1/suspend", None, {}),
    (lambda a: a.organisations.resume("o1"), ORGANISATION, "POST", "/organisations/o1/resume", None, {}),
    (lambda a: a.workspaces.list(offset=1), page(WORKSPACE), "GET", "/workspaces", None, {"offset": "1"}),
    (lambda a: a.workspaces.create("w"), WORKSPACE, "POST", "/workspaces", {"name": "w"}, {}),
    (lambda a: a.workspaces.retrieve("w1"), WORKSPACE, "GET", "/workspaces/w1", None, {}),
    (lambda a: a.workspaces.update("w1", name="x"), WORKSPACE, "PATCH", "/workspaces/w1", {"name": "x"}, {}),
    (lambda a: a.workspaces.update("w1", lenient=None), WORKSPACE, "PATCH", "/workspaces/w1", {"lenient": None}, {}),
    (lambda a: a.workspaces.archive("w1"), None, "DELETE", "/workspaces/w1", None, {}),
    (
        lambda a: a.keys.list(name="n", workspace_id="w1"),
        {"keys": [KEY]},
        "GET",
        "/api-keys",
        None,
        {"name": "n", "workspace_id": "w1"},
    ),
    (
        lambda a: a.keys.create("n", workspace_id="w1", scopes=["inference"], expiration="2027-01-01"),
        NEW_KEY,
        "POST",
        "/api-keys",
        {"name": "n", "workspace_uuid": "w1", "scopes": ["inference"], "expiration": "2027-01-01"},
        {},
    ),
    (lambda a: a.keys.retrieve("k1"), KEY, "GET", "/api-keys/k1", None, {}),
    (lambda a: a.keys.update("k1", name="x"), KEY, "PATCH", "/api-keys/k1", {"name": "x"}, {}),
    (
        lambda a: a.keys.update("k1", expiration=None, tiers=None),
        KEY,
        "PATCH",
        "/api-keys/k1",
        {"expiration": None, "tiers": None},
        {},
    ),
    (lambda a: a.keys.revoke("k1"), None, "DELETE", "/api-keys/k1", None, {}),
    (lambda a: a.keys.rotate("k1", overlap_s=0), NEW_KEY, "POST", "/api-keys/k1/rotate", {"overlap_s": 0}, {}),
    (lambda a: a.users.list(), page(MEMBER), "GET", "/users", None, {}),
    (
        lambda a: a.users.create_service_account("bot", role="developer"),
        {"id": "u1", "role": "developer", "name": "bot"},
        "POST",
        "/users",
        {"name": "bot", "role": "developer"},
        {},
    ),
    (
        lambda a: a.users.set_role("u1", "viewer"),
        {"id": "u1", "role": "viewer"},
        "PATCH",
        "/users/u1",
        {"role": "viewer"},
        {},
    ),
    (
        lambda a: a.users.set_workspace_role("u1", "w1", "viewer"),
        {"id": "u1", "workspace_id": "w1", "role": "viewer"},
        "PUT",
        "/users/u1/workspaces/w1",
        {"role": "viewer"},
        {},
    ),
    (
        lambda a: a.users.remove_from_workspace("u1", "w1", revoke_keys=False),
        {"id": "u1", "keys_revoked": [], "keys_kept": ["k1"]},
        "DELETE",
        "/users/u1/workspaces/w1",
        None,
        {"revoke_keys": "false"},
    ),
    (
        lambda a: a.users.remove("u1", revoke_keys=False),
        {"id": "u1", "keys_revoked": [], "keys_kept": ["k1"]},
        "DELETE",
        "/users/u1",
        None,
        {"revoke_keys": "false"},
    ),
    (lambda a: a.invites.list(), page(INVITE), "GET", "/invites", None, {}),
    (
        lambda a: a.invites.create("a@b", "viewer"),
        NEW_INVITE,
        "POST",
        "/invites",
        {"email": "a@b", "role": "viewer"},
        {},
    ),
    (lambda a: a.invites.withdraw("i1"), None, "DELETE", "/invites/i1", None, {}),
    (
        lambda a: a.limits.list(subject_kind="key", subject_id="k1"),
        page(LIMIT),
        "GET",
        "/limits",
        None,
        {"subject_kind": "key", "subject_id": "k1"},
    ),
    (
        lambda a: a.limits.set("concurrency", subject_kind="key", subject_id="k1", value=0),
        LIMIT,
        "PUT",
        "/limits",
        {"kind": "concurrency", "subject_kind": "key", "subject_id": "k1", "value": 0},
        {},
    ),
    (lambda a: a.limits.remove("l1"), None, "DELETE", "/limits/l1", None, {}),
    (lambda a: a.limits.rate_limit(), RATE, "GET", "/rate-limit", None, {}),
    (lambda a: a.limits.spend_limit(), SPEND, "GET", "/spend-limit", None, {}),
    (lambda a: a.limits.set_spend_limit("12.50"), SPEND, "POST", "/spend-limit", {"amount": "12.50"}, {}),
    (lambda a: a.limits.set_spend_limit(None), SPEND, "POST", "/spend-limit", {"no_monthly_limit": True}, {}),
    (lambda a: a.plans.list(), page(PLAN), "GET", "/plans", None, {}),
    (
        lambda a: a.plans.put("p", credit="1", limits=[{"kind": "concurrency", "value": 1}]),
        PLAN,
        "PUT",
        "/plans",
        {"name": "p", "credit": "1", "limits": [{"kind": "concurrency", "value": 1}]},
        {},
    ),
    (lambda a: a.credit.retrieve(), CREDIT, "GET", "/credit", None, {}),
    (lambda a: a.credit.top_up("1", note="n"), GRANT, "POST", "/credit/top-ups", {"amount": "1", "note": "n"}, {}),
    (lambda a: a.credit.grant("1", priority=1), GRANT, "POST", "/credit/grants", {"amount": "1", "priority": 1}, {}),
    (lambda a: a.credit.set_limit("5"), CREDIT, "PATCH", "/credit/limit", {"amount": "5"}, {}),
    (lambda a: a.prices.list(tier="m"), page(PRICE), "GET", "/prices", None, {"tier": "m"}),
    (
        lambda a: a.prices.create("v", [{"tier": "m", "input": "0.1"}]),
        CHANGES,
        "POST",
        "/prices",
        {"version": "v", "prices": [{"tier": "m", "input": "0.1"}]},
        {},
    ),
    (lambda a: a.customer.retrieve(), CUSTOMER, "GET", "/customer", None, {}),
    (lambda a: a.customer.update(name="Acme"), CUSTOMER, "PATCH", "/customer", {"name": "Acme"}, {}),
    (
        lambda a: a.records.monthly_usage(year=2026, month=11),
        MONTH,
        "GET",
        "/usage",
        None,
        {"year": "2026", "month": "11"},
    ),
    (
        lambda a: a.records.audit_logs(before_id=9),
        {**page(AUDIT), "next_before_id": 1},
        "GET",
        "/audit-logs",
        None,
        {"before_id": "9"},
    ),
    (lambda a: a.records.refusals(since_s=60), page(REFUSED), "GET", "/refusals", None, {"since_s": "60"}),
]


def clients():
    for kind, timing in ((Tramontane, InstantTiming()), (AsyncTramontane, AsyncInstantTiming())):
        mock = MockTransport()
        yield mock, kind(api_key="k", transport=mock, timing=timing).admin


async def done(found):
    return await found if inspect.isawaitable(found) else found


@pytest.mark.parametrize(("ask", "answer", "method", "path", "body", "query"), CASES)
async def test_each_method(ask, answer, method, path, body, query):
    for mock, admin in clients():
        mock.json(answer, status=204 if answer is None else 200)
        found = await done(ask(admin))
        (asked,) = mock.requests
        assert (asked.method, asked.path, asked.body) == (method, f"/v1/admin{path}", body)
        assert asked.query == query
        assert ("idempotency-key" in asked.headers) is (method != "GET")
        assert (found is None) is (answer is None)
        for entry in found if isinstance(found, list) else [found]:
            assert entry is None or entry.extra == {}


def test_every_method_is_listed_above():
    admin = Tramontane(api_key="k", transport=MockTransport()).admin
    names = {
        f"{place}.{name}"
        for place, desk in vars(admin).items()
        if not place.startswith("_")
        for name, _ in inspect.getmembers(desk, inspect.ismethod)
        if not name.startswith("_")
    }
    called = {name for name in names if any(f"a.{name}(" in inspect.getsource(case[0]) for case in CASES)}
    assert names == called


async def test_an_operator_names_the_organisation():
    for mock, admin in clients():
        mock.json(page(WORKSPACE))
        await done(admin.within("acme & sons").workspaces.list(limit=1))
        assert mock.requests[0].query == {"organisation": "acme & sons", "limit": "1"}


async def test_what_would_be_made_twice_is_not_sent_twice():
    for mock, admin in clients():
        mock.fail(httpx.ReadError("gone"))
        with pytest.raises(ConnectionLost):
            await done(admin.keys.create("n"))
        mock.refuse(503, retry_after_s=1)
        with pytest.raises(Unavailable):
            await done(admin.keys.create("n"))
        mock.fail(httpx.ConnectError("refused")).refuse(429, retry_after_s=1).json(NEW_KEY)
        assert (await done(admin.keys.create("n"))).key == "tmt_k1_s"


async def test_credit_is_given_once():
    for mock, admin in clients():
        mock.fail(httpx.ReadError("gone")).refuse(503).json(GRANT).json(GRANT)
        await done(admin.credit.top_up("1"))
        assert len({asked.headers["idempotency-key"] for asked in mock.requests}) == 1
        await done(admin.credit.grant("1", idempotency_key="march"))
        assert mock.requests[-1].headers["idempotency-key"] == "march"
