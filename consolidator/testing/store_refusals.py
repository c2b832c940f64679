"""The part of the store contract that says no: to other banks, and to bad input."""

from __future__ import annotations

import math

import pytest

from consolidator.errors import InvalidInput
from consolidator.ports import ABSENT, ANY, Condition, Equals, Expect, Ids, Leg, Page, Point, PutOutcome, Storage, VectorStore
from consolidator.testing.store_cases import BAD_POINTS, BAD_WHERES, DIMENSION, NOON, axis, every_id, number, point


class RefusalContract:
    """No verb reaches another bank; what is wrong is refused before anything is written."""

    @pytest.fixture
    def store(self, storage: Storage) -> VectorStore:
        return storage.memories

    # banks

    async def test_no_verb_reads_another_bank(self, store: VectorStore) -> None:
        await store.put("bob", [point(1, dense=axis(0), lexical="green tea", source="secret", occurred_at=NOON)])
        assert await store.get("alice", [number(1)], vectors=True) == []
        assert await store.search("alice", [Leg(name="d", dense=axis(0)), Leg(name="w", lexical="tea")]) == [[], []]
        assert await store.scan("alice") == Page([], None)
        assert await store.scan("alice", order_by="occurred_at") == Page([], None)
        assert await store.scan("alice", [Ids((number(1),))]) == Page([], None)
        assert await store.count("alice", [Equals("source", "secret")]) == 0
        assert await store.facet("alice", "source") == {}

    async def test_no_verb_writes_to_another_bank(self, store: VectorStore) -> None:
        await store.put("bob", [point(1, dense=axis(0), lexical="tea", state="bobs")])
        mine = point(1, dense=axis(1), state="taken", rev=1)
        for expect in (ANY, ABSENT, Expect(rev=0)):
            assert await store.put("alice", [mine], expect=expect) == [PutOutcome.LOST]
        assert await store.patch("alice", number(1), {"state": "taken"}, expect=0) is False
        assert await store.give_vector("alice", number(1), axis(1), {"state": "taken"}, expect=0) is False
        assert await store.delete("alice", [number(1)]) == 0
        (read,) = await store.get("bob", [number(1)], vectors=True)
        assert read.payload == {"state": "bobs", "rev": 0}
        assert read.dense == pytest.approx(axis(0))
        assert await store.count("alice") == 0

    async def test_a_put_writes_its_own_points_beside_foreign_ones(self, store: VectorStore) -> None:
        await store.put("bob", [point(1)])
        assert await store.put("alice", [point(1), point(2)]) == [PutOutcome.LOST, PutOutcome.WRITTEN]
        assert (await every_id(store, "alice"), await every_id(store, "bob")) == ([number(2)], [number(1)])

    async def test_banks_are_compared_whole_and_exactly(self, store: VectorStore) -> None:
        await store.put("alice", [point(1)])
        for other in ("alic", "alice2", "Alice", "alice ", "*"):
            assert await store.count(other) == 0

    async def test_the_collections_are_apart(self, storage: Storage) -> None:
        await storage.memories.put("alice", [point(1, state="memory")])
        await storage.observations.put("alice", [point(1, state="observation"), point(2)])
        assert await storage.memories.delete("alice", [number(2)]) == 0
        assert [it.payload["state"] for it in await storage.memories.get("alice", [number(1)])] == ["memory"]
        assert await storage.observations.count("alice") == 2

    # refusals

    @pytest.mark.parametrize("bad", [it[1] for it in BAD_POINTS], ids=[it[0] for it in BAD_POINTS])
    async def test_a_bad_point_stops_the_whole_put(self, store: VectorStore, bad: Point) -> None:
        with pytest.raises(InvalidInput):
            await store.put("alice", [point(77, dense=axis(0)), bad])
        assert await every_id(store, "alice") == []

    @pytest.mark.parametrize("bad", [it[1] for it in BAD_WHERES], ids=[it[0] for it in BAD_WHERES])
    async def test_a_bad_condition_is_refused_everywhere(self, store: VectorStore, bad: Condition) -> None:
        leg = Leg(name="d", dense=axis(0), where=[bad])
        for refused in (store.count("alice", [bad]), store.scan("alice", [bad]), store.search("alice", [leg])):
            with pytest.raises(InvalidInput):
                await refused
        with pytest.raises(InvalidInput):
            await store.facet("alice", "state", [bad])

    async def test_other_bad_input(self, store: VectorStore) -> None:
        leg = Leg(name="d", dense=axis(0))
        refused = (
            store.put("", [point(1)]),
            store.put("alice", [point(1), point(1)]),
            store.put("alice", [point(1)], expect=Expect(rev=1, absent=True)),
            store.get("alice", ["m1"]),
            store.delete("alice", [number(1), "m1"]),
            store.scan("alice", limit=0),
            store.scan("alice", after="m1"),
            store.scan("alice", order_by="source"),
            store.scan("alice", order_by="confidence", after=number(1)),
            store.facet("alice", "confidence"),
            store.facet("alice", "bank"),
            store.facet("alice", "source", limit=0),
            store.search("alice", [leg, Leg(name="both", dense=axis(0), lexical="tea")]),
            store.search("alice", [Leg(name="neither")]),
            store.search("alice", [Leg(name="short", dense=[1.0])]),
            store.search("alice", [Leg(name="nan", dense=[math.nan] * DIMENSION)]),
            store.search("alice", [Leg(name="limit", lexical="tea", limit=0)]),
        )
        for call in refused:
            with pytest.raises(InvalidInput):
                await call

    async def test_bad_changes_change_nothing(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, state="live")])
        for changes in ({"rev": 5}, {"bank": "bob"}, {"op": "x"}, {"confidence": math.nan}, {"state": 1}, {"x": {1, 2}}):
            with pytest.raises(InvalidInput):
                await store.patch("alice", number(1), changes, expect=0)
            with pytest.raises(InvalidInput):
                await store.give_vector("alice", number(1), axis(0), changes, expect=0)
        with pytest.raises(InvalidInput):
            await store.give_vector("alice", number(1), [1.0], {}, expect=0)
        assert [it.payload for it in await store.get("alice", [number(1)])] == [{"state": "live", "rev": 0}]

    async def test_the_arguments_are_left_as_they_were(self, store: VectorStore) -> None:
        payload = {"rev": 0, "tags": ["a"], "occurred_at": NOON}
        changes = {"occurred_at": NOON}
        await store.put("alice", [Point(id=number(1), payload=payload, dense=[3.0] * DIMENSION)])
        await store.patch("alice", number(1), changes, expect=0)
        assert payload == {"rev": 0, "tags": ["a"], "occurred_at": NOON}
        assert changes == {"occurred_at": NOON}
