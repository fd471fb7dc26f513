"""What the admin API does, over both databases."""

import pytest
from sqlalchemy import select

from billing.briefs import KeyDay, TierHour
from billing.models import UsageHour, UsageSpan
from billing.rollups import HOUR_MS, SPAN_MS
from core.db import insert_new
from core.meter.refusals import RefusalEvent
from gateway.accounts.mail import MailError
from gateway.accounts.models import ApiKey
from tests.admin_world import admin_world

DAY_MS = 86_400_000


@pytest.fixture
async def world(database):
    async with admin_world(database) as made:
        yield made


async def ok(answer):
    found = await answer
    assert found.status_code in {200, 201, 204}, found.text
    return found.json() if found.content else None


async def refused(answer, status, says=""):
    found = await answer
    assert found.status_code == status, found.text
    assert says in found.text
    return found


async def test_a_key_from_its_creation_to_its_end(world):
    tenant = world.tenants[0]
    terms = {"scopes": ["admin:read"], "tiers": ["auto"], "networks": ["192.0.2.0/24"], "expiration": "2030-12-31"}
    made = await ok(tenant.ask("POST", "/api-keys", body={"name": "ci", **terms}))
    assert (made["name"], made["workspace_name"], made["expiration_date"]) == (
        "ci",
        "default",
        "2031-01-01T00:00:00+00:00",
    )
    assert made["hidden_key"] == f"tmt_{made['key_id']}_****{made['key'][-4:]}"
    assert (await ok(world.ask("GET", "/api-keys", key=made["key"])))["keys"]
    path = f"/api-keys/{made['key_id']}"
    shown = await ok(tenant.ask("GET", path))
    assert shown == {name: value for name, value in made.items() if name != "key"}

    # The answer was lost, and the caller asks once more: no second key.
    again = await refused(tenant.ask("POST", "/api-keys", body={"name": "ci"}), 409, made["key_id"])
    assert again.json()["param"] == "name"
    for _ in range(2):
        assert (await ok(tenant.ask("POST", "/api-keys", body={})))["name"] == "unnamed"

    turned = await ok(tenant.ask("POST", f"{path}/rotate", body={"overlap_s": 60}))
    assert turned["key_id"] == made["key_id"]
    for key in (made["key"], turned["key"]):
        await ok(world.ask("GET", "/api-keys", key=key))
    await refused(tenant.ask("POST", f"{path}/rotate", body={}), 409, "overlap 0")
    last = await ok(tenant.ask("POST", f"{path}/rotate", body={"overlap_s": 0}))
    for key in (made["key"], turned["key"]):
        await refused(world.ask("GET", "/api-keys", key=key), 401)

    changed = await ok(tenant.ask("PATCH", path, body={"tiers": None, "networks": ["198.51.100.0/24"]}))
    assert (changed["name"], changed["scopes"], changed["tiers"]) == ("ci", ["admin:read"], None)
    assert changed["expiration_date"] == made["expiration_date"]
    await refused(world.ask("GET", "/api-keys", key=last["key"]), 403, "may not be used from")
    assert (await ok(tenant.ask("PATCH", path, body={"networks": [], "expiration": None})))["expiration_date"] is None
    await ok(world.ask("GET", "/api-keys", key=last["key"]))

    for _ in range(2):
        await ok(tenant.ask("DELETE", path))
    await refused(world.ask("GET", "/api-keys", key=last["key"]), 401)
    shown = await ok(tenant.ask("GET", path))
    assert (shown["can_delete"], shown["revoked_at"] is None) == (False, False)
    await refused(tenant.ask("PATCH", path, body={"name": "x"}), 409)
    await ok(tenant.ask("POST", "/api-keys", body={"name": "ci"}))


