"""L5: secrets. After all scenes, no key and no pepper lies anywhere but where it was shown or is kept."""

import asyncio

import httpx
from sqlalchemy import MetaData, create_engine, select

from billing.settings import CollectorSettings
from core.settings import read_settings
from gateway.accounts.keys import CHECKSUM_LENGTH
from gateway.accounts.settings import peppers_of
from gateway.settings import GatewaySettings
from tests.promises.callers import CHAT, LONG, Heard, ask, body, chat, listen
from tests.promises.platform import FAULTY

READERS = {
    b"string": lambda client, key: client.get(key),
    b"hash": lambda client, key: client.hgetall(key),
    b"list": lambda client, key: client.lrange(key, 0, -1),
    b"set": lambda client, key: client.smembers(key),
    b"zset": lambda client, key: client.zrange(key, 0, -1),
    b"stream": lambda client, key: client.xrange(key),
}


def all_of_sql(platform):
    """Every value of every table, as text."""
    engine = create_engine(platform.database_url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        said = "\n".join(
            repr(tuple(row)) for table in tables.sorted_tables for row in connection.execute(select(table))
        )
    engine.dispose()
    return said.encode()


def all_of_redis(platform):
    """What it holds now, and everything that was ever written to its append-only file."""
    with platform.redis() as client:
        found = [(key, READERS.get(client.type(key))) for key in client.scan_iter(count=1_000)]
        # No reader: it has expired since.
        values = [repr((key, read and read(client, key))).encode() for key, read in found]
    return b"\n".join([*values, contents(platform.append_only_file())])


def contents(path):
    """Nothing for a file that a process has replaced or put away since it was listed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def all_of_files(folder, *, but=()):
    return b"\n".join(contents(path) for path in folder.rglob("*") if path.is_file() and path.parent.name not in but)


async def asked_and_refused(platform, tenant):
    """Mistyped, revoked and in a query: what is refused is where keys are lost to logs. The answer is of a request that
    its gateway's log must name: its client left.
    """
    typo = tenant.key[:-1] + ("a" if tenant.key[-1] != "a" else "b")
    async with platform.client(tenant) as client:
        assert (await ask(client)).status_code == 200
        left = await listen(client, Heard(), leave_after=1, **chat(LONG, FAULTY, max_tokens=1_500))
        for key in (typo, tenant.key + tenant.key, "Bearer " + tenant.key):
            assert (await client.post(CHAT, json=body(), headers={"authorization": f"Bearer {key}"})).status_code == 401
        assert (await client.post(CHAT, json=body(api_key=tenant.key))).status_code == 422
        assert (await client.get(f"/v1/nowhere/{tenant.key}", params={"key": tenant.key})).status_code == 404
        await asyncio.to_thread(platform.do, "keys", "revoke", tenant.key_id)
        assert (await client.post(CHAT, json=body())).status_code == 401
    return left.request_id


def test_no_key_material_anywhere(platform, figures):
    tenant = platform.tenant("secret", "1.00")
    left = asyncio.run(asked_and_refused(platform, tenant))
    platform.until_idle()
    platform.collected()
    with platform.environment():
        settings = [read_settings(cls) for cls in (GatewaySettings, CollectorSettings)]
        peppers = peppers_of(settings[0])
    places = {
        "sql": all_of_sql(platform),
        "redis": all_of_redis(platform),
        "metrics": httpx.get(f"{platform.base_url}/metrics").content,
        # Peppers lie in secrets, the password of Redis there and in the files of run.
        "files": all_of_files(platform.home.root, but={"secrets"}),
        "reprs": repr((settings, peppers, tenant)).encode(),
    }
    # The scan sees what it must see: the digest and the id of the key in SQL, its id in Redis and its request in a log.
    known = {
        ("sql", peppers.digest(tenant.key)),
        ("sql", tenant.key_id),
        ("redis", tenant.key_id),
        ("metrics", "tramontane_http_requests_total"),
        ("files", left),
        ("reprs", tenant.key_id),
    }
    assert {(place, what) for place, what in known if what.encode() in places[place]} == known
    material = [part for key in platform.secrets for part in (key, secret_of(key))]
    pepper = peppers.current.secret.get_secret_value()
    password = (platform.home.secrets / "redis_password").read_text().strip()
    for name, content in places.items():
        found = [part[:8] for part in (*material, pepper) if part.encode() in content]
        assert found == [], name
    for name in ("sql", "metrics", "reprs"):
        assert password.encode() not in places[name]
    assert password.encode() not in all_of_files(platform.home.logs)
    for path in platform.home.root.rglob("*"):
        if path.is_file() and password.encode() in contents(path):
            assert path.stat().st_mode & 0o077 == 0, path
    figures[f"L5 {platform.backend}"] = {
        "keys made": len(platform.secrets),
        "bytes searched": sum(len(content) for content in places.values()),
        "found": 0,
    }


def secret_of(key):
    """Without what may be shown: the prefix and the id."""
    return key.rpartition("_")[2][:-CHECKSUM_LENGTH]
