"""Who may do what: the whole table, written out a second time, and in docs/accounts.md a third."""

from pathlib import Path

import pytest

from core.errors import NOT_ALLOWED, NOT_FOUND, VALIDATION, PlatformError
from gateway.accounts.access import OPERATOR, Access, WorkspaceRole
from gateway.accounts.roles import GRANTED, IN_WORKSPACE, Permission, Role, checked_role

PAGE = Path(__file__).parents[2] / "docs" / "accounts.md"
ROLES = (Role.OWNER, Role.ADMIN, Role.BILLING, Role.DEVELOPER, Role.VIEWER)
# owner, admin, billing, developer, viewer; then whether a role in a workspace gives it there.
TABLE = {
    "organisation.read": "xxxxx-",
    "organisation.manage": "xx----",
    "owners.manage": "x-----",
    "members.read": "xxxxxx",
    "members.manage": "xx---x",
    "workspaces.read": "xxxxxx",
    "workspaces.create": "xx----",
    "workspaces.manage": "xx---x",
    "keys.read": "xx-xxx",
    "keys.create": "xx-x-x",
    "keys.manage": "xx---x",
    "usage.read": "xxxxxx",
    "limits.read": "xxxxxx",
    "limits.manage": "xx---x",
    "billing.read": "xxx---",
    "billing.pay": "x-x---",
    "audit.read": "xx----",
    "inference.chat": "xx-x-x",
}
CELLS = [
    (role, permission, TABLE[permission][column] == "x", TABLE[permission][-1] == "x")
    for column, role in enumerate(ROLES)
    for permission in TABLE
]


def test_the_table_is_exhaustive():
    assert set(TABLE) == {permission.value for permission in Permission}
    assert set(GRANTED) == set(Role) == set(ROLES)


@pytest.mark.parametrize(("role", "permission", "granted", "in_workspace"), CELLS)
def test_a_role_gives_this_and_nothing_else(role, permission, granted, in_workspace):
    wanted = Permission(permission)
    assert (wanted in GRANTED[role], wanted in IN_WORKSPACE) == (granted, in_workspace)
    member = Access("u", roles={"acme": role})
    assert member.may(wanted, "acme") is granted
    assert member.may(wanted, "acme", "lab") is granted  # in all its workspaces
    assert not member.may(wanted, "other")
    guest = Access("u", workspace_roles={"lab": WorkspaceRole("acme", role)})
    names = wanted is Permission.ORGANISATION_READ  # that the organisation exists, and what it is called
    assert guest.may(wanted, "acme", "lab") is (names or (granted and in_workspace))
    assert guest.may(wanted, "acme") is guest.may(wanted, "acme", "another") is names
    assert not guest.may(wanted, "other", "lab")
    assert OPERATOR.may(wanted, "acme")
    assert OPERATOR.may(wanted, "acme", "lab")
    assert not Access("u").may(wanted, "acme")


def test_both_roles_add_up():
    access = Access("u", roles={"acme": Role.VIEWER}, workspace_roles={"lab": WorkspaceRole("acme", Role.DEVELOPER)})
    assert access.may(Permission.KEYS_CREATE, "acme", "lab")
    assert not access.may(Permission.KEYS_CREATE, "acme", "shop")
    assert access.workspaces(Permission.KEYS_CREATE, "acme") == {"lab"}
    assert access.workspaces(Permission.USAGE_READ, "acme") is None
    assert access.workspaces(Permission.USAGE_READ, "other") == set()


def test_what_is_refused_says_so_and_what_is_foreign_does_not_exist():
    access = Access("u", roles={"acme": Role.VIEWER})
    access.require(Permission.USAGE_READ, "acme")
    with pytest.raises(PlatformError) as refused:
        access.require(Permission.KEYS_CREATE, "acme")
    assert (refused.value.kind, "keys.create" in refused.value.message) == (NOT_ALLOWED, True)
    with pytest.raises(PlatformError) as foreign:
        access.require(Permission.USAGE_READ, "other")
    assert foreign.value.kind is NOT_FOUND
    with pytest.raises(PlatformError, match="operators"):
        access.require_operator()
    OPERATOR.require_operator()


def test_an_unknown_role_is_refused():
    assert checked_role("viewer") is Role.VIEWER
    with pytest.raises(PlatformError) as refused:
        checked_role("king")
    assert (refused.value.kind, refused.value.param) == (VALIDATION, "role")


def test_the_page_shows_the_same_table():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    shown = {row[0].strip("`"): "".join("x" if cell == "yes" else "-" for cell in row[1:]) for row in rows}
    assert {name: cells for name, cells in shown.items() if name in TABLE} == TABLE
