"""The walls of the admin API, for every operation that its document has: a new one cannot be forgotten here."""

import re

import pytest

from tests.admin_world import METHODS, PREFIX, admin_world, operations

TIER = {"tier": "auto", "input": "0.30"}
MONEY = {"idempotency-key": "invoice-7"}
# What each writing operation is sent. A function makes the body for a tenant, where it names one of its objects.
BODIES = {
    ("POST", "/api-keys"): {"name": "made"},
    ("PATCH", "/api-keys/{key_id}"): {"name": "changed"},
    ("POST", "/api-keys/{key_id}/rotate"): {"overlap_s": 60},
    ("POST", "/workspaces"): {"name": "made"},
    ("PATCH", "/workspaces/{workspace_id}"): {"lenient": True},
    ("POST", "/users"): {"name": "robot"},
    ("PATCH", "/users/{user_id}"): {"role": "developer"},
    ("PUT", "/users/{user_id}/workspaces/{workspace_id}"): {"role": "viewer"},
    ("POST", "/invites"): {"email": "eve@example.com", "role": "viewer"},
    ("PUT", "/limits"): {"subject_kind": "customer", "kind": "spend_per_day", "amount": "2.50"},
    ("POST", "/spend-limit"): {"amount": 20},
    ("PATCH", "/customer"): {"email": "bills@example.com"},
    ("POST", "/credit/top-ups"): {"amount": "10"},
    ("POST", "/credit/grants"): {"amount": "0.25"},
    ("PATCH", "/credit/limit"): {"amount": "5"},
    ("POST", "/organisations"): {"name": "made"},
    ("PATCH", "/organisations/{organisation_id}"): {"lenient": True},
    ("POST", "/organisations/{organisation_id}/suspend"): None,
    ("POST", "/organisations/{organisation_id}/resume"): None,
    ("PUT", "/plans"): {"name": "business", "credit": "5", "limits": [{"kind": "concurrency", "value": 9}]},
    ("POST", "/prices"): {"version": "v2", "prices": [TIER]},
}
HEADERS = {("POST", "/credit/top-ups"): MONEY, ("POST", "/credit/grants"): {"idempotency-key": "gift-1"}}
OPERATORS = ("/organisations", "/plans", "/prices", "/credit/top-ups", "/credit/grants", "/credit/limit")

# What must have been done before to the same objects.
BEFORE = {
    ("DELETE", "/users/{user_id}/workspaces/{workspace_id}"): ("PUT", "/users/{user_id}/workspaces/{workspace_id}"),
    ("POST", "/organisations/{organisation_id}/resume"): ("POST", "/organisations/{organisation_id}/suspend"),
}

LIMIT = {"kind": "concurrency", "value": 1, "subject_id": "{}"}
INVITE = {"email": "e@example.com", "role": "viewer"}
# Bodies that name an object.
NAMING = {
    ("POST", "/api-keys", "workspace_id"): {"name": "x", "workspace_uuid": "{}"},
    ("POST", "/api-keys", "user_id"): {"name": "y", "user_id": "{}"},
    ("POST", "/invites", "workspace_id"): {**INVITE, "workspace_uuid": "{}"},
    ("PUT", "/limits", "key_id"): {"subject_kind": "key", **LIMIT},
    ("PUT", "/limits", "workspace_id"): {"subject_kind": "workspace", **LIMIT},
    ("PUT", "/limits", "organisation_id"): {"subject_kind": "customer", **LIMIT},
}


@pytest.fixture
async def world(database):
    async with admin_world(database) as made:
        yield made


def parameters(path):
    return re.findall(r"{(\w+)}", path)


def filled(path, ids):
    return path.format(**ids)


def is_operators(path):
    return path.startswith(OPERATORS)


def sending(method, path):
    """Body and headers of an operation; whoever adds a writing one says here what it is sent."""
    if method in {"POST", "PUT", "PATCH"}:
        return {"body": BODIES[method, path], "headers": HEADERS.get((method, path), {})}
    return {}


def naming(body, named):
    return {name: named if value == "{}" else value for name, value in body.items()}


def without(text, *ids):
    for each in ids:
        text = text.replace(each, "ID")
    return re.sub(r'"request_id":"\w+"', "", text)


async def test_no_operation_reaches_an_object_of_another_organisation(world):
    mine, other = world.tenants
    asked = 0
    for method, path in operations(world.app):
        names = parameters(path)
        if not names:
            continue
        theirs = {name: other.new(name) for name in names}
        nobodys = dict.fromkeys(names, "not-there")
        answers = [await mine.ask(method, filled(path, ids), **sending(method, path)) for ids in (theirs, nobodys)]
        expected = 403 if is_operators(path) else 404
        assert [answer.status_code for answer in answers] == [expected] * 2, (method, path, answers[0].text)
        assert without(answers[0].text, *theirs.values()) == without(answers[1].text, *nobodys.values())
        for one, found in ((other, theirs), (mine, {name: mine.new(name) for name in names})):
            if not is_operators(path):
                if (method, path) in BEFORE:
                    first, place = BEFORE[method, path]
                    assert (await one.ask(first, filled(place, found), **sending(first, place))).status_code == 200
                answer = await one.ask(method, filled(path, found), **sending(method, path))
                assert answer.status_code < 300, (method, path, answer.text)
        asked += 1
    assert asked >= 12


