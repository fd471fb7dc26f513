"""The Python client against the running platform: its README, and what it promises."""

import asyncio
import os
import re
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field
from tramontane import (
    AsyncTramontane,
    AuthenticationError,
    CreditExhausted,
    InvalidRequest,
    RateLimited,
    Retries,
    SpendingLimitReached,
    Tramontane,
)

from tests.e2e.installation import BOUND_S, until

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv-sdk/bin/tramontane-chat"
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "sdk/README.md").read_text(), re.DOTALL)
TALK = [{"role": "user", "content": "Tell me about the wind."}]
ONCE = Retries(tries_max=1)


class Home:
    """Keys to work with. `metered` is what the platform counted for the key."""

    def __init__(self, platform):
        self._platform = platform
        self.base_url = platform.quick("status")["base_url"]
        made = platform.quick("keys", "create", "--org", "default", "--name", "sdk")
        self.key, self.key_id = made["key"], made["id"]

    def client(self, key=None, **said):
        return Tramontane(api_key=key or self.key, base_url=self.base_url, **said)

    def admin(self):
        made = self._platform.quick("keys", "create", "--name", "sdk-operator", "--scope", "operator")
        return self.client(made["key"])

    def metered(self):
        rows = [row for row in self._platform.quick("usage")["rows"] if row["key_id"] == self.key_id]
        return {name: sum(row[name] for row in rows) for name in ("prompt_tokens", "completion_tokens")}

    def settled(self):
        until(lambda: self._platform.quick("status")["reservations_open"] == 0)


@pytest.fixture
def home(platform):
    return Home(platform)


def told(*usages):
    return {name: sum(getattr(usage, name) for usage in usages) for name in ("prompt_tokens", "completion_tokens")}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme(home, platform, monkeypatch, number):
    operator = platform.quick("keys", "create", "--name", "readme", "--scope", "operator")["key"]
    monkeypatch.setenv("TRAMONTANE_API_KEY", home.key)
    monkeypatch.setenv("TRAMONTANE_BASE_URL", home.base_url)
    monkeypatch.setenv("TRAMONTANE_OPERATOR_KEY", operator)
    exec(compile(EXAMPLES[number], f"README example {number}", "exec"), {"__name__": "example"})


def test_the_readme_has_examples():
    assert len(EXAMPLES) == 10


def test_what_is_told_is_what_is_metered(home):
    with home.client() as client:
        answer = client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=9, random_seed=7, temperature=1)
        with client.chat.stream(model="mistral-tiny", messages=TALK, max_tokens=9, random_seed=7, temperature=1) as one:
            streamed = one.until_done()
        assert streamed.choices[0].message == answer.choices[0].message
        assert answer.meta.request_id == answer.id
        assert answer.meta.cost_nano == 140 * answer.usage.prompt_tokens + 420 * answer.usage.completion_tokens
        filled = client.fim.complete(model="codestral", prompt="def f():", suffix="return x", max_tokens=4)
        embedded = client.embeddings.create(model="mistral-embed", input="a cat")
    usages = (answer.usage, streamed.usage, filled.usage, embedded.usage)
    assert home.metered() == told(*usages)


def test_the_same_key_again_is_the_same_answer(home):
    with home.client() as client:
        ask = {"model": "mistral-tiny", "messages": TALK, "max_tokens": 5, "idempotency_key": "sdk-1"}
        first, again = client.chat.complete(**ask), client.chat.complete(**ask)
    assert again == first
    assert (first.meta.replayed, again.meta.replayed) == (False, True)
    assert home.metered() == told(first.usage)


def test_async(home):
    async def run():
        async with AsyncTramontane(api_key=home.key, base_url=home.base_url) as client:
            asks = [client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=5) for _ in range(8)]
            answers = await asyncio.gather(*asks)
            async with client.chat.stream(model="mistral-small", messages=TALK, max_tokens=5) as stream:
                texts = [text async for text in stream.texts()]
            assert "".join(texts) == stream.completion.choices[0].message.content
            return [*answers, stream.completion]

    answers = asyncio.run(run())
    assert home.metered() == told(*(answer.usage for answer in answers))


def test_a_cancelled_stream_stops_the_platform(home):
    with home.client() as client:
        for _ in zip(range(5), client.chat.stream(model="mistral-tiny", messages=TALK, max_tokens=1_500), strict=False):
            pass
    home.settled()
    assert 0 < home.metered()["completion_tokens"] < 1_500


