"""The console's chat over a real socket: paid for, limited, stopped and revoked as any request is."""

import asyncio
import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio

from billing.models import UsageRecord
from billing.price_lists import seed_prices
from core.clock import SystemClock
from core.db import connect_database
from core.ids import SystemIds
from core.queue.base import Outcome
from core.queue.rules import RuleKind
from gateway.accounts.access import OPERATOR
from gateway.accounts.api_keys import list_keys, revoke_key, rotate_key
from gateway.accounts.console_keys import console_key
from gateway.accounts.generations import publish_generations
from gateway.accounts.limits import LimitTerms, Subject, SubjectKind, set_limit
from gateway.accounts.members import set_role
from gateway.accounts.opening import open_account
from gateway.accounts.organisations import create_organisation
from gateway.accounts.people import User
from gateway.accounts.roles import Role
from gateway.accounts.sessions import csrf_token, end_sessions, open_session
from gateway.accounts.users import create_user
from gateway.accounts.workspaces import default_workspace_of
from gateway.console.desk import SESSION_COOKIE
from migrations.run import migrate
from tests.accounts_world import ACTOR, PEPPERS, AccountsWorld
from tests.console.world import HERE, text_of
from tests.e2e.gateway_world import CATALOG, CHAT, WAIT_S, SqlAccounts, gateway_world

pytestmark = pytest.mark.asyncio(loop_scope="module")
TIERS = [tier.name for tier in CATALOG.tiers]
RICH_NANO = 10**12


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('chat') / 'chat.sqlite3'}"
    migrate(url)
    database = connect_database(url)
    accounts = AccountsWorld(database)
    accounts.clock = SystemClock()
    accounts.ids = SystemIds(accounts.clock)
    with database.unit_of_work() as session:
        seed_prices(session, CATALOG, accounts.clock)
    async with gateway_world(SqlAccounts(database)) as world:
        yield House(world, accounts)
    database.close()


@dataclass
class House:
    world: object
    accounts: AccountsWorld
    number: int = 0

    @asynccontextmanager
    async def person(self, role="developer", credit_nano=RICH_NANO):
        """Somebody new, of a new organisation, in front of a browser."""
        self.number += 1
        accounts, world = self.accounts, self.world
        with accounts.database.unit_of_work() as session:
            name = f"org {self.number}"
            organisation = create_organisation(session, name, actor=ACTOR, clock=accounts.clock, ids=accounts.ids).id
            open_account(session, organisation, "EUR", accounts.clock)
        if credit_nano:
            await world.services.credit.give(f"gift {self.number}", organisation, 1, credit_nano)
        address = f"person{self.number}@example.com"
        user = accounts.do(create_user, address, f"Person {self.number}", ids=accounts.ids).id
        accounts.do(set_role, user, organisation, Role(role), access=OPERATOR)
        with accounts.database.unit_of_work() as session:
            opened = open_session(session, session.get_one(User, user), HERE, clock=accounts.clock, ids=accounts.ids)
        token = opened.token.get_secret_value()
        headers = {"x-csrf-token": csrf_token(token), "hx-request": "true"}
        async with httpx.AsyncClient(base_url=world.url, headers=headers, timeout=WAIT_S) as client:
            client.cookies.set(SESSION_COOKIE, token, path="/console")
            yield Person(self, client, organisation, user, accounts.see(default_workspace_of, organisation))


@dataclass
class Person:
    house: House
    client: httpx.AsyncClient
    organisation: str
    user: str
    workspace: str

    @property
    def home(self):
        return f"/console/o/{self.organisation}/chat"

    async def begin(self, tier="auto", **settings):
        made = await self.client.post(self.home, data={"workspace": self.workspace, "tier": tier, **settings})
        assert made.status_code == 201, made.text
        return made.json()["path"]

    async def say(self, chat, text="Hello", parent=0):
        """The events of the answer."""
        answer = await self.client.post(f"{chat}/messages", data={"text": text, "parent": parent})
        assert answer.status_code == 200, answer.text
        return events(answer.text)

    def stream(self, chat, text="Hello"):
        request = self.client.build_request("POST", f"{chat}/messages", data={"text": text})
        return asyncio.create_task(self.client.send(request, stream=True))

    async def page(self, chat, query=""):
        return text_of(await self.client.get(f"{chat}{query}"))

    async def saved(self, chat):
        """As the JSON export has it, once there is an answer."""
        for _ in range(200):
            kept = (await self.client.get(f"{chat}/export?format=json")).json()
            if kept["turns"][-1]["role"] == "assistant":
                return kept
            await asyncio.sleep(0.02)
        raise AssertionError("no answer was kept")

    @property
    def key(self):
        return self.house.accounts.see(console_key, self.user, self.workspace)


