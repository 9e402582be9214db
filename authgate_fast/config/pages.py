"""What is done with every document of a page that was read, of a million consumers too. Pure, no IO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authgate_fast.config.documents import MAX_DOCUMENT_BYTES
from authgate_fast.config.keys import DocumentKey, Unreadable
from authgate_fast.config.redis_texts import TooLarge

if TYPE_CHECKING:
    from authgate_fast.config.intake import Raw
    from authgate_fast.config.redis_texts import Text

Named = list[tuple[DocumentKey, bytes]]
"""Documents, each with its Redis key."""
Page = list[tuple[DocumentKey, "Raw"]]
"""Documents, each with what Redis holds of it."""


def pair(named: Named, texts: list[Text]) -> tuple[Page, Named]:
    """Return the documents that have texts, and those that MGET gives none of."""
    page: Page = []
    absent: Named = []
    for one, text in zip(named, texts, strict=True):
        if isinstance(text, bytes):
            page.append((one[0], text))
        elif isinstance(text, TooLarge):
            message = f"the value has {text.size} bytes; a document has at most {MAX_DOCUMENT_BYTES}"
            page.append((one[0], Unreadable(message)))
        else:
            absent.append(one)
    return page, absent


def take_consumers(page: Page) -> tuple[Page, Page]:
    """Return the consumers of a page that have a text, and the rest of it."""
    consumers: Page = []
    rest: Page = []
    for one in page:
        (consumers if one[0][0] == "consumer" and isinstance(one[1], bytes) else rest).append(one)
    return consumers, rest
