"""The promises of `VectorStore`, as tests. Subclass `VectorStoreContract` and give it a fixture `storage` made from `SPECS`."""

from __future__ import annotations

import math
import random
from datetime import timedelta
from enum import IntEnum, StrEnum
from typing import Any

import pytest

from consolidator.errors import ConsolidatorError, WrongEmbedder
from consolidator.ports import (
    ABSENT,
    AnyOf,
    CollectionSpec,
    Empty,
    Equals,
    Expect,
    Ids,
    Leg,
    Not,
    Page,
    Point,
    PutOutcome,
    Range,
    Storage,
    VectorStore,
    Where,
)
from consolidator.testing.store_cases import (
    DIMENSION,
    FIELDS,
    FILTERED,
    NOON,
    SPECS,
    WHERES,
    axis,
    every_id,
    number,
    point,
)
from consolidator.testing.store_refusals import RefusalContract


class _State(StrEnum):
    LIVE = "live"


class _Trust(IntEnum):
    USER = 2


class VectorStoreContract(RefusalContract):
    """Every verb, every condition, both outcomes of each conditional write, and two banks throughout."""

    # put and get

    async def test_what_was_put_is_read_back(self, store: VectorStore) -> None:
        kept: dict[str, Any] = {
            "source": "chat-1",
            "tags": ["a", "b"],
            "state": "live",
            "trust": 2,
            "sequence": 0,
            "confidence": 0.1,
            "text": 'She said "grüß dich" 🍵\n\x00',
            "metadata": {"deep": [{"x": None, "y": [1, 2.5, True, "z"]}], "empty": ""},
            "occurred_at": "2026-01-31T12:00:00.123456Z",
        }
        given = {**kept, "tags": ("a", "b"), "state": _State.LIVE, "trust": _Trust.USER, "occurred_at": NOON, "speaker": None}
        assert await store.put("alice", [point(1, rev=3, **given)]) == [PutOutcome.WRITTEN]
        assert await store.get("alice", [number(1)]) == [Point(id=number(1), payload={**kept, "rev": 3})]

    async def test_what_was_read_can_be_put_again(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, occurred_at=NOON, tags=["a"])])
        read = await store.get("alice", [number(1)])
        assert await store.put("alice", read) == [PutOutcome.WRITTEN]
        assert await store.get("alice", [number(1)]) == read

    async def test_floats_keep_fifteen_digits(self, store: VectorStore) -> None:
        dice = random.Random(15)
        given = [dice.random() * 10.0 ** dice.randrange(-6, 6) for _ in range(100)]
        await store.put("alice", [point(n + 1, confidence=value, metadata={"x": [value]}) for n, value in enumerate(given)])
        read = await store.get("alice", [number(n + 1) for n in range(100)])
        kept = [float(f"{value:.15g}") for value in given]
        assert [it.payload["confidence"] for it in read] == kept
        assert [it.payload["metadata"]["x"] for it in read] == [[value] for value in kept]

    async def test_get_keeps_the_order_asked_and_leaves_out_what_is_not_there(self, store: VectorStore) -> None:
        await store.put("alice", [point(n) for n in (1, 2, 3)])
        read = await store.get("alice", [number(n) for n in (3, 9, 1)])
        assert [it.id for it in read] == [number(3), number(1)]
        assert await store.get("alice", []) == []

    async def test_vectors_come_back_normalised_and_only_when_asked_for(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, dense=[3.0, 4.0] + [0.0] * (DIMENSION - 2)), point(2, lexical="tea")])
        near, none = await store.get("alice", [number(1), number(2)], vectors=True)
        assert near.dense == pytest.approx([0.6, 0.8] + [0.0] * (DIMENSION - 2), abs=1e-6)
        assert none.dense is None
        assert [it.dense for it in await store.get("alice", [number(1)])] == [None]

    async def test_a_put_replaces_the_whole_point(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, dense=axis(0), lexical="green tea", source="chat-1", state="live")])
        await store.put("alice", [point(1, lexical="black coffee", source="chat-2", rev=1)])
        assert [it.payload for it in await store.get("alice", [number(1)])] == [{"source": "chat-2", "rev": 1}]
        by_meaning, old_words, new_words = await store.search(
            "alice",
            [Leg(name="d", dense=axis(0)), Leg(name="old", lexical="green tea"), Leg(name="new", lexical="coffee")],
        )
        assert by_meaning == old_words == []
        assert [hit.id for hit in new_words] == [number(1)]

    async def test_nothing_put_nothing_written(self, store: VectorStore) -> None:
        assert await store.put("alice", []) == []

    async def test_many_points_in_one_put(self, store: VectorStore) -> None:
        points = [point(n, dense=axis(n), lexical=f"word{n}", sequence=n) for n in range(1, 251)]
        assert await store.put("alice", points) == [PutOutcome.WRITTEN] * 250
        assert await store.count("alice") == 250

    # conditional writes

    async def test_create_once(self, store: VectorStore) -> None:
        first = await store.put("alice", [point(1, state="first")], expect=ABSENT)
        again = await store.put("alice", [point(1, state="second"), point(2, state="second")], expect=ABSENT)
        assert (first, again) == ([PutOutcome.WRITTEN], [PutOutcome.EXISTED, PutOutcome.WRITTEN])
        read = await store.get("alice", [number(1), number(2)])
        assert [it.payload["state"] for it in read] == ["first", "second"]

    async def test_replace_a_revision(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, rev=4), point(2, rev=5)])
        fresh = [point(1, rev=5, dense=axis(1), state="new"), point(2, rev=5, state="new"), point(3, rev=5, state="new")]
        outcomes = await store.put("alice", fresh, expect=Expect(rev=4))
        assert outcomes == [PutOutcome.WRITTEN, PutOutcome.LOST, PutOutcome.LOST]
        read = await store.get("alice", [number(1), number(2), number(3)])
        assert [dict(it.payload) for it in read] == [{"rev": 5, "state": "new"}, {"rev": 5}]

    async def test_patch_sets_removes_and_raises_the_revision(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, dense=axis(1), lexical="tea", source="chat-1", tags=["a"], state="live", rev=7)])
        changes = {"state": "gone", "tags": None, "occurred_at": NOON}
        assert await store.patch("alice", number(1), changes, expect=7) is True
        (read,) = await store.get("alice", [number(1)], vectors=True)
        assert read.payload == {"source": "chat-1", "state": "gone", "occurred_at": "2026-01-31T12:00:00.123456Z", "rev": 8}
        assert read.dense == pytest.approx(axis(1))
        assert await store.count("alice", [Equals("state", "gone"), Empty("tags"), Range("occurred_at", gte=NOON)]) == 1
        assert [hit.id for hit in (await store.search("alice", [Leg(name="w", lexical="tea")]))[0]] == [number(1)]

    async def test_patch_of_another_revision_changes_nothing(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, state="live", rev=7)])
        assert await store.patch("alice", number(1), {"state": "gone"}, expect=6) is False
        assert await store.patch("alice", number(2), {"state": "gone"}, expect=0) is False
        assert [it.payload for it in await store.get("alice", [number(1), number(2)])] == [{"state": "live", "rev": 7}]

    async def test_of_two_writers_at_one_revision_one_wins(self, store: VectorStore) -> None:
        await store.put("alice", [point(1)])
        assert await store.patch("alice", number(1), {"state": "one"}, expect=0) is True
        assert await store.patch("alice", number(1), {"state": "two"}, expect=0) is False
        assert await store.put("alice", [point(1, state="three", rev=1)], expect=Expect(rev=0)) == [PutOutcome.LOST]
        assert [it.payload for it in await store.get("alice", [number(1)])] == [{"state": "one", "rev": 1}]

    async def test_a_point_gets_its_vector_later(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, lexical="green tea", state="unembedded"), point(2, dense=axis(2), lexical="coffee")])
        by_meaning = Leg(name="d", dense=axis(1))
        assert [hit.id for hit in (await store.search("alice", [by_meaning]))[0]] == [number(2)]
        assert await store.give_vector("alice", number(1), axis(1), {"state": "pending"}, expect=1) is False
        assert await store.give_vector("alice", number(1), axis(1), {"state": "pending"}, expect=0) is True
        (found, words) = await store.search("alice", [by_meaning, Leg(name="w", lexical="tea")])
        assert [hit.id for hit in found] == [number(1), number(2)]
        assert [hit.id for hit in words] == [number(1)]
        assert [dict(it.payload) for it in await store.get("alice", [number(1)])] == [{"state": "pending", "rev": 1}]
        assert await store.give_vector("alice", number(9), axis(1), {}, expect=0) is False

    async def test_delete_counts_what_was_there(self, store: VectorStore) -> None:
        await store.put("alice", [point(n, dense=axis(n), lexical="tea", source="s") for n in (1, 2, 3)])
        assert await store.delete("alice", [number(1), number(2), number(2), number(9)]) == 2
        assert await store.delete("alice", [number(1)]) == 0
        assert await store.delete("alice", []) == 0
        assert await every_id(store, "alice") == [number(3)]
        legs = await store.search("alice", [Leg(name="d", dense=axis(1)), Leg(name="w", lexical="tea")])
        assert [[hit.id for hit in leg] for leg in legs] == [[number(3)], [number(3)]]
        assert await store.facet("alice", "source") == {"s": 1}

    # conditions

    @pytest.mark.parametrize(("where", "expected"), [it[1:] for it in WHERES], ids=[it[0] for it in WHERES])
    async def test_every_condition_on_every_verb_that_reads(self, store: VectorStore, where: Where, expected: set[int]) -> None:
        both = [Point(id=it.id, payload=it.payload, dense=axis(0, lean=0.1), lexical="green tea") for it in FILTERED]
        await store.put("alice", both)
        await store.put("bob", [Point(id=number(50 + n), payload=it.payload, dense=it.dense) for n, it in enumerate(both)])
        ids = sorted(number(n) for n in expected)
        assert await store.count("alice", where) == len(ids)
        assert await every_id(store, "alice", where, limit=2) == ids
        legs = [Leg(name="d", dense=axis(0), where=where), Leg(name="w", lexical="tea", where=where)]
        assert [[hit.id for hit in leg] for leg in await store.search("alice", legs)] == [ids, ids]
        states = [it.payload["state"] for it in both if it.id in ids]
        assert await store.facet("alice", "state", where) == {state: states.count(state) for state in sorted(set(states))}

    async def test_each_leg_has_its_own_conditions(self, store: VectorStore) -> None:
        await store.put("alice", [point(n, dense=axis(0), lexical="tea", source=f"s{n}") for n in (1, 2, 3)])
        legs = [
            Leg(name="d", dense=axis(0), where=[Equals("source", "s1")]),
            Leg(name="none", dense=axis(0), where=[AnyOf("source", ())]),
            Leg(name="w", lexical="tea", where=[Not(Equals("source", "s1"))]),
        ]
        found = await store.search("alice", legs)
        assert [[hit.id for hit in leg] for leg in found] == [[number(1)], [], [number(2), number(3)]]

    # search

    async def test_legs_are_ranked_best_first_with_payloads(self, store: VectorStore) -> None:
        await store.put("alice", [point(n, dense=axis(0, lean=n / 10), source=f"s{n}", occurred_at=NOON) for n in (3, 1, 2)])
        (leg,) = await store.search("alice", [Leg(name="d", dense=axis(0))])
        assert [hit.id for hit in leg] == [number(1), number(2), number(3)]
        assert [hit.score for hit in leg] == pytest.approx([math.sqrt(1 - (n / 10) ** 2) for n in (1, 2, 3)], abs=1e-6)
        assert leg[0].payload == {"rev": 0, "source": "s1", "occurred_at": "2026-01-31T12:00:00.123456Z"}

    async def test_ties_go_by_id_and_the_limit_holds(self, store: VectorStore) -> None:
        numbers = list(range(1, 13))
        random.Random(5).shuffle(numbers)
        await store.put("alice", [point(n, dense=axis(0), lexical="green tea") for n in numbers])
        legs = await store.search("alice", [Leg(name="d", dense=axis(0), limit=5), Leg(name="w", lexical="tea", limit=5)])
        assert [[hit.id for hit in leg] for leg in legs] == [[number(n) for n in range(1, 6)]] * 2

    async def test_words_are_weighed_by_their_rarity_in_the_bank(self, store: VectorStore) -> None:
        await store.put("alice", [point(n, lexical="tea harbour") for n in range(1, 8)] + [point(8, lexical="lantern harbour")])
        await store.put("bob", [point(20 + n, lexical="lantern harbour") for n in range(60)])
        (leg,) = await store.search("alice", [Leg(name="w", lexical="tea lantern")])
        assert leg[0].id == number(8)
        assert leg[0].score > 2 * leg[1].score

    async def test_another_banks_words_change_no_score(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, lexical="green tea"), point(2, lexical="green lantern"), point(3, lexical="harbour")])
        before = await store.search("alice", [Leg(name="w", lexical="green tea")])
        await store.put("bob", [point(20 + n, lexical="green tea tea") for n in range(40)])
        after = await store.search("alice", [Leg(name="w", lexical="green tea")])
        assert [hit.id for hit in after[0]] == [hit.id for hit in before[0]] == [number(1), number(2)]
        assert [hit.score for hit in after[0]] == pytest.approx([hit.score for hit in before[0]], abs=1e-6)

    async def test_words_without_weight_find_nothing(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, lexical="the of and"), point(2, lexical=""), point(3, lexical="tea")])
        legs = [Leg(name="stop", lexical="the of"), Leg(name="empty", lexical=""), Leg(name="w", lexical="the tea")]
        assert [[hit.id for hit in leg] for leg in await store.search("alice", legs)] == [[], [], [number(3)]]

    async def test_a_leg_without_payloads_gives_the_same_order(self, store: VectorStore) -> None:
        await store.put("alice", [point(n, dense=axis(n % 3), lexical=f"tea {n}") for n in range(1, 7)])
        whole, bare = await store.search("alice", [Leg(name="x", lexical="tea"), Leg(name="x", lexical="tea", payload=False)])
        assert [(hit.id, hit.score) for hit in bare] == [(hit.id, hit.score) for hit in whole]
        assert all(hit.payload and not light.payload for hit, light in zip(whole, bare, strict=True))

    async def test_no_legs(self, store: VectorStore) -> None:
        assert await store.search("alice", []) == []

    async def test_an_empty_bank(self, store: VectorStore) -> None:
        assert await store.search("alice", [Leg(name="d", dense=axis(0)), Leg(name="w", lexical="tea")]) == [[], []]
        assert await store.scan("alice") == Page([], None)
        assert await store.count("alice") == 0
        assert await store.facet("alice", "source") == {}

    # scan, count, facet

    async def test_pages_by_id(self, store: VectorStore) -> None:
        await store.put("alice", [point(n, state="live" if n % 2 else "gone") for n in range(1, 24)])
        assert await every_id(store, "alice", limit=5) == [number(n) for n in range(1, 24)]
        page = await store.scan("alice", [Equals("state", "live")], limit=12)
        assert ([it.id for it in page.points], page.after) == ([number(n) for n in range(1, 24, 2)], None)

    async def test_paging_under_writes_misses_nothing_that_stays(self, store: VectorStore) -> None:
        await store.put("alice", [point(n) for n in range(1, 31)])
        seen: list[str] = []
        after: str | None = None
        while True:
            page = await store.scan("alice", after=after, limit=5)
            seen += [it.id for it in page.points]
            await store.delete("alice", [it.id for it in page.points[:3]] + ([page.after] if page.after else []))
            await store.put("alice", [point(100 + len(seen))])
            after = page.after
            if after is None or len(seen) > 60:
                break
        assert len(set(seen)) == len(seen)
        assert set(await every_id(store, "alice")) & {number(n) for n in range(1, 31)} <= set(seen)

    async def test_deleting_what_was_collected_with_a_cursor_leaves_nothing(self, store: VectorStore) -> None:
        points = [point(n, evidence=["m1" if n <= 450 else "m2", f"x{n % 7}"]) for n in range(1, 501)]
        await store.put("alice", points)
        rests = [AnyOf("evidence", ("m1",))]
        ids = await every_id(store, "alice", rests, limit=200)
        assert len(ids) == 450
        assert await store.delete("alice", ids) == 450
        assert await store.count("alice", rests) == 0
        assert await every_id(store, "alice") == [number(n) for n in range(451, 501)]

    async def test_pages_by_a_field(self, store: VectorStore) -> None:
        times = {1: NOON, 2: NOON + timedelta(microseconds=1), 3: NOON - timedelta(days=1), 5: NOON}
        await store.put("alice", [point(n, occurred_at=at, confidence=n / 10) for n, at in times.items()] + [point(4)])
        newest = await store.scan("alice", order_by="occurred_at", descending=True)
        oldest = await store.scan("alice", order_by="occurred_at", limit=1)
        surest = await store.scan("alice", [Not(Ids((number(5),)))], order_by="confidence", descending=True)
        assert ([it.id for it in newest.points], newest.after) == ([number(n) for n in (2, 1, 5, 3)], None)
        assert ([it.id for it in oldest.points], oldest.after) == ([number(3)], None)
        assert [it.id for it in surest.points] == [number(n) for n in (3, 2, 1)]

    async def test_tenants_are_counted_across_banks(self, store: VectorStore) -> None:
        assert await store.tenants([Equals("state", "live")]) == {}
        await store.put("alice", [point(n, state="live" if n % 2 else "gone") for n in range(1, 6)])
        await store.put("bob", [point(n, state="gone") for n in (11, 12)])
        assert await store.tenants([Equals("state", "live")]) == {"alice": 3}
        assert await store.tenants([AnyOf("state", ("live", "gone"))]) == {"alice": 5, "bob": 2}
        assert await store.tenants([AnyOf("state", ())]) == {}

    async def test_facet_counts_points_for_each_value(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, tags=["a", "b"]), point(2, tags=["b"]), point(3, tags=[]), point(4)])
        assert await store.facet("alice", "tags") == {"b": 2, "a": 1}
        assert await store.facet("alice", "tags", limit=1) == {"b": 2}
        assert await store.facet("alice", "tags", [Equals("tags", "a")]) == {"a": 1, "b": 1}

    # life

    async def test_ensure_can_be_repeated_and_refuses_another_embedder(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, state="live")])
        await store.ensure(SPECS[0])
        assert await store.count("alice", [Equals("state", "live")]) == 1
        other = {"name": "memories", **FIELDS}
        with pytest.raises(WrongEmbedder, match="contract-embedder"):
            await store.ensure(CollectionSpec(dimension=DIMENSION, embedder="other", **other))  # type: ignore[arg-type]
        with pytest.raises(WrongEmbedder, match="contract-embedder"):
            await store.ensure(CollectionSpec(dimension=4, embedder="contract-embedder", **other))  # type: ignore[arg-type]
        assert await store.count("alice") == 1

    async def test_ensure_adds_a_field(self, store: VectorStore) -> None:
        await store.put("alice", [point(1, speaker="Ada")])
        wider = {**FIELDS, "keywords": (*FIELDS["keywords"], "speaker")}
        await store.ensure(CollectionSpec(name="memories", dimension=DIMENSION, embedder="contract-embedder", **wider))
        assert await store.count("alice", [Equals("speaker", "Ada")]) == 1

    async def test_a_barrier_returns(self, store: VectorStore) -> None:
        await store.flush()
        await store.put("alice", [point(1)])
        await store.flush()
        assert await store.count("alice") == 1

    async def test_it_describes_itself(self, storage: Storage) -> None:
        told = await storage.describe()
        assert told["store"]
        assert told["where"]

    async def test_a_closed_store_refuses(self, storage: Storage) -> None:
        await storage.close()
        await storage.close()
        with pytest.raises(ConsolidatorError):
            await storage.memories.count("alice")
        with pytest.raises(ConsolidatorError):
            await storage.observations.put("alice", [point(1)])
