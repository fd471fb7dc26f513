"""The answer of GET /v1/users/me."""

from pydantic import BaseModel, Field


class NamedObject(BaseModel):
    id: str
    name: str


class UserIdentity(BaseModel):
    """Whose key it is. A key that nobody owns names itself."""

    id: str = Field(description="Of the key's owner, else of the key.")
    email: str | None
    first_name: str | None
    last_name: str | None
    workspace: NamedObject
    organization: NamedObject
    api_key: NamedObject