def events(text):
    parts = [part for part in text.split("\n\n") if part]
    return [tuple(field(part, name) for name in ("event", "data")) for part in parts]


def field(part, name):
    value = re.search(f"^{name}: (.*)$", part, re.MULTILINE)[1]
    return value if name == "event" else json.loads(value)


async def until(lines, text):
    async for line in lines:
        if text in line:
            return line
    raise AssertionError(f"the stream ended without {text!r}")


def usage_of(world, request_id):
    [event] = [event for event in world.broker.usage.values() if event.request_id == request_id]
    return event


async def test_a_turn_costs_what_an_api_request_costs_and_counts_under_a_key_of_ones_own(house):
    async with house.person() as ada:
        chat = await ada.begin(system="Be brief.")
        said = await ada.say(chat)
        assert [name for name, _ in said] == ["begun", "delta", "end"]
        begun, delta, end = (data for _, data in said)
        assert delta == {"text": "Bonjour"}
        event = usage_of(house.world, end["request_id"])
        assert begun["request_id"] == end["request_id"]
        assert (event.key_id, event.workspace, event.organisation) == (ada.key.id, ada.workspace, ada.organisation)
        assert (event.prompt_tokens, event.completion_tokens) == (end["prompt_tokens"], end["completion_tokens"])
        made = house.accounts.key("api", workspace=ada.workspace, within=ada.organisation)
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        over_http = await ada.client.post(
            CHAT,
            json={"model": "auto", "messages": messages},
            headers={"authorization": f"Bearer {made.key.get_secret_value()}"},
        )
        other = usage_of(house.world, over_http.json()["id"])
        assert (event.cost_nano, event.prompt_tokens) == (other.cost_nano, other.prompt_tokens)
        assert end["cost_nano"] == event.cost_nano > 0
        page = await ada.page(chat)
        assert f"{end['prompt_tokens']} tokens in, 2 out" in page
        assert "Answers 1" in page


async def test_the_key_of_a_chat_is_in_lists_and_has_no_secret(house):
    async with house.person() as ada:
        chat = await ada.begin()
        assert ada.key is None
        await ada.say(chat)
        await ada.say(await ada.begin())
        [row] = house.accounts.see(list_keys, within=ada.organisation)
        assert (row.id, row.owner, row.hint, row.scopes) == (ada.key.id, ada.user, "", ("inference",))
        assert row.name.startswith("Chat of Person")
        with pytest.raises(Exception, match="no secret to rotate"):
            house.accounts.do(rotate_key, row.id, 0, within=None, peppers=PEPPERS, ids=house.accounts.ids)
        for guess in (f"tmt_{row.id}_", f"tmt_{row.id}_{'0' * 38}"):
            answer = await ada.client.post(CHAT, json={"model": "auto"}, headers={"authorization": f"Bearer {guess}"})
            assert answer.status_code == 401


async def test_a_limit_of_the_key_refuses_and_says_so_and_the_message_stays(house):
    async with house.person() as ada:
        chat = await ada.begin()
        first = await ada.say(chat)
        by = {"within": ada.organisation, "known_tiers": TIERS, "ids": house.accounts.ids}
        terms = LimitTerms(RuleKind.REQUESTS_PER_MINUTE, 1)
        done = house.accounts.do(set_limit, Subject(SubjectKind.KEY, ada.key.id), terms, **by)
        await publish_generations(house.world.services.keeper, done.publish)
        parent = first[-1][1]["turn"]
        await ada.client.post(f"{chat}/messages", data={"text": "once", "parent": parent})
        refused = await ada.client.post(f"{chat}/messages", data={"text": "And again", "parent": parent})
        assert refused.status_code == 429
        told = text_of(refused)
        assert "Rate limit exceeded. requests_per_minute (key): limit 1, remaining 0" in told
        assert "try again in" in told
        assert f"/console/o/{ada.organisation}/limits" in refused.text
        page = await ada.page(chat)
        assert "And again" in page
        assert "Nothing answers this yet" in page
        await house.world.services.refused.flush()
        noted = await house.world.services.refusals.read(ada.organisation, 0, 10)
        assert {(event.key_id, event.rule) for event in noted} == {(ada.key.id, "requests_per_minute")}


