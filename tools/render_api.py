"""Write docs/api.md: every route of the local backend, from the table that serves them and is published as OpenAPI.

python tools/render_api.py             write the page; `make docs` runs this
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from irons_local.control.api.app import ROUTES
from irons_local.control.api.openapi import describe
from irons_local.control.api.roles import ACCESS

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
V0 = frozenset(
    {
        ("post", "/sandboxes"),
        ("get", "/sandboxes"),
        ("get", "/sandboxes/{name}"),
        ("post", "/sandboxes/{name}/start"),
        ("post", "/sandboxes/{name}/stop"),
        ("delete", "/sandboxes/{name}"),
        ("get", "/sandboxes/{name}/ssh"),
        ("post", "/egress/allow"),
        ("post", "/egress/deny"),
        ("get", "/egress"),
        ("get", "/egress/mode"),
        ("put", "/egress/mode"),
        ("get", "/sandboxes/{name}/audit/egress"),
    }
)
"""The calls of the v0 API; all others are additions of the local backend."""

_LONG = 80
"""Characters above which an answer is written once and then referred to."""

HEAD = """\
# The API

Every route of the local backend. This page is written from the same table that serves the routes (`make docs`), and a running server
publishes it as OpenAPI 3.1 at `/openapi.json`. [The client library](library.md) calls all of them.

## How to call it

```console
$ irons local up
$ curl --unix-socket "$XDG_RUNTIME_DIR/irons/api.sock" http://irons/sandboxes
```

- **Where.** On a unix socket that only its owner can open, without a key. Over TCP where `irons local up --listen HOST:PORT` asked for it, with
  `Authorization: Bearer KEY` ([from other machines](local.md#from-other-machines)). Routes marked *owner only* are served on the socket alone.
- **What.** JSON both ways, UTF-8. Unknown members of a request are refused; unknown members of an answer must be ignored.
- **Names** are segments of the path: percent-encode them. Where a path has `{name}`, a sandbox's id does as well.
- **Success** is 200, 201 or 202 with JSON, but for `GET /metrics`. `create`, `start` and `stop` answer 202 at once: poll the status, or ask with `wait`.
- **Failure** is `{"error": "text"}`, and `"hint": "what helps"` where something does, such as a line to run. Every route may answer 400 (malformed), 401 (no valid
  key), 403 ([the role](#roles) of the key does not allow it), 408 (not whole in time), 413 and 431 (too large), 500 (it failed) and 503 (a part does not answer now; try again).
- **Times** are RFC 3339, UTC.

## Stability

Routes marked **v0** are the API that the original service had, and any v0 client works against them: they do not change. Those marked *added*
are only extended: members and parameters are added; one that is removed or changed is in the changelog in bold, and raises the second
number of the version. `GET /version` says which irons serves.

An event's page token is its place in the order in which events became known. Give back the last token to get only what came after.

"""


ROLES = """\
## Roles

An API key has a role. An `admin` may do all, as each key could before keys had roles, and as the unix socket does. An `auditor` reads. A
`user` works with the sandboxes that were created with its key: "its own" is what the path, the query or the body names, and the rows of a
list. What the role does not allow is answered with 403, `{"error": "text", "hint": "what helps"}`, and changes nothing.
[Roles](local.md#roles-of-keys) says more.
"""


def page() -> str:
    """Return the text of docs/api.md."""
    document = describe(ROUTES, "")
    groups: dict[str, list[str]] = {}
    known: dict[str, str] = {}
    owner_only = {(route.method.lower(), route.path) for route in ROUTES if route.owner_only}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            marks = ["**v0**" if (method, path) in V0 else "*added*"]
            marks += ["*owner only*"] if (method, path) in owner_only else []
            lines = [f"### {method.upper()} {path}", "", f"{' · '.join(marks)} {operation['summary']}", ""]
            lines += _operation(operation, f"{method.upper()} {path}", known)
            groups.setdefault(_group(path), []).append("\n".join(lines))
    text = "".join(f"## {name}\n\n" + "\n".join(parts) + "\n" for name, parts in groups.items())
    return HEAD + _roles() + text.rstrip("\n") + "\n"


def _roles() -> str:
    """Return what each role may do, a row a route."""
    rows = [
        f"| `{route.method} {route.path}` | {ACCESS[f'{route.method} {route.path}'].words('auditor')} | "
        f"{ACCESS[f'{route.method} {route.path}'].words('user')} | {'on the socket' if route.owner_only else 'yes'} |"
        for route in ROUTES
    ]
    table = "\n".join(("| route | `auditor` | `user` | `admin` |", "|---|---|---|---|", *rows))
    return f"{ROLES}\n{table}\n\n"


def _group(path: str) -> str:
    if "audit" in path:
        return "Audit"
    if "egress" in path:
        return "Egress"
    return "Sandboxes" if path.startswith("/sandboxes") else "The server"


def _operation(operation: Mapping[str, Any], call: str, known: dict[str, str]) -> Iterator[str]:
    """Yield the lines of one call; `known` has the calls by the long answers that they give."""
    rows = [
        (f"`{each['name']}`", each["in"], each["schema"], each["required"])
        for each in operation["parameters"]
        if each["name"] != "name" or each["in"] != "path"
    ]
    body = operation.get("requestBody")
    if body is not None:
        schema = body["content"]["application/json"]["schema"]
        rows += [
            (f"`{name}`", "body", member, name in schema.get("required", ()))
            for name, member in schema.get("properties", {}).items()
        ]
    if rows:
        yield "| in | name | type | |"
        yield "|---|---|---|---|"
        for name, where, schema, needed in rows:
            words = ["needed" if needed else "", _bounds(schema), schema.get("description", "")]
            yield f"| {where} | {name} | {_type(schema)} | {_cell('; '.join(filter(None, words)))} |"
        yield ""
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            ((media, given),) = answer["content"].items()
            said = _type(given["schema"]) if media == "application/json" else f"`{media}`"
            first = known.setdefault(said, call)
            yield f"Answer {status}: {said if first == call or len(said) < _LONG else f'as {first}'}."
    own = [status for status in operation["responses"] if status in ("404", "409")]
    if own:
        yield f"Also fails with {', '.join(own)}."
    yield ""


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in words: members of objects one level after the other."""
    kind = schema.get("type", "any")
    kinds = [each for each in (kind if isinstance(kind, list) else [kind]) if each != "null"]
    said = " or ".join(_one(each, schema) for each in kinds)
    return f"{said} or null" if isinstance(kind, list) and "null" in kind else said


def _one(kind: str, schema: Mapping[str, Any]) -> str:
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object":
        members = schema.get("properties")
        if not members:
            return "object of texts" if isinstance(schema.get("additionalProperties"), dict) else "object"
        needed = schema.get("required", ())
        inner = (
            f"`{name}{'' if name in needed else '?'}` {_type(member)}" for name, member in members.items()
        )
        return f"{{ {', '.join(inner)} }}"
    if "enum" in schema:
        return _cell(" \\| ".join(f"`{each}`" for each in schema["enum"] if each is not None))
    if kind == "string":
        return {"date-time": "time"}.get(schema.get("format", ""), "text")
    return kind


def _bounds(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    words = []
    if low is not None and high is not None:
        words.append(f"{low} to {high}")
    elif low is not None:
        words.append(f"at least {low}")
    if "maxLength" in schema and "enum" not in schema:
        words.append(f"at most {schema['maxLength']} characters")
    if "maxItems" in schema:
        words.append(f"at most {schema['maxItems']}")
    return ", ".join(words)


def _cell(text: str) -> str:
    return text.replace("\n", " ")


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
