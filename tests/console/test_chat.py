"""Conversations on their page: whose they are, what is kept of them, who may chat at all."""

import json

from sqlalchemy import func, select

from core.wire import Usage
from gateway.accounts.api_keys import revoke_key
from gateway.accounts.console_keys import console_key, open_console_key
from gateway.accounts.roles import GRANTED, Permission, Role
from gateway.accounts.trail import Actor
from gateway.accounts.workspaces import archive_workspace, default_workspace_of
from gateway.console import chat_store
from gateway.console.chat_models import Chat, Turn
from gateway.console.chat_store import (
    ChatTerms,
    Owner,
    Said,
    add_answer,
    add_message,
    create_chat,
    find_chat,
    messages_until,
)
from gateway.replies import Finished
from tests.accounts_world import ACTOR
from tests.console.queries import counted
from tests.console.world import text_of

TIER = "auto"


class Room:
    """Somebody who chats, with their conversations made past the queue."""

    def __init__(self, console, role="developer", tenant=None, **where) -> None:
        self.console = console
        self.accounts = console.accounts
        self.tenant = tenant or console.ash
        name = f"chatter.{self.accounts.ids.token(4)}"
        self.user = console.user(name, self.tenant, role, **where)
        self.browser = console.browser(self.user)
        self.owner = Owner(self.user, self.tenant.id)
        self.workspace = self.tenant.see(default_workspace_of)
        self.path = f"/o/{self.tenant.id}/chat"

    def change(self, work, *arguments, **options):
        with self.accounts.database.unit_of_work() as session:
            return work(session, *arguments, **options)

    def chat(self, *words, workspace=None, system=""):
        """A conversation of questions and answers in turn."""
        clock, ids = self.accounts.clock, self.accounts.ids
        terms = ChatTerms(workspace or self.workspace, TIER, system)
        with self.accounts.database.unit_of_work() as session:
            chat = create_chat(session, self.owner, terms, clock=clock, ids=ids)
            for index, text in enumerate(words):
                clock.advance(1_000)
                if index % 2:
                    end = Finished(("stop",), Usage(20, 8, cached_tokens=5), 1_234_567)
                    said = Said(chat.leaf, text, TIER, f"r{chat.id}{index}"[:64], "stop", "", end)
                    add_answer(session, self.owner, chat.id, said, clock)
                else:
                    add_message(session, chat, chat.leaf, text, clock)
            return chat.id

    def rows(self, model, *conditions):
        query = select(func.count()).select_from(model).where(*conditions)
        return self.accounts.see(lambda session: session.scalar(query))

    async def page(self, chat="", query=""):
        return text_of(await self.browser.get(f"{self.path}{chat and '/'}{chat}{query}"))


async def test_a_conversation_is_listed_searched_renamed_exported_and_deleted(console):
    room = Room(console)
    winds = room.chat("Why does it blow 100%?", "Because of PRESSURE.", "And then?", "It stops.", system="Be brief.")
    rivers = room.chat("Where does the Rhône end?", "In the sea.")
    page = await room.page(winds)
    assert "20 (5 cached) tokens in, 8 out · 0.001234567 EUR" in page
    assert "Answers 2" in page
    assert "Cost 0.002469134 EUR" in page
    listed = text_of(await room.browser.get(f"{room.path}/list"))
    assert listed.index("Where does the Rhône") < listed.index("Why does it blow"), "youngest first"
    for wanted, found in (("pressure", True), ("100%", True), ("1%0", False), ("_", False)):
        listed = text_of(await room.browser.get(f"{room.path}/list", params={"q": wanted}))
        assert ("Why does it blow" in listed, "Rhône" in listed) == (found, False), wanted
    assert "No conversation has" in text_of(await room.browser.get(f"{room.path}/list?q=nosuch"))
    assert (await room.browser.post(f"{room.path}/{winds}/rename", title="Mistral & co")).status_code == 303
    assert "Mistral & co" in await room.page(winds)
    exported = await room.browser.get(f"{room.path}/{winds}/export?format=json")
    assert "attachment" in exported.headers["content-disposition"]
    kept = json.loads(exported.text)
    assert [turn["content"] for turn in kept["turns"]][:2] == ["Why does it blow 100%?", "Because of PRESSURE."]
    assert kept["settings"]["system"] == "Be brief."
    markdown = (await room.browser.get(f"{room.path}/{winds}/export")).text
    assert markdown.startswith("# Mistral & co\n\n> Be brief.\n\n## You, ")
    assert (await room.browser.post(f"{room.path}/{winds}/delete")).status_code == 303
    assert (await room.browser.get(f"{room.path}/{winds}")).status_code == 404
    assert room.rows(Turn, Turn.conversation_id == winds) == 0
    assert room.rows(Chat, Chat.id == winds) == 0
    assert room.rows(Turn, Turn.conversation_id == rivers) == 2


