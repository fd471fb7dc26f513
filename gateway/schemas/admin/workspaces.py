"""Workspaces as /v1/admin shows and takes them."""

from pydantic import BaseModel, Field

from gateway.accounts.models import Workspace
from gateway.schemas.admin.fields import Name, iso, iso_or_none
from gateway.schemas.parsing import Strict

LENIENT = "Accept what OpenAI clients send. null: as the organisation."


class WorkspaceCreation(Strict):
    name: Name
    lenient: bool | None = Field(default=None, description=LENIENT)


class WorkspaceUpdate(Strict):
    """What is absent stays as it is."""

    name: Name | None = None
    lenient: bool | None = Field(default=None, description=LENIENT)


class WorkspaceShown(BaseModel):
    id: str
    name: str
    organisation_id: str
    is_default: bool
    lenient: bool | None
    created_at: str
    archived_at: str | None


def shown(workspace: Workspace) -> WorkspaceShown:
    return WorkspaceShown(
        id=workspace.id,
        name=workspace.name,
        organisation_id=workspace.organisation_id,
        is_default=workspace.is_default,
        lenient=workspace.lenient,
        created_at=iso(workspace.created_ms),
        archived_at=iso_or_none(workspace.archived_ms),
    )
