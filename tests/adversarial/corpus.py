"""What no client should send, by the name of what is wrong with it."""

from __future__ import annotations

from urllib.parse import quote

DEEP = 100_000
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no json": b"{",
    "not utf-8": b'{"query": "\xff\xfe"}',
    "null byte": b'{"query": "{ cloud { version } }\\u0000"}',
    "half a surrogate": b'{"query": "{ __typename }", "variables": {"a": "\\ud800"}}',
    "a number": b"1",
    "null": b"null",
    "a text": b'"{ __typename }"',
    "an empty list": b"[]",
    "a batch": b'[{"query": "{ __typename }"}]',
    "no number": b'{"query": "{ __typename }", "variables": {"a": NaN}}',
    "a huge number": b'{"query": "{ __typename }", "variables": {"a": 1' + b"0" * 5000 + b"}}",
    "a huge float": b'{"query": "query($a: Float) { __typename }", "variables": {"a": 1e99999}}',
    "the same key twice": b'{"query": "{ __typename }", "query": 1}',
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep variables": b'{"query": "{ __typename }", "variables": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "a query that is a number": b'{"query": 1}',
    "variables that are a list": b'{"query": "{ __typename }", "variables": [1]}',
    "extensions that are a text": b'{"query": "{ __typename }", "extensions": "x"}',
    "a name that is an object": b'{"query": "{ __typename }", "operationName": {}}',
    "an id that is no hash": b'{"documentId": "sha256:zz"}',
    "an unknown hash": b'{"documentId": "sha256:' + b"0" * 64 + b'"}',
    "a wrong hash": b'{"query": "{ __typename }", "extensions": {"persistedQuery": {"version": 1, "sha256Hash": ""}}}',
    "too large": b'{"query": "' + b" " * (1 << 20) + b'"}',
}
QUERIES = {
    "deep selection": "{ a" * 5000 + "}" * 5000,
    "deep values": "{ nodes(ids: " + "[" * 5000 + "]" * 5000 + ") { id } }",
    "many aliases": "{ " + " ".join(f"a{each}: __typename" for each in range(20_000)) + " }",
    "a circle": "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
    "a bomb": "{ ...F0 } "
    + " ".join(f"fragment F{each} on Query {{ ...F{each + 1} ...F{each + 1} }}" for each in range(150))
    + " fragment F150 on Query { __typename }",
    "many directives": "{ __typename " + "@skip(if: false) " * 5000 + "}",
    "an unknown directive": "{ __typename @defer }",
    "two operations": "query A { __typename } mutation B { __typename }",
    "a subscription": 'subscription { events(after: "x") { cursor } }',
    "a huge text": '{ node(id: "' + "x" * 200_000 + '") { id } }',
    "an unclosed text": '{ node(id: "',
    "a huge integer": "{ servers(first: 99999999999999999999) { totalCount } }",
    "a negative page": "{ servers(first: -1) { totalCount } }",
    "both ends": "{ servers(first: 1, last: 1) { totalCount } }",
    "a page too large": "{ servers(first: 101) { totalCount } }",
    "too many ids": "{ nodes(ids: [" + ", ".join(['"server_0"'] * 5000) + "]) { id } }",
}
BAD_IDS = ["", "x", "server_", "server_8zzzzzzzzzzzzzzzzzzzzzzzzz", "server_" + "u" * 26, "SERVER_01", "a" * 5000,
           "é_0", "server_01m83jsfbzemw8pq7sx908whzc\n", "../1", "' or 1=1 --", "tenant_", "_", "\u0000"]  # fmt: skip
BAD_CURSORS = [
    "",
    "x",
    "=",
    "MDox",
    "W10",
    "WzFd",
    "bnVsbA",
    "eyJhIjoxfQ",
    "é",
    "A" * 5000,
    "W251bGwsbnVsbF0",
    "Wy0xLDFd",
]
IDS = "query($id: ID!) { node(id: $id) { id } server(id: $id) { id } job(id: $id) { id } nodes(ids: [$id]) { id } }"
LISTS = ("servers", "jobs", "images", "networks", "subnets", "ports", "volumes", "snapshots", "users", "tenants",
         "hosts", "flavors", "keypairs", "securityGroups", "webhooks", "auditRecords")  # fmt: skip

HEAD = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
WIRES: dict[str, bytes] = {
    "half a request": HEAD,
    "half a body": HEAD + b'content-length: 1000\r\n\r\n{"query": "{',
    "a length that is no number": HEAD + b"content-length: x\r\n\r\n",
    "a negative length": HEAD + b"content-length: -1\r\n\r\n",
    "two lengths": HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    "both lengths": HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "half a chunk": HEAD + b"transfer-encoding: chunked\r\n\r\nff\r\n{",
    "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "http/0.9": b"GET /graphql\r\n\r\n",
    "a huge header": b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    "no websocket key": b"GET /graphql HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
}

INIT = '{"type": "connection_init"}'
FRAMES: list[list[str]] = [
    ["{"], ["[]"], ["null"], ['{"type": "x"}'], ['{"type": "subscribe"}'], ['{"type": 1}'], ["[" * 50_000],
    ['{"type": "connection_init", "payload": []}'],
    ['{"type": "connection_init", "payload": {"authorization": 1}}'],
    [INIT, INIT],
    [INIT, '{"type": "subscribe", "id": 1, "payload": {}}'],
    [INIT, '{"type": "subscribe", "id": "1", "payload": {"query": 1}}'],
    [INIT, '{"type": "subscribe", "id": "1", "payload": {"query": "{"}}'],
    [INIT, '{"type": "next", "id": "1", "payload": {}}'],
    [INIT, "x" * 2_000_000],
]  # fmt: skip
CONTENT_TYPES = ("", "text/plain", "application/xml", "multipart/form-data", "application/json; charset=utf-16",
    "application/x-www-form-urlencoded", "application/json, text/html",
    ";", "application/" + "x" * 5000)  # fmt: skip
QUERY_STRINGS = ("", "?query=", "?query=%ff", "?query={__typename}&variables=[", "?query=mutation{__typename}",
    "?variables={}&query=" + quote(IDS),
    "?extensions=1&query={__typename}", "?query=" + "%20" * 5000)  # fmt: skip
PATHS = ("/..%2f..%2fetc%2fpasswd", "/playground/%00", "/assets/..%2f..%2fapp.py", "/%ff", "/graphql/",
    "//",
    "/images/x", "/images/image_0/data", "/images/%2e%2e/x?signature=", "/" + "a" * 5000)  # fmt: skip