@pytest.mark.parametrize(("role", "link"), [("owner", True), ("developer", False)])
async def test_without_credit_it_is_402_and_a_way_to_pay(house, role, link):
    async with house.person(role, credit_nano=0) as ada:
        chat = await ada.begin()
        refused = await ada.client.post(f"{chat}/messages", data={"text": "Hello"})
        assert refused.status_code == 402
        assert "Credit used up" in text_of(refused)
        assert "In EUR: 0.000" in text_of(refused)
        assert (f'href="/console/o/{ada.organisation}/billing"' in refused.text) == link


async def test_what_does_not_fit_is_told_with_what_to_do(house):
    async with house.person() as ada:
        refused = await ada.client.post(f"{await ada.begin()}/messages", data={"text": "word " * 900})
        assert refused.status_code == 400
        assert "maximum context length" in text_of(refused)
        assert "new conversation" in text_of(refused)
        impossible = await ada.begin(temperature=0, top_p=0.5)
        assert "top_p must be 1" in text_of(await ada.client.post(f"{impossible}/messages", data={"text": "Hello"}))


@pytest.mark.parametrize("words", [0, 5])
async def test_who_stops_or_leaves_pays_what_was_delivered_and_keeps_it(house, words):
    world = house.world
    async with asyncio.timeout(WAIT_S), house.person() as ada:
        chat = await ada.begin("manual")
        sending = ada.stream(chat)
        job = await world.manual.take()
        answer = await sending
        if words:
            await world.manual.say(job, "The east wind", tokens=words)
            await until(answer.aiter_lines(), "east")
        await answer.aclose()
        await world.manual.cancelled(job)
        await world.manual.say(job, " more", tokens=400)
        end = await world.manual.end(job, outcome=Outcome.CANCELLED)
        assert end.usage.completion_tokens == words + 32
        kept = (await ada.saved(chat))["turns"][-1]
        assert (kept["content"], kept["finish_reason"]) == ("The east wind" if words else "", "stopped")
        assert kept["cost_nano"] is None
        assert "being counted" in await ada.page(chat)
        collect(house, usage_of(world, job.request_id))
        page = await ada.page(chat)
        assert f"{words + 32} out" in page
        assert "You stopped here." in page
        assert world.open_reservations() == 0


def collect(house, event):
    """What the collector would have written by now."""
    known = {column.key for column in UsageRecord.__table__.columns}
    values = {name: getattr(event, name) for name in known if hasattr(event, name)}
    blank = {"loss_nano": 0, "transaction_id": None, "epoch": 1}
    with house.accounts.database.unit_of_work() as session:
        session.add(UsageRecord(**{**blank, **values}))


async def test_a_revoked_key_ends_the_answer_and_the_chat_until_it_is_opened_again(house):
    world = house.world
    async with asyncio.timeout(WAIT_S), house.person() as ada:
        chat = await ada.begin("manual")
        sending = ada.stream(chat)
        job = await world.manual.take()
        await world.manual.say(job, "Some")
        answer = await sending
        revoked = ada.key.id
        done = house.accounts.do(revoke_key, revoked, within=ada.organisation)
        await publish_generations(world.services.keeper, done.publish)
        said = events((await answer.aread()).decode())
        assert said[-1][1]["finish_reason"] == "error"
        assert "not valid any more" in said[-1][1]["note"]
        await world.manual.cancelled(job)
        await world.manual.end(job, outcome=Outcome.CANCELLED)
        again = await ada.client.post(f"{chat}/messages", data={"text": "Hello"})
        assert again.status_code == 403
        page = await ada.page(chat)
        assert "was ended by Ada" in page
        assert "Open it again" not in page
        empty = {"csrf": ada.client.headers["x-csrf-token"]}
        assert (await ada.client.post(f"{ada.home}/keys/{revoked}", data=empty)).status_code == 403
        house.accounts.do(set_role, ada.user, ada.organisation, Role.ADMIN, access=OPERATOR)
        assert "Open it again" in await ada.page(chat)
        opened = await ada.client.post(f"{ada.home}/keys/{revoked}", data=empty)
        assert opened.headers["hx-redirect"] == ada.home
        await ada.say(await ada.begin())
        assert ada.key.id != revoked


