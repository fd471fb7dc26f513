"""What `tramontane keys` does."""

import sys
from dataclasses import asdict

from rich.table import Table

from cli.accounts.acting import Hands, hands, moment, print_json, tell
from cli.installation import catalog_of
from cli.terminal import tables
from cli.usage import parse_time_ms
from gateway.accounts.api_keys import KeyRow, NewKey, create_key, list_keys, revoke_key, rotate_key
from gateway.accounts.organisations import find_organisation
from gateway.accounts.scopes import DEFAULT_SCOPES
from gateway.accounts.seed import default_organisation_id
from gateway.accounts.settings import peppers_of
from gateway.accounts.terms import KeyTerms
from gateway.accounts.workspaces import default_workspace_of


def create(
    name: str,
    *,
    workspace: str | None,
    organisation: str | None,
    scopes: list[str],
    tiers: list[str],
    networks: list[str],
    expires: str | None,
    as_json: bool,
) -> None:
    """The key goes to stdout, once; without --json it stands there alone, so that a script can take it."""
    did = hands()
    terms = KeyTerms(
        name=name,
        scopes=tuple(scopes) or DEFAULT_SCOPES,
        tiers=tuple(tiers) or None,
        networks=tuple(networks),
        expires_ms=None if expires is None else parse_time_ms(expires, "--expires"),
    )
    with did.changing() as session:
        within = None if organisation is None else find_organisation(session, organisation).id
        if workspace is None:
            workspace = default_workspace_of(session, within or default_organisation_id(session))
        made = create_key(
            session,
            workspace,
            terms,
            within=within,
            actor=did.actor,
            peppers=peppers_of(did.installation.settings),
            clock=did.clock,
            ids=did.ids,
            known_tiers=_known_tiers(did) if tiers else (),
        )
    _show_once(made, as_json=as_json)


def rotate(key_id: str, overlap_s: int, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        made = rotate_key(
            session,
            key_id,
            overlap_s,
            within=None,
            actor=did.actor,
            peppers=peppers_of(did.installation.settings),
            clock=did.clock,
            ids=did.ids,
        )
    _show_once(made, as_json=as_json)  # before anything else can fail: nobody can show it again
    did.publish(made.publish)


def show(workspace: str | None, organisation: str | None, *, as_json: bool) -> None:
    with hands().reading() as session:
        within = None if organisation is None else find_organisation(session, organisation).id
        rows = list_keys(session, within=within, workspace=workspace)
    if as_json:
        print_json({"keys": [asdict(row) for row in rows]})
    else:
        tables().print(_table(rows))


def revoke(key_id: str, *, as_json: bool) -> None:
    did = hands()
    with did.changing() as session:
        change = revoke_key(session, key_id, within=None, actor=did.actor, clock=did.clock)
    tell(did, change, f"Key {key_id} is revoked.", as_json=as_json)


def _known_tiers(did: Hands) -> list[str]:
    return [tier.name for tier in catalog_of(did.installation).tiers]


def _show_once(made: NewKey, *, as_json: bool) -> None:
    key = made.key.get_secret_value()
    if as_json:
        facts = {"id": made.id, "name": made.name, "workspace": made.workspace, "created_ms": made.created_ms}
        print_json({**facts, "key": key})
    else:
        sys.stderr.write(f"Key {made.id} for workspace {made.workspace}, shown only this once:\n")
        sys.stdout.write(key + "\n")


def _table(rows: list[KeyRow]) -> Table:
    table = Table(
        "id", "name", "ends in", "organisation", "workspace", "scopes", "created", "last used", "ends", "revoked",
        box=None,
    )  # fmt: skip
    for row in rows:
        homes = (row.organisation, row.workspace)
        times = (row.created_ms, row.last_used_ms, row.expires_ms, row.revoked_ms)
        table.add_row(row.id, row.name, row.hint, *homes, ", ".join(row.scopes), *(moment(at_ms) for at_ms in times))
    return table
