"""docs/openapi.json is what a gateway shows; bodies are held against it, and it is a document at all."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tests.conformance.document import Document
from tests.conformance.openapi import document_text

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


async def test_the_committed_document_is_the_one_that_is_served():
    assert COMMITTED.read_text() == await document_text(), "run `make openapi`, and look at what changed"


def test_every_schema_is_one():
    schemas = json.loads(COMMITTED.read_text())["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


def test_operations_have_names_of_their_own_and_say_what_can_go_wrong():
    paths = json.loads(COMMITTED.read_text())["paths"]
    operations = [(path, way) for path, ways in paths.items() for way in ways.values()]
    names = [way["operationId"] for _, way in operations]
    assert len(set(names)) == len(names)
    for path, way in operations:
        if path.startswith("/v1/"):
            assert "401" in way["responses"], path


def test_bodies_that_differ_are_found():
    document = Document(json.loads(COMMITTED.read_text()))
    body = {"message": "Unauthorized", "request_id": "1"}
    document.check("GET", "/v1/models", 401, "application/json", json.dumps(body))
    for wrong in ({**body, "more": 1}, {"message": "Unauthorized"}, {**body, "request_id": 1}):
        with pytest.raises(AssertionError):
            document.check("GET", "/v1/models", 401, "application/json", json.dumps(wrong))
    with pytest.raises(AssertionError):
        document.check("GET", "/v1/models", 418, "application/json", json.dumps(body))