async def test_lists_and_sums_show_only_what_is_ones_own(world):
    mine, other = world.tenants
    for name in ("key_id", "workspace_id", "limit_id", "user_id", "invite_id"):
        mine.new(name)
        other.new(name)
    for method, path in operations(world.app):
        if method != "GET" or parameters(path) or is_operators(path):
            continue
        answer = await mine.ask(method, path)
        assert answer.status_code == 200, (path, answer.text)
        assert other.id not in answer.text, path
        assert other.name not in answer.text, path
        # An object of the other organisation cannot be asked for in the query either.
        strange = other.new("workspace_id")
        for query in ({"workspace_id": strange}, {"subject_kind": "workspace", "subject_id": strange}):
            answer = await mine.ask(method, path, params=query)
            if answer.status_code == 200:
                assert answer.text == (await mine.ask(method, path)).text, path  # it takes no such query
            else:
                assert answer.status_code == 404, (path, answer.text)


async def test_a_body_cannot_name_an_object_of_another_organisation(world):
    mine, other = world.tenants
    for (method, path, parameter), body in NAMING.items():
        texts = []
        for named in (other.new(parameter), "not-there"):
            answer = await mine.ask(method, path, body=naming(body, named))
            assert answer.status_code == 404, answer.text
            texts.append(without(answer.text, named))
        assert texts[0] == texts[1]
        answer = await mine.ask(method, path, body=naming(body, mine.new(parameter)))
        assert answer.status_code in {200, 201}, answer.text


async def test_who_may_what(world):
    """Each operation with no key, with keys of each scope, and with an organisation that is not the key's to name."""
    tenant, other = world.tenants
    for method, path in operations(world.app):
        target = filled(path, {name: tenant.new(name) for name in parameters(path)})
        sent = sending(method, path)

        async def status(key, target=target, method=method, sent=sent, **options):
            return (await world.ask(method, target, key=key, **sent, **options)).status_code

        assert await status(None) == 401, (method, path)
        assert await status("tmt_wrong") == 401, (method, path)
        for scope in ("inference", "usage:read"):
            assert await status(tenant.keys[scope]) == 403, (method, path, scope)
        if method != "GET" or is_operators(path):
            assert await status(tenant.keys["admin:read"]) == 403, (method, path)
        if is_operators(path):
            assert await status(tenant.keys["admin:write"]) == 403, (method, path)
        for named in (other.id, tenant.id, "not-there"):
            answer = await status(tenant.keys["admin:write"], params={"organisation": named})
            assert answer == 403 or "/organisations" in path, (method, path, named)
        if method == "GET":
            key = world.operator if is_operators(path) else tenant.keys["admin:read"]
            assert await status(key) == 200, (method, path)


async def test_each_write_stands_in_the_audit_log_with_who_and_from_where(world):
    tenant = world.tenants[0]
    for method, path in operations(world.app):
        if method == "GET":
            continue
        ids = {name: tenant.new(name) for name in parameters(path)}
        target = filled(path, ids)
        query = {} if path.startswith(("/organisations", "/plans", "/prices")) else {"organisation": tenant.id}
        if (method, path) in BEFORE:
            first, place = BEFORE[method, path]
            await world.operate(first, filled(place, ids), params=query, **sending(first, place))
        answer = await world.operate(method, target, params=query, **sending(method, path))
        assert answer.status_code < 300, (method, path, answer.text)
        entries = (await world.operate("GET", "/audit-logs", params={"limit": 5})).json()["data"]
        request_id = answer.headers["mistral-correlation-id"]
        entry = next((one for one in entries if one["request_id"] == request_id), None)
        assert entry is not None, (method, path)
        assert (entry["actor"]["kind"], entry["actor"]["name"]) == ("key", "operator")
        assert entry["address"] == "192.0.2.7"
        assert entry["before"] or entry["after"] or "revoke" in entry["action"] or "archive" in entry["action"]


async def test_a_secret_is_shown_once_and_nowhere_else(world):
    tenant = world.tenants[0]
    made = (await tenant.ask("POST", "/api-keys", body={"name": "once"})).json()
    turned = (await tenant.ask("POST", f"/api-keys/{made['key_id']}/rotate", body={})).json()
    link = (await tenant.ask("POST", "/invites", body={"email": "e@example.com", "role": "viewer"})).json()["url"]
    secrets = [made["key"], turned["key"], link.rpartition("/")[2], tenant.keys["admin:write"], world.operator]
    hidden = [secret.rpartition("_")[2][:16] for secret in secrets]
    ids = {"key_id": made["key_id"], "organisation_id": tenant.id, "workspace_id": made["workspace_id"]}
    seen = 0
    for method, path in operations(world.app):
        if method == "GET":
            for key in (tenant.keys["admin:read"], world.operator):
                text = (await world.ask(method, filled(path, ids), key=key, params={})).text
                assert not any(part in text for part in hidden), path
                seen += text.count(made["key_id"])
    assert seen > 0


async def test_every_operation_is_documented_and_no_other_verb_answers(world):
    tenant = world.tenants[0]
    known = operations(world.app)
    assert len(known) >= 40
    for path in {path for _, path in known}:
        target = filled(path, {name: tenant.new(name) for name in parameters(path)})
        for method in METHODS:
            if (method, path) not in known:
                answer = await world.operate(method, target)
                assert answer.status_code == 405, (method, path)
    document = world.app.openapi()
    for method, path in known:
        operation = document["paths"][PREFIX + path][method.lower()]
        assert operation["security"] == [{"ApiKey": []}]
        assert {"401", "403", "404", "409", "422", "503"} <= operation["responses"].keys()
        if method in {"POST", "PUT", "PATCH"} and BODIES[method, path] is not None:
            (schema,) = operation["requestBody"]["content"]["application/json"]["schema"].values()
            assert schema.rpartition("/")[2] in document["components"]["schemas"]