def test_a_cancelled_task_stops_the_platform(home):
    async def run():
        async with AsyncTramontane(api_key=home.key, base_url=home.base_url) as client:
            begun = asyncio.Event()

            async def read():
                async with client.chat.stream(model="mistral-tiny", messages=TALK, max_tokens=1_500) as stream:
                    async for _ in stream:
                        begun.set()

            task = asyncio.create_task(read())
            await asyncio.wait_for(begun.wait(), BOUND_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    home.settled()
    assert home.metered()["completion_tokens"] < 1_500


def test_an_organisation_without_credit(home):
    with home.admin() as operator:
        operator.admin.organisations.create("sdk-poor", plan="penniless")
        poor = operator.admin.within("sdk-poor")
        key = poor.keys.create("k").key
        with home.client(key) as client, pytest.raises(CreditExhausted) as caught:
            client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=5)
        assert caught.value.code == "1310"
        assert caught.value.refusal.rule == "credit"
        assert caught.value.retry_after_s is None
        until(poor.records.refusals)
        assert poor.records.refusals()[0].request_id == caught.value.request_id
        poor.credit.top_up("5.00")
        with home.client(key) as client:
            assert client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=5).usage.completion_tokens > 0


def test_limits_that_the_client_reaches(home):
    with home.admin() as operator:
        admin = operator.admin.within("default")
        slow, capped = admin.keys.create("sdk-slow"), admin.keys.create("sdk-capped")
        admin.limits.set("requests_per_minute", subject_kind="key", subject_id=slow.key_id, value=1)
        admin.limits.set("spend_per_month", subject_kind="key", subject_id=capped.key_id, amount="0")
    with home.client(slow.key, retries=ONCE) as client:
        client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=2)
        with pytest.raises(RateLimited) as caught:
            client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=2)
    assert 0 < caught.value.retry_after_s < 70
    refusal = caught.value.refusal
    assert (refusal.rule, refusal.scope, refusal.limit, refusal.remaining) == ("requests_per_minute", "key", 1, 0)
    with home.client(capped.key) as client, pytest.raises(SpendingLimitReached) as caught:
        client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=2)
    assert caught.value.refusal.rule == "spend_per_month"


def test_a_short_wait_is_waited_for(home):
    with home.admin() as operator:
        admin = operator.admin.within("default")
        brisk = admin.keys.create("sdk-brisk")
        admin.limits.set("requests_per_second", subject_kind="key", subject_id=brisk.key_id, value=1)
    with home.client(brisk.key, retries=Retries(tries_max=8)) as client:
        for _ in range(3):
            assert client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=2).usage.completion_tokens > 0


def test_refusals_name_what_is_wrong(home):
    with home.client() as client:
        with pytest.raises(InvalidRequest) as caught:
            client.chat.complete(model="mistral-tiny", messages=TALK, extra_body={"colour": "blue"})
        assert caught.value.details[0].loc == ("body", "colour")
        assert caught.value.request_id
    with home.client("tmt_wrong") as client, pytest.raises(AuthenticationError):
        client.models.list()


def sky(place: Literal["Rome", "Oslo"]) -> dict:
    """The colour of the sky."""
    return {"place": place, "colour": "blue"}


async def slow_sky(place: Literal["Rome", "Oslo"]) -> dict:
    """The colour of the sky."""
    return sky(place)


LOOP = {
    "model": "mistral-tiny",
    "messages": TALK,
    "tool_choice": "any",
    "later_choice": "none",
    "parallel_tool_calls": False,
    "max_tokens": 40,
}


def check_run(run):
    assert run.rounds == 2
    assert [message["role"] for message in run.messages] == ["user", "assistant", "tool", "assistant"]
    assert '"colour": "blue"' in run.messages[2]["content"]
    assert run.content == run.messages[3]["content"]


def test_a_tool_loop(home):
    with home.client() as client:
        check_run(client.chat.run(**LOOP, tools=[sky]))

    async def run():
        async with AsyncTramontane(api_key=home.key, base_url=home.base_url) as client:
            tool = slow_sky
            check_run(await client.chat.run(**LOOP, tools=[tool]))

    asyncio.run(run())


class Wind(BaseModel):
    name: str = Field(max_length=12)
    knots: int = Field(ge=0, le=99)


def test_an_answer_of_a_form(home):
    with home.client() as client:
        found = client.chat.parse(model="mistral-tiny", messages=TALK, response_format=Wind, max_tokens=120)
    assert isinstance(found.parsed, Wind)
    assert found.completion.choices[0].finish_reason == "stop"


