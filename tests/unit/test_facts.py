"""What recall keeps of banks and memories: of late, for a while, and never what was dropped while it was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from consolidator.engine import Bank
from consolidator.facts import Facts
from consolidator.keeping import Kept
from consolidator.parts import Parts
from consolidator.ports import Point, Storage


class Watched:
    """A store that tells what is read of it, and lets something happen between reading and telling."""

    def __init__(self, parts: Parts) -> None:
        self.observations = parts.observations
        self.memories = self
        self._store = parts.memories
        self.read: list[list[str]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def get(self, bank: str, ids: Sequence[str], *, vectors: bool = False) -> list[Point]:
        self.read.append(list(ids))
        points = await self._store.get(bank, ids, vectors=vectors)
        self.meanwhile()
        return points


@pytest.fixture
def store(bank: Bank) -> Watched:
    return Watched(bank._parts)


def facts_of(bank: Bank, store: Watched, most: int = 100) -> Facts:
    return Facts(replace(bank._parts, storage=cast("Storage", store)), most)


async def retained(bank: Bank, *texts: str) -> list[str]:
    return [m.id for m in (await bank.retain(list(texts), source="s")).memories]


async def test_what_was_asked_for_of_late_is_kept(bank: Bank, store: Watched) -> None:
    one, two, three = await retained(bank, "one", "two", "three")
    facts = facts_of(bank, store, most=2)
    for ids in ([one], [two], [one], [three], [one]):
        assert set(await facts.of(bank.id, ids)) == set(ids)
    assert store.read == [[one], [two], [three]]


async def test_what_is_dropped_while_it_is_read_is_not_kept(bank: Bank, store: Watched) -> None:
    one, two = await retained(bank, "one", "two")
    facts = facts_of(bank, store)
    store.meanwhile = lambda: facts.drop(bank.id, [one])
    await facts.of(bank.id, [one, two])
    store.meanwhile = lambda: None
    await facts.of(bank.id, [one, two])
    assert store.read == [[one, two], [one]]


async def test_another_banks_erasure_drops_nothing(bank: Bank, store: Watched) -> None:
    (one,) = await retained(bank, "one")
    facts = facts_of(bank, store)
    store.meanwhile = lambda: facts.drop("other", [one])
    await facts.of(bank.id, [one])
    assert set(await facts.of(bank.id, [one])) == {one}
    assert store.read == [[one]]


class Counted:
    """Reads 1, 2, 3 ..."""

    def __init__(self) -> None:
        self.now = 0.0
        self.count = 0
        self.meanwhile: Callable[[], Any] = lambda: None

    async def read(self, bank: str) -> int:
        self.count += 1
        count = self.count
        self.meanwhile()
        return count

    def clock(self) -> float:
        return self.now


async def test_a_value_is_kept_for_so_many_seconds() -> None:
    source = Counted()
    kept = Kept[int](30, source.clock)
    told = []
    for source.now in (0, 29, 30, 59, 60):
        told.append(await kept.of("b", source.read))
    assert told == [1, 1, 2, 2, 3]


async def test_a_value_that_was_dropped_is_read_anew_also_when_it_is_dropped_during_the_reading() -> None:
    source = Counted()
    kept = Kept[int](30, source.clock)
    source.meanwhile = lambda: kept.drop("b")
    assert await kept.of("b", source.read) == 1
    source.meanwhile = lambda: None
    assert [await kept.of("b", source.read) for _ in range(2)] == [2, 2]
    kept.drop("b")
    assert await kept.of("b", source.read) == 3


async def test_values_of_few_banks_are_kept() -> None:
    source = Counted()
    kept = Kept[int](30, source.clock, most=2)
    told = [await kept.of(bank, source.read) for bank in ("a", "b", "c", "c", "d", "a")]
    assert told == [1, 2, 3, 3, 4, 5]
