"""The client knows every operation and every field of the platform's OpenAPI document (docs/openapi.json)."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from test_admin import CASES

from tramontane import admin_types, money_types, types
from tramontane.wire import account, chat, embeddings
from tramontane.wire.decode import WIRE_NAME

DOCUMENT = json.loads((Path(__file__).parents[2] / "docs/openapi.json").read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
OTHER_NAMES = {
    "Usage": "UsageInfo",
    "FunctionCall": "gateway__schemas__answers__FunctionCall",
    "ToolCall": "gateway__schemas__answers__ToolCall",
    "AssistantMessage": "AnswerMessage",
    "ChatCompletion": "ChatCompletionResponse",
    "ChatChunk": "ChatCompletionChunk",
    "Embedding": "EmbeddingItem",
    "Model": "ModelCard",
    "Identity": "UserIdentity",
    "NewKey": "KeyCreated",
    "LimitTerms": "LimitTold",
    "MemberRole": "RoleShown",
    "WorkspaceRole": "WorkspaceRoleShown",
    "NewInvite": "InviteCreated",
    "PriceChange": "PriceChangeShown",
    "AuditEntry": "AuditShown",
    "RefusedRequest": "RefusalShown",
}
MADE_HERE = {"EmbeddingResponse", "UsageRecord"}  # of several answers; of lines that no schema describes
NOT_ASKED = {("DELETE", "/v1/models/{model_id}")}  # always refused
ANSWERS = [
    found
    for module in (types, admin_types, money_types)
    for name, found in vars(module).items()
    if dataclasses.is_dataclass(found) and found.__module__ == module.__name__ and name not in MADE_HERE
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_each_field_of_an_answer_is_known(answer):
    name = OTHER_NAMES.get(answer.__name__, answer.__name__)
    properties = SCHEMAS.get(name, SCHEMAS.get(f"{name}Shown"))["properties"]
    fields = {field.metadata.get(WIRE_NAME, field.name): field for field in dataclasses.fields(answer)}
    assert set(fields) == set(properties)


def test_each_operation_is_known():
    none = {"start": None, "end": None, "time_zone": None, "scope": None}
    calls = [
        account.models_call(),
        account.model_call("x"),
        account.identity_call(),
        account.limits_call(),
        account.usage_call(**none, group_by=None, limit=None, cursor=None, latency=None),
        account.records_call(**none),
        chat.chat_call("m", [], {}),
        chat.fim_call("m", "p", {}),
        embeddings.EmbeddingJob("m", "x").call(embeddings.Batch(0, ["x"])),
    ]
    known = {(call.method, call.path) for call in calls} | {(case[2], f"/v1/admin{case[3]}") for case in CASES}
    operations = {
        (method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }
    patterns = {operation: re.compile(re.sub(r"\{\w+\}", "[^/]+", operation[1])) for operation in operations}
    unknown = {
        operation
        for operation, pattern in patterns.items()
        if not any(method == operation[0] and pattern.fullmatch(path) for method, path in known)
    }
    assert unknown == NOT_ASKED


@pytest.mark.parametrize(
    ("options", "schema", "without"),
    [
        (
            chat.ChatOptions,
            "ChatCompletionRequest",
            {"model", "messages", "stream"},
        ),
        (chat.FimOptions, "FIMCompletionRequest", {"model", "prompt", "stream"}),
    ],
)
def test_each_option_exists(options, schema, without):
    named = set(options.__annotations__) - {"extra_body", "idempotency_key"}
    assert named <= set(SCHEMAS[schema]["properties"]) - without