async def test_lists_come_in_pages(world):
    tenant = world.tenants[0]
    for number in range(3):
        world.accounts.clock.advance(1)
        await ok(tenant.ask("POST", "/api-keys", body={"name": f"page {number}"}))
    pages = [
        [key["name"] for key in (await ok(tenant.ask("GET", "/api-keys", params=query)))["keys"]]
        for query in ({"name": "page", "limit": 2}, {"name": "page", "limit": 2, "offset": 2}, {"name": "%"})
    ]
    assert pages == [["page 0", "page 1"], ["page 2"], []]
    seen, before_id = [], None
    while True:
        query = {"limit": 2} if before_id is None else {"limit": 2, "before_id": before_id}
        page = await ok(tenant.ask("GET", "/audit-logs", params=query))
        seen += [entry["id"] for entry in page["data"]]
        before_id = page["next_before_id"]
        if before_id is None:
            break
    assert len(seen) >= 8
    assert seen == sorted(set(seen), reverse=True)


async def test_an_operator_opens_and_suspends_an_organisation(world):
    made = await ok(world.operate("POST", "/organisations", body={"name": "cedar", "time_zone": "Europe/Rome"}))
    await refused(world.operate("POST", "/organisations", body={"name": "cedar"}), 409, "taken")
    await refused(world.operate("POST", "/organisations", body={"name": "x", "plan": "none"}), 404, "no plan")
    assert (await ok(world.operate("GET", "/customer", params={"organisation": "cedar"})))["time_zone"] == "Europe/Rome"
    credit = await ok(world.operate("GET", "/credit", params={"organisation": made["id"]}))
    assert (credit["balance"], credit["grants"][0]["kind"]) == ("1.50", "plan")

    for method, path, body in (
        ("POST", "/workspaces", {"name": "lab"}),
        ("POST", "/api-keys", {}),
        ("GET", "/usage", None),
    ):
        await refused(world.operate(method, path, body=body), 422, "organisation")
        await refused(world.operate(method, path, body=body, params={"organisation": "nobody"}), 404)
    named = {"organisation": made["id"]}
    lab = await ok(world.operate("POST", "/workspaces", body={"name": "lab"}, params=named))
    key = {"workspace_uuid": lab["id"], "name": "admin", "scopes": ["admin:write"]}
    key = await ok(world.operate("POST", "/api-keys", body=key))
    await refused(world.ask("POST", "/api-keys", key=key["key"], body={"scopes": ["operator"]}), 403)
    await ok(world.operate("POST", "/api-keys", body={"scopes": ["operator"]}, params=named))

    path = f"/organisations/{made['id']}"
    assert (await ok(world.operate("POST", f"{path}/suspend")))["status"] == "suspended"
    await refused(world.ask("GET", "/api-keys", key=key["key"]), 401)
    await ok(world.operate("POST", f"{path}/resume"))
    world.accounts.clock.advance(5_000)  # a refused key is asked for again after 5 s
    await ok(world.ask("GET", "/api-keys", key=key["key"]))
    changed = await ok(world.operate("PATCH", path, body={"name": "cypress", "lenient": True}))
    assert (changed["name"], changed["lenient"], changed["plan"]) == ("cypress", True, "development")

    await ok(world.operate("DELETE", f"/workspaces/{lab['id']}"))
    await refused(world.ask("GET", "/api-keys", key=key["key"]), 401)
    await refused(world.operate("PATCH", f"/workspaces/{lab['id']}", body={"name": "x"}), 409)


