"""What a chat body says of tools and of the form of the answer."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gateway.schemas.fields import JsonObject
from gateway.schemas.parsing import Strict

TOOLS_MAX = 128
NAME_CHARS_MAX = 64
DESCRIPTION_CHARS_MAX = 65_536


class Function(Strict):
    name: str
    description: Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)] = ""
    strict: bool = Field(default=False, description="Refuse a schema that a grammar cannot follow to the letter.")
    parameters: JsonObject = Field(description="A JSON schema (draft 7) of an object.")


class Tool(Strict):
    type: Literal["function"] = "function"
    function: Function


class FunctionName(Strict):
    name: str


class NamedTool(Strict):
    type: Literal["function"] = "function"
    function: FunctionName


class JsonSchema(Strict):
    name: str = Field(max_length=NAME_CHARS_MAX)
    schema_: JsonObject = Field(alias="schema")
    description: Annotated[str, Field(max_length=DESCRIPTION_CHARS_MAX)] | None = None
    strict: bool = Field(default=False, description="Refuse a schema that a grammar cannot follow to the letter.")


class ResponseFormat(Strict):
    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: JsonSchema | None = Field(default=None, description="Required by json_schema.")

    @model_validator(mode="after")
    def _schema_is_there(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is required for this type")
        return self


Tools = Annotated[tuple[Tool, ...], Field(max_length=TOOLS_MAX)]
ToolChoice = Literal["auto", "none", "any", "required"] | NamedTool
