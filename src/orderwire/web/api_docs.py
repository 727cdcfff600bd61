"""The page that explains the REST calls to whoever programs: made from the OpenAPI document, without a script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from apiflask import APIFlask
from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue


def attach(app: APIFlask) -> None:
    """Register the page at `/api/v1/docs`. It is open to everybody, as the document is: neither tells a secret."""
    routes = Blueprint("apidocs", __name__)

    @routes.get("/api/v1/docs")
    def page() -> ResponseReturnValue:
        document = json.loads(json.dumps(app.spec))
        return render_template("apidocs.html", calls=list(calls(document)))

    app.register_blueprint(routes)


def calls(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return each call of an OpenAPI document as the page shows it. Pure."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
            yield {
                "id": operation["operationId"],
                "method": method.upper(),
                "path": path,
                "summary": operation.get("summary", ""),
                "description": operation.get("description", ""),
                "takes": list(_fields(document, body.get("schema", {}))) or _parameters(operation),
                "gives": list(_fields(document, answer)),
                "failures": [
                    (code, said["description"])
                    for code, said in sorted(operation["responses"].items())
                    if code != "200"
                ],
            }


def _parameters(operation: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _field(given["name"], given["schema"], required=given.get("required", False))
        for given in operation.get("parameters", [])
    ]


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shape = _resolved(document, schema)
    for name, field in shape.get("properties", {}).items():
        yield _field(name, field, required=name in shape.get("required", ()))


def _field(name: str, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    return {
        "name": name,
        "form": form_of(schema),
        "required": required,
        "default": schema.get("default"),
        "description": schema.get("description", ""),
    }


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref", "")
    if not reference:
        return schema
    found: Mapping[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    return found


def form_of(schema: Mapping[str, Any]) -> str:
    """Say in a word or two what a value looks like."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit(".", 1)[-1].rsplit("/", 1)[-1]
    if "anyOf" in schema:
        words = [form_of(one) for one in schema["anyOf"]]
        return " or ".join(dict.fromkeys(words))
    if schema.get("type") == "array":
        return f"list of {form_of(schema.get('items', {}))}"
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    return str(schema.get("const", schema.get("type", "any")))