async def test_limits_and_what_they_add_up_to(world):
    tenant = world.tenants[0]
    rates = await ok(tenant.ask("GET", "/rate-limit"))
    assert (rates["requests_per_second"], rates["requests_per_minute"], rates["concurrency"]) == (1.0, 60, 5)
    assert rates["tokens_limits_by_model"]["auto"] == {"tokens_per_minute": 1000, "tokens_per_month": None}
    own = {"subject_kind": "customer", "kind": "tokens_per_minute", "value": 10, "tier": "auto"}
    made = await ok(tenant.ask("PUT", "/limits", body=own))
    assert made == await ok(tenant.ask("PUT", "/limits", body=own))
    rates = (await ok(tenant.ask("GET", "/rate-limit")))["tokens_limits_by_model"]
    assert (rates["auto"]["tokens_per_minute"], rates["manual"]["tokens_per_minute"]) == (10, 1000)
    assert (await ok(tenant.ask("GET", "/limits")))["data"] == [made]
    of_organisation = {**own, "subject_kind": "organisation"}
    await refused(tenant.ask("PUT", "/limits", body=of_organisation), 403, "operator")
    await refused(tenant.ask("PUT", "/limits", body={**own, "tier": "unknown"}), 422)
    await refused(tenant.ask("PUT", "/limits", body={**own, "amount": "1"}), 422)
    await ok(world.operate("PUT", "/limits", body=of_organisation, params={"organisation": tenant.id}))
    await ok(tenant.ask("DELETE", f"/limits/{made['id']}"))
    await refused(tenant.ask("DELETE", f"/limits/{made['id']}"), 404)

    limit = await ok(tenant.ask("POST", "/spend-limit", body={"amount": "12.50"}))
    assert (limit["own_limit"], limit["limits"]["completion"]["usage_limit_nano"]) == ("12.50", 12_500_000_000)
    (kept,) = (await ok(tenant.ask("GET", "/limits")))["data"]
    assert (kept["kind"], kept["amount"], kept["hard"]) == ("spend_per_month", "12.50", True)
    spend(world, tenant, 12_500_000_000)
    limit = (await ok(tenant.ask("GET", "/spend-limit")))["limits"]["completion"]
    assert (limit["usage"], limit["monthly_limit_reached"], limit["no_monthly_limit"]) == ("12.50", True, False)
    for _ in range(2):
        limit = await ok(tenant.ask("POST", "/spend-limit", body={"no_monthly_limit": True}))
        assert (limit["own_limit"], limit["limits"]["completion"]["no_monthly_limit"]) == (None, True)
    await refused(tenant.ask("POST", "/spend-limit", body={}), 422)


def spend(world, tenant, cost_nano, *, workspace="w", at_ms=None):
    at_ms = at_ms or world.accounts.clock.now_ms()
    used = {
        "organisation": tenant.id,
        "workspace": workspace,
        "key_id": "k",
        "tier": "auto",
        "kind": "chat",
        "requests": 2,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 7,
        "cost_nano": cost_nano,
    }
    with world.accounts.database.unit_of_work() as session:
        rolled_up = ((UsageSpan, SPAN_MS), (UsageHour, HOUR_MS), (TierHour, HOUR_MS), (KeyDay, DAY_MS))
        for model, length_ms in rolled_up:
            table = model.__table__
            row = {column.key: b"" if column.key.endswith("sketch") else 0 for column in table.columns}
            row |= {name: value for name, value in used.items() if name in row}
            row["start_ms"] = at_ms - at_ms % length_ms
            insert_new(session, model, [row], [column.key for column in table.primary_key])


async def test_a_month_of_usage(world):
    tenant = world.tenants[0]
    workspace = tenant.new("workspace_id")
    spend(world, tenant, 1_500_000_000, workspace=workspace)
    spend(world, tenant, 500, at_ms=world.accounts.clock.now_ms() - 40 * DAY_MS)
    spend(world, world.tenants[1], 77)
    month = await ok(tenant.ask("GET", "/usage"))
    assert (month["start_date"], month["previous_month"], month["next_month"]) == (
        "2023-11-01T00:00:00+00:00",
        "2023-10",
        "2023-12",
    )
    assert (month["total"], month["total_nano"], month["requests"]) == ("1.50", 1_500_000_000, 2)
    model = month["completion"]["models"]["auto"]
    values = {group: [entry["value"] for entry in model[group]] for group in ("input", "cached", "output")}
    assert values == {"input": [60], "cached": [40], "output": [7]}
    price = next(price for price in month["prices"] if price["billing_metric"] == "auto")
    assert (price["billing_group"], price["price"], price["version"]) == ("input", "0.14", "launch:auto")
    query = {"year": 2023, "month": 10}
    assert (await ok(tenant.ask("GET", "/usage", params=query)))["total_nano"] == 500
    assert (await ok(tenant.ask("GET", "/usage", params={"workspace_id": workspace})))["requests"] == 2
    assert (await ok(tenant.ask("GET", "/usage", params={"year": 2024, "month": 1})))["completion"] == {"models": {}}
    await refused(tenant.ask("GET", "/usage", params={"month": 13}), 422)