def test_a_thousand_texts_with_progress(home):
    texts = [f"number {number % 10}" for number in range(1_000)]
    seen = []
    with home.client() as client:
        found = client.embeddings.create(
            model="mistral-embed", input=texts, on_progress=lambda *progress: seen.append(progress)
        )
    assert seen == [(256, 1_000), (512, 1_000), (768, 1_000), (1_000, 1_000)]
    assert [item.index for item in found.data] == list(range(1_000))
    assert len(found.data[0].embedding) == 384
    assert found.data[999].embedding == pytest.approx(found.data[9].embedding, abs=1e-4)
    assert home.metered()["prompt_tokens"] == found.usage.prompt_tokens


def test_administration(home):
    with home.admin() as operator:
        admin = operator.admin
        organisation = admin.organisations.create("sdk-acme", plan="development", time_zone="Europe/Rome")
        acme = admin.within(organisation.id)
        assert admin.organisations.update(organisation.id, lenient=True).lenient
        workspace = acme.workspaces.create("labs")
        key = acme.keys.create("k", workspace_id=workspace.id, tiers=["mistral-tiny"])
        assert acme.keys.update(key.key_id, tiers=None).tiers is None
        rotated = acme.keys.rotate(key.key_id, overlap_s=0)
        with home.client(key.key) as before, pytest.raises(AuthenticationError):
            before.users.me()
        with home.client(rotated.key) as client:
            assert client.users.me().workspace.id == workspace.id
            assert client.limits.list()
            client.chat.complete(model="mistral-tiny", messages=TALK, max_tokens=2)
            until(lambda: client.usage.report().data)
            assert [record.tier for record in client.usage.records()] == ["mistral-tiny"]
            acme.keys.revoke(key.key_id)
            with pytest.raises(AuthenticationError):
                client.users.me()
        assert acme.limits.set_spend_limit("12.50").own_limit == "12.50"
        assert acme.limits.set_spend_limit(None).own_limit is None
        limit = acme.limits.set("concurrency", subject_kind="workspace", subject_id=workspace.id, value=4)
        acme.limits.remove(limit.id)
        assert acme.limits.rate_limit().concurrency > 4
        given = acme.credit.grant("1.00", idempotency_key="gift")
        assert acme.credit.grant("1.00", idempotency_key="gift") == given
        assert acme.credit.set_limit("2.00").limit == "2.00"
        assert given.id in [grant.id for grant in acme.credit.retrieve().grants]
        assert acme.customer.update(name="Acme").time_zone == "Europe/Rome"
        robot = acme.users.create_service_account("robot")
        assert acme.users.set_role(robot.id, "viewer").role == "viewer"
        assert [member.id for member in acme.users.list()] == [robot.id]
        assert acme.users.remove(robot.id).keys_kept == []
        invite = acme.invites.create("eve@example.com", "viewer")
        assert invite.url not in repr(invite)
        acme.invites.withdraw(invite.id)
        assert acme.invites.list() == []
        acme.workspaces.archive(workspace.id)
        assert acme.records.monthly_usage().time_zone == "Europe/Rome"
        actions = {entry.action for entry in acme.records.audit_logs(limit=100).data}
        assert {"workspace.create", "api_key.create", "api_key.revoke"} <= actions
        plan = admin.plans.put("sdk-plan", credit="1", limits=[{"kind": "concurrency", "value": 2}])
        assert plan in admin.plans.list(limit=1_000)
        assert {price.tier for price in admin.prices.list()} >= {"mistral-tiny", "mistral-embed"}
        assert admin.organisations.suspend(organisation.id).status == "suspended"
        assert admin.organisations.resume(organisation.id).status == "active"


def test_the_terminal_chat_from_an_environment_of_its_own(home):
    """Installed there alone, without pydantic and without us: `make .venv-sdk/.installed`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRAMONTANE_", "PYTHON"))}
    env = {**clean, "TRAMONTANE_API_KEY": home.key, "TRAMONTANE_BASE_URL": home.base_url}
    argv = [str(PROGRAM), "--model", "mistral-tiny", "--system", "Be brief.", "--max-tokens", "20"]
    done = subprocess.run(
        argv, input="/model\nHello\n/quit\n", capture_output=True, text=True, timeout=BOUND_S, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "* mistral-tiny" in done.stdout
    assert home.metered()["completion_tokens"] > 0