async def test_nobody_else_sees_a_conversation(console):
    room = Room(console)
    chat = room.chat("My secret question", "A secret answer")
    others = [console.as_role(role) for role in ("owner", "admin", "developer")]
    others += [console.as_operator(), console.as_role("owner", console.birch)]
    for other in others:
        for tenant in (console.ash, console.birch):
            path = f"/o/{tenant.id}/chat/{chat}"
            for part in ("", "/export", "/export?format=json"):
                answer = await other.get(f"{path}{part}")
                assert answer.status_code == 404
                assert "secret" not in answer.text
            for part, fields in (
                ("rename", {"title": "Mine"}),
                ("delete", {}),
                ("settings", {"workspace": room.workspace, "tier": TIER}),
                ("messages", {"text": "What did they ask?"}),
                ("answers", {"question": 1}),
            ):
                assert (await other.post(f"{path}/{part}", **fields)).status_code == 404
        listed = await other.get(f"/o/{console.ash.id}/chat/list?q=secret")
        assert "question" not in listed.text
    assert "My secret question" in await room.page(chat)


async def test_who_may_chat(quick_console):
    path = f"/o/{quick_console.ash.id}/chat"
    workspace = quick_console.ash.see(default_workspace_of)
    for role in Role:
        may = Permission.INFERENCE_CHAT in GRANTED[role]
        browser = quick_console.as_role(role.value)
        assert (await browser.get(path)).status_code == (200 if may else 403)
        assert (await browser.get(f"{path}/list")).status_code == (200 if may else 403)
        made = await browser.post(path, workspace=workspace, tier=TIER)
        assert made.status_code == (201 if may else 403)
        start = await browser.get(f"/o/{quick_console.ash.id}/workspaces")
        assert (f'/console{path}"' in start.text) == may
        room = Room(quick_console, role.value)
        chat = room.chat("Before", "the role changed")
        assert "Before" in await room.page(chat), "one's own stays readable"
        for part, fields in (("messages", {"text": "More"}), ("answers", {"question": 1})):
            if not may:
                assert (await room.browser.post(f"{room.path}/{chat}/{part}", **fields)).status_code == 403
        if not may:
            assert "does not let you chat" in await room.page(chat)
            assert "data-chat-retry" not in (await room.browser.get(f"{room.path}/{chat}")).text
        assert room.accounts.see(console_key, room.user, workspace) is None


async def test_a_member_of_one_workspace_chats_in_that_one(quick_console):
    lab = quick_console.ash.new("workspace_id")
    room = Room(quick_console, workspace=lab)
    assert (await room.browser.post(room.path, workspace=room.workspace, tier=TIER)).status_code == 403
    assert (await room.browser.post(room.path, workspace=lab, tier=TIER)).status_code == 201
    theirs = quick_console.birch.new("workspace_id")
    assert (await room.browser.post(room.path, workspace=theirs, tier=TIER)).status_code == 404
    admin = Room(quick_console, "admin")
    page = await admin.browser.get(admin.path)
    assert 'name="workspace"' in page.text
    assert lab in page.text
    chat = admin.chat("Hello", workspace=lab)
    quick_console.accounts.do(archive_workspace, lab, within=admin.tenant.id)
    assert (await admin.browser.post(f"{admin.path}/{chat}/messages", text="More")).status_code == 409
    settings = {"workspace": admin.workspace, "tier": TIER, "temperature": 0.3, "seed": 7}
    assert (await admin.browser.post(f"{admin.path}/{chat}/settings", **settings)).status_code == 204
    page = (await admin.browser.get(f"{admin.path}/{chat}")).text
    assert 'value="0.3"' in page
    assert 'value="7"' in page


