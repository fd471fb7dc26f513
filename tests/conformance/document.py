"""Holds answers against the OpenAPI document, more strictly than it asks: a key that it does not name is an error."""

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
from jsonschema import Draft202012Validator

STREAM = "text/event-stream"
JSON = "application/json"
SENTINEL = "[DONE]"
REFUSALS = ("ErrorBody", "ValidationErrorBody", "UnauthorizedBody")
EMPTY = 204
UNDOCUMENTED = frozenset({404, 405})  # what the router itself answers, for any path


class Document:
    """`document` as GET /openapi.json shows it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._components = copy.deepcopy(document["components"])
        for schema in self._components["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        self._paths = {
            re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)): operations
            for path, operations in document["paths"].items()
        }

    def check(self, method: str, path: str, status: int, content_type: str, text: str) -> None:
        """Raises AssertionError with the first place that differs."""
        operation = self._operation(method, path)
        kind = content_type.partition(";")[0]
        if operation is None or (status in UNDOCUMENTED and str(status) not in operation["responses"]):
            if status >= 400 and kind == JSON:
                self._one_of(REFUSALS, json.loads(text))
            return
        responses = operation["responses"]
        assert str(status) in responses, f"{method} {path}: {status} is not documented: {text[:300]}"
        content = responses[str(status)].get("content", {})
        if status == EMPTY:
            assert not text, f"{method} {path}: {status} with a body"
            return
        assert kind in content, f"{method} {path}: {status} as {kind} is not documented, only {list(content)}"
        schema = content[kind].get("schema", {})
        if kind == JSON:
            self._valid(schema, json.loads(text))
        elif kind == STREAM:
            for chunk in chunks_of(text):
                self._valid(schema, chunk)

    def _operation(self, method: str, path: str) -> Mapping[str, Any] | None:
        for pattern, operations in self._paths.items():
            if pattern.fullmatch(path):
                return operations.get(method.lower())
        return None

    def _one_of(self, names: tuple[str, ...], body: Any) -> None:
        assert any(self._errors({"$ref": f"#/components/schemas/{name}"}, body) == [] for name in names), body

    def _valid(self, schema: Mapping[str, Any], body: Any) -> None:
        errors = self._errors(schema, body)
        assert not errors, f"{errors[0]} in {json.dumps(body)[:500]}"

    def _errors(self, schema: Mapping[str, Any], body: Any) -> list[str]:
        validator = Draft202012Validator({**schema, "components": self._components})
        return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(body)]


def chunks_of(text: str) -> list[Any]:
    """The chunks of a whole stream: each event one line, comments between them, the sentinel last."""
    assert text.endswith("\n\n"), text[-100:]
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    assert all(event.startswith("data: ") and "\n" not in event for event in events), text[:300]
    *chunks, last = [event.removeprefix("data: ") for event in events]
    assert last == SENTINEL
    return [json.loads(chunk) for chunk in chunks]


class CheckedClient(httpx.AsyncClient):
    """Holds every answer that it reads whole against the document."""

    def __init__(self, document: Document, **options: Any) -> None:
        super().__init__(**options)
        self._document = document

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        answer = await super().send(request, stream=stream, **options)
        if not stream and request.method not in {"HEAD", "OPTIONS"}:
            kind = answer.headers.get("content-type", "")
            self._document.check(request.method, request.url.path, answer.status_code, kind, answer.text)
        return answer