async def test_credit_is_put_in_once_for_each_key(world):
    tenant = world.tenants[0]
    named, key = {"organisation": tenant.name}, {"idempotency-key": "invoice-7"}

    def top_up(amount, headers=key, path="/credit/top-ups"):
        return world.operate("POST", path, body={"amount": amount}, params=named, headers=headers)

    first, second = await ok(top_up("10")), await ok(top_up("10.0"))
    assert first == second
    assert (first["kind"], first["remaining_nano"]) == ("topup", 10_000_000_000)
    await refused(top_up("11"), 409)
    await refused(top_up("10", path="/credit/grants"), 409)
    await refused(top_up("10", headers={}), 422, "dempotency")
    await refused(top_up("0", headers={"idempotency-key": "nothing"}), 422)
    gift = {"amount": "0.25", "expires_at": "2030-01-01T00:00:00Z", "note": "thanks"}
    gift = world.operate("POST", "/credit/grants", body=gift, params=named, headers={"idempotency-key": "gift"})
    assert (await ok(gift))["expires_at"] == "2030-01-01T00:00:00+00:00"
    credit = await ok(tenant.ask("GET", "/credit"))
    assert (credit["balance"], credit["held"], credit["available"], credit["owed"]) == (
        "11.75",
        "0.00",
        "11.75",
        "0.00",
    )
    assert [grant["kind"] for grant in credit["grants"]] == ["promo", "plan", "topup"]
    assert credit["cell"] == {"available": "0.00", "available_nano": 0, "reserved": "0.00", "reserved_nano": 0}
    limit = await ok(world.operate("PATCH", "/credit/limit", body={"amount": "5"}, params=named))
    assert (limit["limit"], limit["available"]) == ("5.00", "16.75")
    acts = (await ok(tenant.ask("GET", "/audit-logs")))["data"]
    assert [act["action"] for act in acts][:3] == ["credit.set_limit", "credit.grant", "credit.top_up"]
    assert acts[0]["before"] == {"limit_nano": 0}


async def test_plans_and_prices_are_changed_by_the_operator(world):
    plan = {"name": "business", "credit": "5", "weight": 2, "limits": [{"kind": "spend_per_day", "amount": "3"}]}
    made = await ok(world.operate("PUT", "/plans", body=plan))
    assert (made["credit_nano"], made["limits"][0]["value"]) == (5_000_000_000, 3_000_000_000)
    plans = (await ok(world.operate("GET", "/plans")))["data"]
    assert [found["name"] for found in plans] == ["business", "development"]
    await refused(world.operate("PUT", "/plans", body={**plan, "limits": plan["limits"] * 2}), 422, "Two limits")

    now = {"version": "v2", "prices": [{"tier": "auto", "input": "0.30", "plan": "business"}]}
    (change,) = (await ok(world.operate("POST", "/prices", body=now)))["changes"]
    assert (change["before"], change["after"]["input"], change["after"]["plan"]) == (None, "0.30", "business")
    for bad, status in (
        ({"start": "2023-01-01T00:00:00Z"}, 422),
        ({"start": "0001-01-01T00:00:00+14:00"}, 422),
        ({"start": "2030-01-01T00:00:00"}, 422),
        ({"prices": [{"tier": "auto", "input": "1e3"}]}, 422),
        ({"prices": [{"tier": "auto", "input": "99999"}]}, 422),
        ({"prices": [{"tier": "none", "input": "1"}]}, 422),
        ({"prices": [{"tier": "auto", "input": "1", "plan": "none"}]}, 404),
        ({"prices": [{"tier": "auto", "input": "1", "plan": "business", "organisation": "o"}]}, 422),
    ):
        await refused(world.operate("POST", "/prices", body={**now, "version": "v3", **bad}), status)
    versions = (await ok(world.operate("GET", "/prices", params={"tier": "auto"})))["data"]
    assert [version["version"] for version in versions] == ["launch:auto", "v2:auto:plan=business"]


