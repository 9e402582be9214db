"""The demo shop's products: made up here from a few words, the same at every start. Pure data.

Ids 1 to `BUILT_IN` never change. What a client creates is kept in memory, the oldest forgotten beyond
`MAX_CREATED`, so that a load test can create for as long as it likes.
"""

from __future__ import annotations

from typing import TypedDict

_THINGS = (
    ("kettle", "kitchen", 3900),
    ("desk lamp", "office", 4500),
    ("backpack", "travel", 7900),
    ("notebook", "office", 900),
    ("wool blanket", "home", 6900),
    ("bicycle bell", "outdoor", 1500),
    ("coffee grinder", "kitchen", 8900),
    ("umbrella", "travel", 2900),
    ("tent", "outdoor", 18900),
    ("wall clock", "home", 3500),
)
_MAKERS = (
    ("Alder", "built to be repaired, with spare parts for twenty years"),
    ("Birch", "light, plain and quiet"),
    ("Cedar", "a little heavier than it needs to be, and proud of it"),
    ("Elm", "made in small numbers and numbered by hand"),
    ("Fir", "the one that most people take"),
    ("Hazel", "folds flat and weighs next to nothing"),
    ("Larch", "for rain, snow and clumsy owners"),
    ("Maple", "in seven colours, three of them green"),
    ("Rowan", "a gift that is kept"),
    ("Willow", "soft edges, no screws in sight"),
)
BUILT_IN = len(_THINGS) * len(_MAKERS)
MAX_CREATED = 1_000


class Product(TypedDict):
    """One product as JSON shows it. ``price_cents`` is in euro cents."""

    id: int
    title: str
    category: str
    description: str
    price_cents: int
    stock: int


def _built_in() -> dict[int, Product]:
    products: dict[int, Product] = {}
    for row, (thing, category, cents) in enumerate(_THINGS):
        for column, (maker, words) in enumerate(_MAKERS):
            number = row * len(_MAKERS) + column + 1
            products[number] = {
                "id": number,
                "title": f"{maker} {thing}",
                "category": category,
                "description": f"The {maker} {thing}: {words}.",
                "price_cents": cents + column * cents // 20,
                "stock": number * 37 % 120,
            }
    return products


class Catalog:
    """The products of one demo backend."""

    def __init__(self) -> None:
        self._products = _built_in()
        self._next_id = BUILT_IN + 1

    def __len__(self) -> int:
        return len(self._products)

    def get(self, number: int) -> Product | None:
        """Return a product by its id."""
        return self._products.get(number)

    def page(self, skip: int, limit: int) -> list[Product]:
        """Return `limit` products from the one at `skip` on, oldest first."""
        return list(self._products.values())[skip : skip + limit]

    def search(self, words: str, limit: int) -> list[Product]:
        """Return products whose title, category or description holds `words`, in any case."""
        wanted = words.casefold()
        found = []
        for product in self._products.values():
            if wanted in f"{product['title']}\n{product['category']}\n{product['description']}".casefold():
                found.append(product)
                if len(found) == limit:
                    break
        return found

    def create(self, title: str, category: str, description: str, price_cents: int) -> Product:
        """Add a product under the next id."""
        number = self._next_id
        self._next_id += 1
        product: Product = {
            "id": number,
            "title": title,
            "category": category,
            "description": description,
            "price_cents": price_cents,
            "stock": 0,
        }
        self._products[number] = product
        forgotten = number - MAX_CREATED
        if forgotten > BUILT_IN:
            del self._products[forgotten]
        return product
