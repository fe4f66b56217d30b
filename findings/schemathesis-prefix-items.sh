#!/usr/bin/env bash
# schemathesis refuses OpenAPI 3.1 descriptions whose responses hold a tuple (JSON Schema's prefixItems).
#
# schemathesis 4.32.5 (PyPI, Python 3.11): checking a right response against a 3.1 schema with `prefixItems`, as pydantic
# writes `tuple[int, int]`, raises InvalidSchema: it has turned prefixItems into a list under `items`, the form of older
# drafts, and then finds that this is no schema of 2020-12. The same response under `items: {type: integer}` with
# minItems and maxItems passes. A fixed-length list as the latter is the way round.
#
# Seen on 2026-11-29; fails if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5
cat > "$folder/check.py" <<'END'
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import schemathesis

INTEGER = {"type": "integer"}
FORMS = {
    "prefixItems": {"type": "array", "prefixItems": [INTEGER, INTEGER], "minItems": 2, "maxItems": 2},
    "items": {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2},
}


class Pair(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps([1, 2]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Pair)
threading.Thread(target=server.serve_forever, daemon=True).start()
for name, schema in FORMS.items():
    response = {"description": "a pair", "content": {"application/json": {"schema": schema}}}
    described = {
        "openapi": "3.1.0",
        "info": {"title": "pair", "version": "1"},
        "paths": {"/pair": {"get": {"responses": {"200": response}}}},
    }
    case = schemathesis.openapi.from_dict(described)["/pair"]["get"].Case()
    try:
        case.call_and_validate(base_url=f"http://127.0.0.1:{server.server_port}")
        print(name, "passes")
    except Exception as error:
        print(name, type(error).__name__)
END
found=$("$folder/env/bin/python" "$folder/check.py")
expected=$'prefixItems InvalidSchema\nitems passes'
if [ "$found" != "$expected" ]; then echo "changed: expected '$expected', found '$found'"; exit 1; fi
echo "$found"