async def test_members_are_invited_changed_and_removed(world):
    tenant = world.tenants[0]
    robot = await ok(tenant.ask("POST", "/users", body={"name": "robot"}))
    key = await ok(tenant.ask("POST", "/api-keys", body={"name": "robot's", "user_id": robot["id"]}))
    assert key["user_id"] == robot["id"]
    await refused(tenant.ask("PATCH", f"/users/{robot['id']}", body={"role": "owner"}), 403)
    assert (await ok(tenant.ask("PATCH", f"/users/{robot['id']}", body={"role": "viewer"})))["role"] == "viewer"
    invite = {"email": "eve@example.com", "role": "developer"}
    first, second = [await ok(tenant.ask("POST", "/invites", body=invite)) for _ in range(2)]
    assert (second["mailed"], second["url"].startswith("http://127.0.0.1:8000/console/links/")) == (False, True)
    (listed,) = (await ok(tenant.ask("GET", "/invites")))["data"]
    assert (listed["id"], listed["email"]) == (second["id"], "eve@example.com")
    assert first["id"] != second["id"]
    await ok(tenant.ask("DELETE", f"/invites/{second['id']}"))
    left = await ok(tenant.ask("DELETE", f"/users/{robot['id']}"))
    assert left["keys_revoked"] == [key["key_id"]]
    await refused(world.ask("GET", "/api-keys", key=key["key"]), 401)


async def test_roles_in_one_workspace_are_given_changed_and_taken_away(world):
    tenant, other = world.tenants
    robot, lab, foreign = tenant.new("user_id"), tenant.new("workspace_id"), other.new("workspace_id")
    place = f"/users/{robot}/workspaces/{lab}"

    async def shown():
        (found,) = [user for user in (await ok(tenant.ask("GET", "/users")))["data"] if user["id"] == robot]
        return found["workspace_roles"]

    given = await ok(tenant.ask("PUT", place, body={"role": "developer"}))
    assert given == {"id": robot, "workspace_id": lab, "role": "developer"}
    assert await shown() == {lab: "developer"}
    await ok(tenant.ask("PUT", place, body={"role": "admin"}))
    assert await shown() == {lab: "admin"}
    await refused(tenant.ask("PUT", place, body={"role": "king"}), 422)
    await refused(tenant.ask("PUT", f"/users/{robot}/workspaces/{foreign}", body={"role": "admin"}), 404)
    stranger = other.new("user_id")
    await refused(tenant.ask("PUT", f"/users/{stranger}/workspaces/{lab}", body={"role": "admin"}), 404)
    key = await ok(tenant.ask("POST", "/api-keys", body={"user_id": robot, "workspace_uuid": lab}))
    left = await ok(tenant.ask("DELETE", place))
    assert left == {"id": robot, "keys_revoked": [], "keys_kept": [key["key_id"]]}, "its role in the organisation stays"
    assert await shown() == {}
    await refused(tenant.ask("DELETE", place), 404)
    named = {"organisation": tenant.id}
    await ok(world.operate("PUT", f"/users/{stranger}/workspaces/{lab}", body={"role": "viewer"}, params=named))
    key = await ok(tenant.ask("POST", "/api-keys", body={"user_id": stranger, "workspace_uuid": lab}))
    left = await ok(tenant.ask("DELETE", f"/users/{stranger}/workspaces/{lab}"))
    assert left["keys_revoked"] == [key["key_id"]]
    actions = [entry["action"] for entry in (await ok(tenant.ask("GET", "/audit-logs")))["data"]]
    assert {f"workspace_member.{verb}" for verb in ("add", "set_role", "remove")} <= set(actions)


async def test_why_something_was_refused(world):
    tenant, other = world.tenants
    for organisation in (tenant.id, other.id, ""):
        event = RefusalEvent(
            "r1", organisation, "w", "k", "/v1/chat/completions", "auto", 429, "1300", "concurrency", "key", 5, 0, 9
        )
        await world.services.refusals.append([event])
    (found,) = (await ok(tenant.ask("GET", "/refusals")))["data"]
    assert (found["request_id"], found["rule"], found["limit"], found["status"]) == ("r1", "concurrency", 5, 429)
    await refused(tenant.ask("GET", "/refusals", params={"unattributed": True}), 403)
    (found,) = (await ok(world.operate("GET", "/refusals", params={"unattributed": True})))["data"]
    assert found["code"] == "1300"


