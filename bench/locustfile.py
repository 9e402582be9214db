"""Realistic traffic for the demo: visitors, and a partner's app with its key.

Start ``make demo``, then, with the key it prints (without ``--headless``, locust serves its page at
http://127.0.0.1:8089, where the run is started)::

    export AUTHGATE_DEMO_KEY=agk_...
    locust -f bench/locustfile.py --headless --users 50 --spawn-rate 10 --run-time 1m

A 401 to a wrong key is the right answer and counts as a success.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from typing import Any

from locust import HttpUser, between

_KEY = os.environ.get("AUTHGATE_DEMO_KEY", "")
if not _KEY:
    sys.exit("Set AUTHGATE_DEMO_KEY to the key that the demo printed.")

_DEMO = "http://127.0.0.1:8080"
_BUILT_IN_PRODUCTS = 100
_PAGE = 20
_WORDS = ("lamp", "kettle", "wool", "office", "maple", "numbered", "no such thing")
_DOWNLOAD_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_WRONG_KEYS = ("agk_wrong", _KEY[:-1], _KEY + "0")

Task = Callable[[HttpUser], None]


def browse(user: HttpUser) -> None:
    """Turn a page of the list and look at two of its products."""
    skip = random.randrange(0, _BUILT_IN_PRODUCTS, _PAGE)
    user.client.get(f"/api/products?limit={_PAGE}&skip={skip}", name="/api/products?limit&skip")
    for _ in range(2):
        read_product(user)


def read_product(user: HttpUser) -> None:
    """Follow a link to one product."""
    user.client.get(f"/api/products/{random.randint(1, _BUILT_IN_PRODUCTS)}", name="/api/products/{id}")


def search(user: HttpUser) -> None:
    """Search, sometimes in vain."""
    user.client.get(
        "/api/products/search", params={"q": random.choice(_WORDS)}, name="/api/products/search?q"
    )


def create_product(user: HttpUser) -> None:
    """Offer something for sale."""
    product = {
        "title": f"Reading chair no. {random.randint(1, 999)}",
        "price_cents": random.randint(500, 90_000),
        "category": "furniture",
        "description": "Beech and wool, hardly used. " * random.randint(1, 20),
    }
    user.client.post("/api/products", json=product, name="/api/products")


def wait_for_slow(user: HttpUser) -> None:
    """Call the backend that takes a second."""
    user.client.get("/api/slow")


def download(user: HttpUser) -> None:
    """Fetch the large file and keep none of it; anything but its whole length is a failure.

    The time that locust shows is that of the response's head.
    """
    with user.client.get("/api/download", stream=True, catch_response=True) as response:
        if response.status_code != 200:
            response.failure(f"status {response.status_code}")
            return
        received = sum(len(chunk) for chunk in response.iter_content(_CHUNK_BYTES))
        if received != _DOWNLOAD_BYTES:
            response.failure(f"{received} of {_DOWNLOAD_BYTES} bytes")


def read_private_data(user: HttpUser) -> None:
    """Use the key; the backend must hear who is calling."""
    with user.client.get("/api/private-data", headers={"X-Api-Key": _KEY}, catch_response=True) as response:
        if response.status_code == 200 and not response.json()["the_gateway_says"]["X-Consumer-Id"]:
            response.failure("the backend was not told who is calling")


def try_wrong_key(user: HttpUser) -> None:
    """Be turned away, with a wrong key or with none."""
    wrong = random.choice((*_WRONG_KEYS, None))
    with user.client.get(
        "/api/private-data",
        headers={"X-Api-Key": wrong} if wrong else {},
        name="/api/private-data (wrong key)",
        catch_response=True,
    ) as response:
        if response.status_code == 401:
            response.success()
        else:
            response.failure(f"status {response.status_code} to a wrong key")


def mix(weights: dict[Task, int]) -> list[Any]:
    """Return each task as often as its weight says, as locust picks from a list evenly."""
    return [task for task, weight in weights.items() for _ in range(weight)]


class Visitor(HttpUser):  # type: ignore[misc, unused-ignore]  # locust is not installed where this is checked
    """A person in front of a shop: reads, searches, seldom buys time or bandwidth."""

    host = _DEMO
    weight = 3
    wait_time = between(0.5, 2.5)
    tasks = mix(
        {browse: 60, read_product: 60, search: 30, create_product: 5, wait_for_slow: 4, download: 1},
    )


class PartnerApp(HttpUser):  # type: ignore[misc, unused-ignore]  # as above
    """A program with a key: steady and quick, and sometimes set up wrong."""

    host = _DEMO
    weight = 1
    wait_time = between(0.05, 0.3)
    tasks = mix({read_private_data: 85, read_product: 10, try_wrong_key: 5})
