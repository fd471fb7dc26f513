"""From the key in a request's headers to a Principal, and where it may come from."""

from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from starlette.types import Scope

from core.errors import NOT_ALLOWED, UNAUTHORIZED, UNAVAILABLE, PlatformError
from core.queue.base import QueueKeeper
from gateway.accounts.scopes import ADMIN_READ, ADMIN_WRITE, SUFFICES
from gateway.accounts.trail import Actor
from gateway.desk import QUEUE_AWAY
from gateway.middleware import header
from gateway.principal import Principal, PrincipalSource

KEY_CHARS_MAX = 256
READING_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Caller:
    """`secret` is kept only to have the principal loaded again when admission calls it stale; empty for who came by a
    session of the console. `address` is the client's, as far as it is known.
    """

    secret: str = field(repr=False)
    principal: Principal
    address: str = ""

    async def reload(self, principals: PrincipalSource) -> Principal:
        """Raises PlatformError if the key is not valid any more."""
        if self.secret:
            principals.forget(self.secret)
            return await principals.by_key(self.secret)
        principals.forget_id(self.principal.key_id)
        return await principals.by_id(self.principal.key_id)

    def actor(self, request_id: str = "") -> Actor:
        """As the audit log names it."""
        return Actor("key", self.principal.key_id, self.principal.key_name, self.address, request_id)


async def authenticate(principals: PrincipalSource, scope: Scope, needs: str | None) -> Caller:
    """The caller of a request. Raises PlatformError: 401, or 403 for a key without the scope `needs` or from an address
    that is not on its list.
    """
    secret = _bearer(scope)
    return _allowed(await principals.by_key(secret), scope, secret, needs)


async def authenticate_quickly(
    principals: PrincipalSource, keeper: QueueKeeper, scope: Scope, needs: str | None
) -> Caller:
    """For routes with an admission, which refuses what is stale: only a refusal is looked at twice, for the key may
    have been loosened a moment ago.
    """
    try:
        return await authenticate(principals, scope, needs)
    except PlatformError as error:
        if error.kind is not NOT_ALLOWED:
            raise
    return await authenticate_now(principals, keeper, scope, needs)


async def authenticate_now(principals: PrincipalSource, keeper: QueueKeeper, scope: Scope, needs: str | None) -> Caller:
    """For routes without an admission, which would refuse a stale principal: ask whether it still is what it was."""
    return await _known_now(principals, keeper, scope, _bearer(scope), needs)


async def authenticate_admin(
    principals: PrincipalSource, keeper: QueueKeeper, scope: Scope, needs: str | None = None
) -> Caller:
    """Of a route under /v1/admin: the key comes as Bearer or in x-api-key. `needs` None: as the method says."""
    if needs is None:
        needs = ADMIN_READ if scope["method"] in READING_METHODS else ADMIN_WRITE
    value = header(scope, b"x-api-key")
    secret = _bearer(scope) if value is None else _checked(value)
    return await _known_now(principals, keeper, scope, secret, needs)


async def authenticate_session(principals: PrincipalSource, scope: Scope, key_id: str, needs: str) -> Caller:
    """Of somebody whose session of the console was checked, as their chat's key says. Only a refusal is looked at
    twice, as in `authenticate_quickly`. Raises PlatformError.
    """
    try:
        return _allowed(await principals.by_id(key_id), scope, "", needs)
    except PlatformError as error:
        if error.kind is not NOT_ALLOWED:
            raise
    principals.forget_id(key_id)
    return _allowed(await principals.by_id(key_id), scope, "", needs)


def client_address(scope: Scope) -> str:
    """The socket's, or what a trusted proxy said: uvicorn has put that in its place (settings: trusted_proxies)."""
    client = scope.get("client")
    return "" if client is None else str(client[0])


async def _known_now(
    principals: PrincipalSource, keeper: QueueKeeper, scope: Scope, secret: str, needs: str | None
) -> Caller:
    principal = await principals.by_key(secret)
    organisation = principal.organisation
    try:
        current = (await keeper.generations([organisation])).get(organisation, 0)
    except QUEUE_AWAY as error:
        raise PlatformError(
            UNAVAILABLE, "The platform cannot check this key at the moment.", retry_after_s=1
        ) from error
    if current > principal.generation:
        principals.forget(secret)
        principal = await principals.by_key(secret)
    return _allowed(principal, scope, secret, needs)


def _allowed(principal: Principal, scope: Scope, secret: str, needs: str | None) -> Caller:
    address = client_address(scope)
    _check_address(principal, address)
    if needs is not None and not SUFFICES[needs] & principal.scopes:
        raise PlatformError(NOT_ALLOWED, f"This key lacks the scope {needs}.")
    return Caller(secret, principal, address)


def _check_address(principal: Principal, address: str) -> None:
    """An address that cannot be read is on no list."""
    if not principal.networks:
        return
    try:
        found = ip_address(address)
    except ValueError:
        found = None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found is None or not any(found in network for network in principal.networks):
        raise PlatformError(NOT_ALLOWED, f"This key may not be used from the address {address or 'of this client'}.")


def _bearer(scope: Scope) -> str:
    value = header(scope, b"authorization")
    if value is None:
        raise _unauthorized()
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"bearer":
        raise _unauthorized()
    return _checked(rest.strip())


def _checked(value: bytes) -> str:
    secret = value.decode("latin-1")
    if not secret or len(secret) > KEY_CHARS_MAX:
        raise _unauthorized()
    return secret


def _unauthorized() -> PlatformError:
    return PlatformError(UNAUTHORIZED, "Unauthorized")