async def test_a_session_that_ends_and_a_role_that_is_taken_end_the_answer(house):
    world = house.world
    for what, note in (("session", "Your session has ended"), ("role", "You may not chat")):
        async with asyncio.timeout(WAIT_S), house.person() as ada:
            sending = ada.stream(await ada.begin("manual"))
            job = await world.manual.take()
            await world.manual.say(job, "Some")
            answer = await sending
            if what == "session":
                house.accounts.do(end_sessions, ada.user)
            else:
                house.accounts.do(set_role, ada.user, ada.organisation, Role.VIEWER, access=OPERATOR)
            said = events((await answer.aread()).decode())
            assert note in said[-1][1]["note"]
            await world.manual.cancelled(job)
            await world.manual.end(job, outcome=Outcome.CANCELLED)


async def test_a_failure_is_kept_as_what_it_was_and_costs_nothing(house):
    world = house.world
    for words, content in ((0, ""), (3, "So far")):
        async with asyncio.timeout(WAIT_S), house.person() as ada:
            chat = await ada.begin("manual")
            sending = ada.stream(chat)
            job = await world.manual.take()
            answer = await sending
            lines = answer.aiter_lines()
            if words:
                await world.manual.say(job, content, tokens=words)
                await until(lines, content)
            await world.manual.end(job, ("error",), outcome=Outcome.FAILED, error="The engine is ill.")
            end = json.loads((await until(lines, "finish_reason")).removeprefix("data: "))
            assert (end["finish_reason"], end["note"], end["cost_nano"]) == ("error", "The engine is ill.", 0)
            kept = (await ada.saved(chat))["turns"][-1]
            assert (kept["content"], kept["note"]) == (content, "The engine is ill.")


async def test_a_retry_and_an_edit_make_branches_that_stay(house):
    world = house.world
    async with asyncio.timeout(WAIT_S), house.person() as ada:
        chat = await ada.begin("manual", system="Be kind.")

        async def answer(path, data, words):
            request = ada.client.build_request("POST", f"{chat}/{path}", data=data)
            sending = asyncio.create_task(ada.client.send(request))
            job = await world.manual.take()
            await world.manual.say(job, words)
            await world.manual.end(job)
            return events((await sending).text)[-1][1]["turn"], job

        first, _ = await answer("messages", {"text": "Which wind?"}, "East")
        second, _ = await answer("answers", {"question": 1}, "West")
        follow, _ = await answer("messages", {"text": "Why?", "parent": second}, "Because")
        page = await ada.page(chat)
        assert "West" in page
        assert "East" not in page
        assert "2 of 2" in page
        older = await ada.page(chat, f"?turn={first}")
        assert "East" in older
        assert "Because" not in older
        _, job = await answer("messages", {"text": "Which river?", "parent": 0}, "Rhone")
        assert "Rhone" in await ada.page(chat)
        assert "Because" in await ada.page(chat, "?turn=1")
        tokenizer = world.services.admitter.tokenizer(CATALOG.tier("manual"))
        asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Which river?"}]
        assert job.prompt_ids == tokenizer.encode_chat(asked)
        kept = await ada.saved(chat)
        assert [(turn["number"], turn["parent"]) for turn in kept["turns"]] == [
            (1, 0), (2, 1), (3, 1), (4, 3), (5, 4), (6, 0), (7, 6),
        ]  # fmt: skip
        assert follow == 5
        markdown = (await ada.client.get(f"{chat}/export?format=markdown")).text
        assert "Rhone" in markdown
        assert "East" not in markdown
