"""Who calls: headers, scopes, addresses, and keys that were revoked a moment ago."""

from dataclasses import replace
from ipaddress import ip_network

import httpx
import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from core.clock import ManualClock
from core.errors import NOT_ALLOWED, UNAUTHORIZED, PlatformError
from core.queue.base import QueueSettings
from core.queue.memory.broker import MemoryBroker
from core.queue.memory.views import MemoryQueueKeeper
from gateway.accounts.scopes import SCOPES, SUFFICES
from gateway.principal import Principal, Standing
from gateway.routes.access import (
    Caller,
    authenticate,
    authenticate_admin,
    authenticate_now,
    authenticate_session,
    client_address,
)

PRINCIPAL = Principal("key-1", "w", "o", frozenset({"inference"}), 1, 1, (), {}, key_name="ci")


class Principals:
    def __init__(self, principal: Principal) -> None:
        self.principal: Principal | None = principal
        self.after_forget: Principal | None = principal

    async def by_key(self, secret: str) -> Principal:
        if secret != "secret" or self.principal is None:
            raise PlatformError(UNAUTHORIZED, "no such key")
        return self.principal

    def forget(self, secret: str) -> None:
        del secret
        self.principal = self.after_forget

    async def valid(self, key_id: str) -> Standing | None:
        raise AssertionError(f"only open streams ask this, not {key_id}")


def scope(method="GET", client=("127.0.0.1", 5), **headers):
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "client": client, "headers": encoded}


def bearer(**options):
    return scope(authorization="Bearer secret", **options)


def keeper():
    return MemoryQueueKeeper(MemoryBroker(QueueSettings("c0", 6_000, {}), ManualClock()))


def with_scopes(*scopes, **changes):
    return Principals(replace(PRINCIPAL, scopes=frozenset(scopes), **changes))


async def refused(principals, asked, needs=None):
    with pytest.raises(PlatformError) as caught:
        await authenticate(principals, asked, needs)
    return caught.value


async def test_who_came_by_a_session_is_known_by_the_key_and_reloaded_by_it():
    class ById(Principals):
        forgotten = 0

        async def by_id(self, key_id):
            assert key_id == "key-1"
            return self.principal

        def forget_id(self, key_id):
            assert key_id == "key-1"
            self.forgotten += 1
            self.principal = self.after_forget

    principals = ById(replace(PRINCIPAL, networks=(ip_network("10.0.0.0/8"),)))
    with pytest.raises(PlatformError, match="address"):
        await authenticate_session(principals, scope(), "key-1", "inference")
    assert principals.forgotten == 1, "it may have been loosened a moment ago"
    principals.after_forget = PRINCIPAL
    caller = await authenticate_session(principals, scope(), "key-1", "inference")
    assert (caller.secret, caller.principal, principals.forgotten) == ("", PRINCIPAL, 2)
    assert await caller.reload(principals) is PRINCIPAL
    assert principals.forgotten == 3


async def test_a_caller_tells_who_and_from_where_but_not_the_secret():
    caller = await authenticate(Principals(PRINCIPAL), bearer(client=("192.0.2.7", 1)), "inference")
    assert caller == Caller("secret", PRINCIPAL, "192.0.2.7")
    assert "secret" not in repr(caller)
    actor = caller.actor("r1")
    assert (actor.kind, actor.id, actor.name, actor.address, actor.request_id) == (
        "key",
        "key-1",
        "ci",
        "192.0.2.7",
        "r1",
    )


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Basic secret"}, {"authorization": "Bearer"}, {"authorization": "Bearer " + "x" * 257}],
)
async def test_without_a_key_nobody_calls(headers):
    assert (await refused(Principals(PRINCIPAL), scope(**headers))).kind is UNAUTHORIZED


async def test_x_api_key_counts_only_for_administration():
    asked = scope(x_api_key="secret")
    assert (await refused(Principals(PRINCIPAL), asked)).kind is UNAUTHORIZED
    principals = with_scopes("admin:read")
    assert (await authenticate_admin(principals, keeper(), asked)).principal is principals.principal


@pytest.mark.parametrize("needs", sorted(SCOPES))
@pytest.mark.parametrize("has", sorted(SCOPES))
async def test_what_each_scope_is_good_for(has, needs):
    principals = with_scopes(has)
    if has in SUFFICES[needs]:
        assert (await authenticate(principals, bearer(), needs)).principal is principals.principal
    else:
        assert (await refused(principals, bearer(), needs)).kind is NOT_ALLOWED


@pytest.mark.parametrize(
    ("has", "method", "allowed"),
    [
        ("admin:read", "GET", True),
        ("admin:read", "POST", False),
        ("admin:write", "GET", True),
        ("admin:write", "DELETE", True),
        ("operator", "POST", True),
        ("inference", "GET", False),
        ("usage:read", "GET", False),
    ],
)
async def test_administration_needs_what_its_verb_says(has, method, allowed):
    asked, principals = bearer(method=method), with_scopes(has)
    if allowed:
        await authenticate_admin(principals, keeper(), asked)
        return
    with pytest.raises(PlatformError) as caught:
        await authenticate_admin(principals, keeper(), asked)
    assert caught.value.kind is NOT_ALLOWED


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        (("10.1.2.3", 1), True),
        (("::ffff:10.1.2.3", 1), True),
        (("2001:db8::1", 1), True),
        (("11.1.2.3", 1), False),
        (("::ffff:11.1.2.3", 1), False),
        (("unknown", 1), False),
        (None, False),
    ],
)
async def test_a_key_with_networks_works_only_from_there(client, allowed):
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    principals = with_scopes("inference", networks=networks)
    if allowed:
        await authenticate(principals, bearer(client=client), "inference")
        return
    error = await refused(principals, bearer(client=client), "inference")
    assert error.kind is NOT_ALLOWED
    assert client is None or client[0] in error.message


@pytest.mark.parametrize(
    ("socket", "forwarded", "address"),
    [
        ("127.0.0.1", "198.51.100.1, 192.0.2.7", "192.0.2.7"),  # the right-most that is no proxy of ours
        ("127.0.0.1", "198.51.100.1, 192.0.2.7, 10.0.0.9", "192.0.2.7"),
        ("127.0.0.1", None, "127.0.0.1"),
        ("203.0.113.5", "192.0.2.7", "203.0.113.5"),  # anybody can write a header
    ],
)
async def test_only_trusted_proxies_are_believed(socket, forwarded, address):
    """As GatewayServer sets uvicorn up with the setting trusted_proxies."""
    seen = []

    async def app(scope, receive, send):
        seen.append(client_address(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    behind = ProxyHeadersMiddleware(app, trusted_hosts=["127.0.0.0/8", "10.0.0.0/8"])
    transport = httpx.ASGITransport(behind, client=(socket, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await client.get("/", headers={} if forwarded is None else {"x-forwarded-for": forwarded})
    assert seen == [address]


async def test_a_revoked_key_is_refused_once_its_generation_is_published():
    principals, queue = Principals(PRINCIPAL), keeper()
    await queue.set_generation("o", 1)
    assert (await authenticate_now(principals, queue, bearer(), None)).principal is PRINCIPAL
    principals.after_forget = None
    await queue.set_generation("o", 2)
    with pytest.raises(PlatformError) as caught:
        await authenticate_now(principals, queue, bearer(), None)
    assert caught.value.kind is UNAUTHORIZED
