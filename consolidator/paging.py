"""All points that match, page after page."""

from __future__ import annotations

from collections.abc import AsyncIterator

from consolidator.ports import Point, VectorStore, Where

PAGE = 256


async def pages(store: VectorStore, bank: str, where: Where) -> AsyncIterator[Point]:
    """Every point, page after page."""
    after: str | None = None
    while True:
        page = await store.scan(bank, where, after=after, limit=PAGE)
        for point in page.points:
            yield point
        if (after := page.after) is None:
            return