WRONG_BODIES = (
    b"",
    b"{",
    b"[]",
    b'{"nam": "x"}',
    b'{"name": 1}',
    b'{"name": "\\u0000"}',
    b'{"name": "\\ud800"}',
    b'{"name": "x", "expiration": "9999-12-31T23:59:59-12:00"}',
    b'{"name": "x", "expiration": "2020-01-01"}',
    b'{"name": "x", "expiration": "9999-12-31"}',
    b'{"name": "x", "expiration": 1}',
    b'{"name": "x", "scopes": []}',
    b'{"name": "x", "scopes": ["inference", "admin:read"]}',
    b'{"name": "x", "tiers": ["none"]}',
    b'{"name": "x", "networks": ["10.0.0.0/99"]}',
)


async def test_a_body_that_is_wrong_changes_nothing(sqlite_database):
    async with admin_world(sqlite_database) as world:
        headers = {"authorization": f"Bearer {world.operator}", "content-type": "application/json"}
        path = f"/v1/admin/api-keys?organisation={world.tenants[0].id}"
        before = world.accounts.see(lambda session: session.scalars(select(ApiKey.id)).all())
        for body in WRONG_BODIES:
            answer = await world.client.post(path, content=body, headers=headers)
            assert answer.status_code == 422, (body, answer.text)
        assert world.accounts.see(lambda session: session.scalars(select(ApiKey.id)).all()) == before


class Refusing:
    def send(self, _mail):
        raise MailError("busy")


class Kept:
    def __init__(self):
        self.mails = []

    def send(self, mail):
        self.mails.append(mail)


async def test_an_invitation_is_mailed_where_there_is_mail(sqlite_database):
    kept = Kept()
    async with admin_world(sqlite_database, kept) as world:
        made = await ok(world.tenants[0].ask("POST", "/invites", body={"email": "e@example.com", "role": "viewer"}))
    assert (made["mailed"], made["url"]) == (True, None)
    assert [mail.to for mail in kept.mails] == ["e@example.com"]


async def test_a_mail_that_is_not_accepted_is_told(sqlite_database):
    async with admin_world(sqlite_database, Refusing()) as world:
        asked = world.tenants[0].ask("POST", "/invites", body={"email": "e@example.com", "role": "viewer"})
        await refused(asked, 503, "invite once more")


async def test_what_is_done_is_told_also_when_gateways_cannot_be(sqlite_database, monkeypatch):
    async with admin_world(sqlite_database) as world:
        tenant = world.tenants[0]
        made = await ok(tenant.ask("POST", "/api-keys", body={"name": "x"}))

        async def away(_organisation, _generation):
            raise ConnectionError("gone")

        monkeypatch.setattr(world.services.keeper, "set_generation", away)
        turned = await ok(tenant.ask("POST", f"/api-keys/{made['key_id']}/rotate", body={"overlap_s": 0}))
        assert turned["key"] != made["key"]  # nobody could show it later
        answer = await refused(tenant.ask("DELETE", f"/api-keys/{made['key_id']}"), 503, "It is done")
        assert answer.headers["retry-after"] == "1"
        assert (await ok(tenant.ask("GET", f"/api-keys/{made['key_id']}")))["can_delete"] is False


async def test_without_redis_nobody_is_called_unknown(sqlite_database, monkeypatch):
    async with admin_world(sqlite_database) as world:

        async def away(*_arguments):
            raise ConnectionError("gone")

        monkeypatch.setattr(world.services.credit, "level", away)
        assert (await ok(world.tenants[0].ask("GET", "/credit")))["cell"] is None
        monkeypatch.setattr(world.services.refusals, "read", away)
        await refused(world.tenants[0].ask("GET", "/refusals"), 503)
        monkeypatch.setattr(world.services.keeper, "generations", away)
        await refused(world.tenants[0].ask("GET", "/api-keys"), 503)
