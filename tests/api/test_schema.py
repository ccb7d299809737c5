"""OpenAPI and its page, which works without internet access."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from api import etags, schema
from tests.api.house import Served
from tests.api.test_rights_of_routes import DECLARED


@pytest.fixture
async def document(served: Served) -> dict[str, Any]:
    answer = await served.client.get("/schema/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """Generators of clients stop at the first one that does not."""
    found = set(references(document))
    assert found
    for reference in found:
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in target, reference
            target = target[part]


async def test_every_operation_says_its_id_its_words_and_its_refusals(document: dict[str, Any]) -> None:
    seen = set()
    for name, operation in operations(document):
        assert operation["description"], name
        assert operation["tags"], name
        assert operation["operationId"] not in seen
        seen.add(operation["operationId"])
        assert "500" in operation["responses"]
        if name in DECLARED:
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "403"} <= set(operation["responses"])
        else:
            assert operation["security"] == []
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= set(operation["responses"])
        if "{" in name:
            assert "404" in operation["responses"]
    assert set(DECLARED) <= {name for name, _ in operations(document)}


async def test_a_tag_that_if_match_takes_is_one_that_is_documented(document: dict[str, Any]) -> None:
    """A client made of the document would refuse to send what an answer gave it."""
    patterns = {
        parameter["schema"]["pattern"]
        for _, operation in operations(document)
        for parameter in operation.get("parameters", ())
        if parameter.get("name") == "If-Match"
    }
    (pattern,) = patterns
    for generation in (1, 2):
        for erased in (False, True):
            tag = f'"{etags.version(7, erased=erased, generation=generation)}"'
            assert etags.VERSION.fullmatch(tag)
            assert re.fullmatch(pattern, tag), tag


async def test_a_body_is_documented_bare_and_under_its_name(document: dict[str, Any]) -> None:
    body = document["paths"]["/api/v1/products"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    bare, named = body["oneOf"]
    assert bare == named["properties"]["product"] == {"$ref": "#/components/schemas/ProductBody"}


async def test_the_page_loads_nothing_from_elsewhere(served: Served) -> None:
    page = await served.client.get("/schema")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "//" not in page.text.replace("<!DOCTYPE html>", "")
    needed = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(needed) == 4
    for address in (*needed, "/schema/openapi-3.0.json"):
        found = await served.client.get(address)
        assert (found.status_code, len(found.content) > 100) == (200, True), address
        assert "default-src 'none'" in found.headers["Content-Security-Policy"]
    start = (await served.client.get("/schema/start.js")).text
    assert "http" not in start
    assert "validatorUrl: null" in start


async def test_the_page_is_given_a_document_that_it_can_read(served: Served) -> None:
    """The bundled Swagger UI reads OpenAPI 3.0, in which null is no type."""
    older = (await served.client.get("/schema/openapi-3.0.json")).json()
    assert older["openapi"] == "3.0.3"
    price = older["components"]["schemas"]["Transaction"]["properties"]["buyer_id"]
    assert price["nullable"] is True
    assert '"null"' not in str(older).replace("'", '"')


def test_null_becomes_nullable() -> None:
    given = {
        "openapi": "3.1.0",
        "a": {"oneOf": [{"type": "string"}, {"type": "null"}]},
        "b": {"type": ["null", "integer"]},
    }
    assert schema.as_3_0(given) == {
        "openapi": "3.0.3",
        "a": {"oneOf": [{"type": "string"}], "nullable": True},
        "b": {"type": "integer", "nullable": True},
    }
