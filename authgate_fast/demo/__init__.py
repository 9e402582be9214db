"""The demo: its documents, its words, and (in ``backend``) the catalog behind it.

The documents are those of ``demo.yaml`` beside this file, with the port of the backend and the hash of the
key put in; nothing else differs from what `authgate run --config config/demo.yaml` serves.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from authgate_fast.auth.api_key import key_digest
from authgate_fast.config.file import load_file
from authgate_fast.config.keys import DocumentKey

DEMO_FILE = Path(__file__).with_name("demo.yaml")
_SERVICE = DocumentKey("service", "shop-api", "catalog-api")
_CONSUMER = DocumentKey("consumer", "shop-api", "mobile-app")


def demo_documents(backend_port: int, api_key: str) -> dict[DocumentKey, bytes]:
    """Return the demo's documents for a backend on this port and a consumer with this key."""
    loaded = load_file(DEMO_FILE)
    if loaded.problems:  # the file is part of the package: a mistake in it is ours
        raise RuntimeError(f"{DEMO_FILE} is not valid: {loaded.problems[0]}")
    documents = dict(loaded.documents)
    _set(documents, _SERVICE, "target_url", f"http://127.0.0.1:{backend_port}")
    _set(documents, _CONSUMER, "api_key_sha256", key_digest(api_key))
    return documents


def _set(documents: dict[DocumentKey, bytes], key: DocumentKey, field: str, value: str) -> None:
    document = orjson.loads(documents[key])
    document[field] = value
    documents[key] = orjson.dumps(document)


def banner(listen: str, key: str) -> str:
    """Return what the demo prints: three lines to paste, then what else there is. `listen` is HOST:PORT."""
    base = f"http://{listen}"
    return f"""\
AuthGate Fast demo: the gateway shop-api at {base}, in front of a small product catalog.

A PUBLIC route answers anyone (200):
  curl -i {base}/api/products/1

A SECURE route asks for a key (401):
  curl -i {base}/api/private-data

The same with the key of the consumer mobile-app, made for this run (200):
  curl -i -H "X-Api-Key: {key}" {base}/api/private-data

More to try:
  curl "{base}/api/products/search?q=lamp"
  curl -d '{{"title": "Tea towel", "price_cents": 750}}' {base}/api/products
  curl -o /dev/null {base}/api/download              # 64 MiB, streamed
  curl -i -X DELETE {base}/api/products/1            # 405, and Allow says what there is
  curl -i --path-as-is {base}/api/../private-data    # 400, two servers may read this path differently

Ctrl-C ends all of it.
"""