async def test_settings_and_messages_are_checked(quick_console):
    room = Room(quick_console)
    chat = room.chat("Hello", "you")
    path = f"{room.path}/{chat}"
    fine = {"workspace": room.workspace, "tier": TIER}
    for wrong in (
        {"tier": "embed"},
        {"tier": "nosuch"},
        {"temperature": 2},
        {"top_p": 0},
        {"max_tokens": 0},
        {"seed": -1},
        {"system": "x" * 8_001},
        {"system": "a\0b"},
        {"other": "field"},
    ):
        assert (await room.browser.post(f"{path}/settings", **(fine | wrong))).status_code == 422, wrong
    for wrong in ({"text": ""}, {"text": "x" * 20_001}, {"text": "a\0b"}, {"text": "Hello", "parent": 99}):
        assert (await room.browser.post(f"{path}/messages", **wrong)).status_code == 422, wrong
    assert (await room.browser.post(f"{path}/answers", question=2)).status_code == 404, "an answer is no question"
    assert (await room.browser.post(f"{path}/messages", csrf=False, text="Hello")).status_code == 403
    assert room.rows(Turn, Turn.conversation_id == chat) == 2
    assert (await room.browser.get(f"{path}?turn=99")).status_code == 200


async def test_what_is_kept_is_bounded(quick_console, monkeypatch):
    monkeypatch.setattr(chat_store, "CONVERSATIONS_MAX", 2)
    monkeypatch.setattr(chat_store, "TURNS_MAX", 4)
    room = Room(quick_console)
    chat = room.chat("One", "two", "three", "four")
    room.chat("Another")
    full = await room.browser.post(f"{room.path}/{chat}/messages", text="Five", parent=4)
    assert (full.status_code, "begin a new one" in text_of(full)) == (409, True)
    assert (await room.browser.post(f"{room.path}/{chat}/answers", question=1)).status_code == 409
    third = await room.browser.post(room.path, workspace=room.workspace, tier=TIER)
    assert (third.status_code, "delete some first" in text_of(third)) == (409, True)


async def test_what_the_model_is_asked_is_one_branch_without_empty_answers(quick_console):
    room = Room(quick_console)
    chat_id = room.chat("One", "", "Two", "Answer", "Three", system="Be kind.")

    def ask(session):
        return messages_until(session, find_chat(session, room.owner, chat_id), 5)

    assert room.accounts.see(ask) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One\n\nTwo"},
        {"role": "assistant", "content": "Answer"},
        {"role": "user", "content": "Three"},
    ]


async def test_who_ended_a_chat_opens_it_again_else_a_manager_of_keys(quick_console):
    for by_owner in (True, False):
        room = Room(quick_console)
        accounts = room.accounts
        who = {"within": room.tenant.id, "actor": ACTOR, "clock": accounts.clock, "ids": accounts.ids}
        key = room.change(open_console_key, room.user, room.workspace, **who).id
        assert room.change(open_console_key, room.user, room.workspace, **who).id == key
        path = f"{room.path}/keys/{key}"
        assert (await room.browser.get(path)).status_code == 404, "nothing was ended"
        actor = Actor("user", room.user, "chatter@example.com") if by_owner else ACTOR
        room.change(revoke_key, key, within=room.tenant.id, actor=actor, clock=accounts.clock)
        assert ("by yourself" in await room.page()) == by_owner
        page = text_of(await room.browser.get(path))
        assert ("Open the chat again" in page) == by_owner
        assert (await quick_console.as_role("developer").get(path)).status_code == 403
        assert (await quick_console.as_role("owner", quick_console.birch).get(path)).status_code == 404
        assert (await room.browser.post(path)).status_code == (303 if by_owner else 403)
        if not by_owner:
            admin = quick_console.as_role("admin")
            assert "Open the chat again" in text_of(await admin.get(path))
            assert (await admin.post(path)).status_code == 303
        assert room.accounts.see(console_key, room.user, room.workspace) is None
        assert (await room.browser.get(path)).status_code == 404, "once"


async def test_a_page_asks_as_much_for_many_turns_as_for_few(console):
    room = Room(console)
    few = room.chat("One", "two")
    many = room.chat(*("word" for _ in range(60)))
    with counted(console.accounts.database) as asked_few:
        await room.page(few)
    with counted(console.accounts.database) as asked_many:
        await room.page(many)
    assert len(reading(asked_many)) == len(reading(asked_few)) <= 12, asked_few


def reading(statements):
    """Without the session being touched, once in a minute and whenever its thread comes to it."""
    return [each for each in statements if not each.startswith("UPDATE console_sessions")]


async def test_without_scripts_the_page_says_so_and_runs_nothing_of_its_own(quick_console):
    page = await quick_console.as_role("developer").get(f"/o/{quick_console.ash.id}/chat")
    assert "scripts are off" in page.text
    assert "style=" not in page.text
    for name in ("vendor/marked.umd.js", "vendor/purify.min.js", "vendor/highlight.min.js", "chat.js"):
        assert f"/console/assets/{name}?v=" in page.text
