"""What every ledger must do. Subclass it and give it a fixture `ledger`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from consolidator.errors import Conflict, ConsolidatorError, ErasedMeanwhile, LeaseLost, StaleVersion
from consolidator.models import Evidence, MemoryState, Observation, ObservationState, Receipt, Version
from consolidator.plans import Change, Entry, Intent, Lease, MemoryMark
from consolidator.ports import Ledger

AT = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
BANK = "alice"


def observation(id: str = "o1", *, text: str = "Alice likes tea.", cites: Sequence[str] = ("m1",), **fields: Any) -> Observation:
    version = fields.get("version", 1)
    evidence = tuple(Evidence(memory_id=m, source=f"source of {m}", occurred_at=AT, since_version=version) for m in cites)
    told = {"id": id, "bank": BANK, "text": text, "evidence": evidence, "created_at": AT, "updated_at": AT, **fields}
    return Observation.model_validate(told)


def change(after: Observation, *, base_rev: int | None = None, lineage: Sequence[str] = ("m1",), **fields: Any) -> Change:
    told = {"number": after.version, "text": after.text, "state": after.state, "confidence": after.confidence}
    version = Version(observation_id=after.id, digest="d", lineage=frozenset(lineage), at=AT, by="test", **told, **fields)
    return Change(after=after, base_rev=base_rev, version=version, vector=[0.5, -0.25], lineage=frozenset(lineage))


def intent(id: str = "i1", *changes: Change, **fields: Any) -> Intent:
    return Intent.model_validate({"id": id, "bank": BANK, "kind": "consolidate", "created_at": AT, "changes": changes, **fields})


def entry(intent: str = "i1", **fields: Any) -> Entry:
    told = {"bank": BANK, "intent": intent, "at": AT, "action": "created", "digest": "d", "by": "test"}
    return Entry.model_validate({**told, **fields})


def receipt(id: str = "r1", *memories: str, state: str = "accepted") -> Receipt:
    return Receipt.model_validate({"id": id, "bank": BANK, "asked": {}, "at": AT, "state": state, "memories": memories})


async def refused(error: type[ConsolidatorError], work: Any) -> None:
    try:
        await work
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected")


class LedgerContract:
    """Leases, plans, versions, journal, tombstones, parked work."""

    async def held(self, ledger: Ledger, owner: str = "one") -> Lease:
        lease = await ledger.claim(BANK, owner, 60)
        assert lease is not None
        return lease

    async def learn(self, ledger: Ledger, *changes: Change, id: str = "i1", **fields: Any) -> Lease:
        lease = await self.held(ledger)
        await ledger.commit(intent(id, *changes, **fields), lease)
        await ledger.mark_applied(id)
        return lease

    async def test_a_bank_keeps_its_key(self, ledger: Ledger) -> None:
        key = await ledger.bank_key(BANK)
        assert len(key) == 32
        assert await ledger.bank_key(BANK) == key
        assert await ledger.bank_key("bob") != key
        assert await ledger.banks() == ["alice", "bob"]

    async def test_a_bank_that_many_meet_first_has_one_key(self, ledger: Ledger) -> None:
        leases = await asyncio.gather(*(ledger.claim(BANK, f"owner {n}", 60) for n in range(8)))
        assert sum(lease is not None for lease in leases) == 1
        assert await ledger.banks() == [BANK]

    async def test_one_owner_holds_a_bank(self, ledger: Ledger) -> None:
        first = await self.held(ledger)
        assert await ledger.claim(BANK, "other", 60) is None
        assert await ledger.renew(first, 60)
        await ledger.release(first)
        second = await self.held(ledger, "other")
        assert second.token > first.token
        assert not await ledger.renew(first, 60)

    async def test_a_lease_that_ran_out_can_be_taken(self, ledger: Ledger) -> None:
        first = await ledger.claim(BANK, "one", -1)
        assert first is not None
        second = await self.held(ledger, "other")
        assert second.token > first.token

    async def test_an_old_token_commits_nothing(self, ledger: Ledger) -> None:
        first = await ledger.claim(BANK, "one", -1)
        assert first is not None
        await self.held(ledger, "other")
        await refused(LeaseLost, ledger.commit(intent("i1", change(observation())), first))
        assert await ledger.histories(BANK, ["o1"]) == []
        assert await ledger.unfinished(BANK) == []

    async def test_a_plan_is_read_back_whole_until_it_is_closed(self, ledger: Ledger) -> None:
        lease = await self.held(ledger)
        marks = (MemoryMark(memory_id="m1", rev=0, state=MemoryState.DONE),)
        spent = {"calls": 2, "prompt_tokens": 10, "reply_tokens": 5}
        plan = intent("i1", change(observation()), marks=marks, entries=(entry(),), by="model", **spent)
        await ledger.commit(plan, lease)
        assert await ledger.unfinished(BANK) == [plan]
        await ledger.mark_applied("i1")
        assert await ledger.unfinished(BANK) == [plan]  # applied is not yet on disk
        assert await ledger.close_applied(BANK) == 1
        assert await ledger.unfinished(BANK) == []
        told = await ledger.spent(BANK)
        assert (told["passes"], told["calls"], told["open_plans"]) == (1, 0, 0)  # what it cost is told apart, failures too

    async def test_at_most_one_plan_of_a_bank_is_open(self, ledger: Ledger) -> None:
        lease = await self.held(ledger)
        await ledger.commit(intent("i1"), lease)
        await refused(Conflict, ledger.commit(intent("i2"), lease))
        await ledger.mark_applied("i1")
        await ledger.commit(intent("i2"), lease)

    async def test_a_memorys_revision_is_consumed_once(self, ledger: Ledger) -> None:
        marks = (MemoryMark(memory_id="m1", rev=0, state=MemoryState.DONE),)
        lease = await self.learn(ledger, marks=marks)
        await refused(Conflict, ledger.commit(intent("i2", change(observation()), marks=marks), lease))
        assert await ledger.histories(BANK, ["o1"]) == []
        again = (MemoryMark(memory_id="m1", rev=1, state=MemoryState.DONE),)
        await ledger.commit(intent("i3", marks=again), lease)

    async def test_a_head_moves_from_its_base_alone(self, ledger: Ledger) -> None:
        lease = await self.learn(ledger, change(observation()))
        await refused(StaleVersion, ledger.commit(intent("i2", change(observation())), lease))
        newer = observation(text="Alice likes green tea.", version=2, rev=1, cites=("m1", "m2"))
        await refused(StaleVersion, ledger.commit(intent("i3", change(newer, base_rev=5)), lease))
        await ledger.commit(intent("i4", change(newer, base_rev=0, lineage=("m1", "m2"))), lease)
        (history,) = await ledger.histories(BANK, ["o1"])
        head = history.observation
        assert (head.rev, head.version, head.state) == (1, 2, ObservationState.LIVE)

    async def test_a_history_is_read_as_it_was_written(self, ledger: Ledger) -> None:
        told = observation(tags=frozenset({"b", "a"}), confidence=0.25, contests="o0")
        await self.learn(ledger, change(told, why=frozenset({"m9"})))
        (history,) = await ledger.histories(BANK, ["o1", "unknown"])
        assert history.observation == told
        (version,) = history.versions
        assert (version.lineage, version.why, version.at, version.by) == (frozenset({"m1"}), frozenset({"m9"}), AT, "test")
        assert history.vectors == {1: [0.5, -0.25]}

    async def test_what_rests_on_a_memory(self, ledger: Ledger) -> None:
        await self.learn(
            ledger, change(observation("o1")), change(observation("o2", cites=("m2",)), lineage=("m1", "m2")),
            change(observation("o3", cites=("m3",)), lineage=("m3",), why=frozenset({"m1"})),
            change(observation("o4", cites=("m4",)), lineage=("m4",)),
        )
        assert await ledger.resting_on(BANK, ["m1"]) == ["o1", "o2", "o3"]
        assert await ledger.resting_on(BANK, []) == []
        assert await ledger.resting_on("bob", ["m1"]) == []

    async def test_the_journal_is_in_order_and_by_observation(self, ledger: Ledger) -> None:
        rows = [entry(observation_id=f"o{n % 2}", version=n, after=f"text {n}", cites=(f"m{n}", "m0")) for n in range(1, 5)]
        await self.learn(ledger, entries=tuple(rows))
        assert [e.after for e in await ledger.journal(BANK)] == [f"text {n}" for n in range(1, 5)]
        assert [e.after for e in await ledger.journal(BANK, observation_id="o1")] == ["text 1", "text 3"]
        (newest,) = await ledger.journal(BANK, limit=1)
        assert (newest.after, newest.cites, newest.at) == ("text 4", ("m0", "m4"), AT)
        assert await ledger.journal("bob") == []

    async def test_tombstones(self, ledger: Ledger) -> None:
        await ledger.entomb(receipt("r1", "m1", "m2"), ["m1", "m2"])
        assert [(s.memory_id, s.open) for s in await ledger.tombstones(BANK, ids=["m2", "m3"])] == [("m2", True)]
        assert [r.id for r in await ledger.receipts(BANK, accepted_only=True)] == ["r1"]
        assert await ledger.tombstones("bob", open_only=True) == []
        await ledger.settle(receipt("r1", "m1", "m2", state="settled"))
        assert await ledger.tombstones(BANK, open_only=True) == []
        assert len(await ledger.tombstones(BANK)) == 2
        assert await ledger.receipts(BANK, accepted_only=True) == []
        assert [r.state for r in await ledger.receipts(BANK)] == ["settled"]

    async def test_two_erasures_of_one_memory_share_its_tombstone(self, ledger: Ledger) -> None:
        names = [f"r{n}" for n in range(4)]
        await asyncio.gather(*(ledger.entomb(receipt(name, "m1", "m2"), ["m1", "m2", "m1"]) for name in names))
        assert [s.memory_id for s in await ledger.tombstones(BANK)] == ["m1", "m2"]
        assert sorted(r.id for r in await ledger.receipts(BANK, accepted_only=True)) == names

    async def test_a_plan_that_read_an_erased_memory_is_refused(self, ledger: Ledger) -> None:
        lease = await self.held(ledger)
        await ledger.entomb(receipt("r1", "m1"), ["m1"])
        await refused(ErasedMeanwhile, ledger.commit(intent("i1", change(observation()), shown=("m1", "m2")), lease))
        assert await ledger.histories(BANK, ["o1"]) == []
        await ledger.commit(intent("i2", shown=("m1",), kind="forget"), lease)

    async def test_scrubbing_takes_the_texts_and_leaves_the_digests(self, ledger: Ledger) -> None:
        first = (entry(observation_id="o1", version=1, after="Alice was ill.", reason="she said so", cites=("m1",)),)
        lease = await self.learn(ledger, change(observation(text="Alice was ill.")), entries=first)
        later = observation(text="Alice likes tea.", version=2, rev=1, cites=("m2",))
        told = (entry("i2", observation_id="o1", version=2, before="Alice was ill.", after="Alice likes tea.", cites=("m2",)),)
        await ledger.commit(intent("i2", change(later, base_rev=0, lineage=("m2",)), entries=told), lease)
        await ledger.mark_applied("i2")
        await ledger.close_applied(BANK)
        clean = later.model_copy(update={"rev": 2})
        scrubbing = Change(after=clean, base_rev=1, purge=(1,), vector=[0.5, -0.25])
        assert await ledger.commit(intent("i3", scrubbing, kind="forget", erased=("m1",)), lease) == 1
        await ledger.mark_applied("i3")
        await ledger.close_applied(BANK)
        (history,) = await ledger.histories(BANK, ["o1"])
        assert [(v.text, v.digest) for v in history.versions] == [(None, "d"), ("Alice likes tea.", "d")]
        assert [(e.before, e.after, e.digest) for e in await ledger.journal(BANK)] == [
            (None, None, "d"), (None, "Alice likes tea.", "d"),
        ]
        assert not [text for _, text in await ledger.texts(BANK) if "ill" in text or "m1" in text]
        assert await ledger.resting_on(BANK, ["m1"]) == []

    async def test_an_erased_observation_has_no_history(self, ledger: Ledger) -> None:
        lease = await self.learn(ledger, change(observation()))
        husk = observation(text="", state=ObservationState.ERASED, rev=1, cites=())
        await ledger.commit(intent("i2", Change(after=husk, base_rev=0, purge=(1,)), kind="forget", erased=("m1",)), lease)
        assert await ledger.histories(BANK, ["o1"]) == []

    async def test_failures_are_counted_until_a_memory_is_parked(self, ledger: Ledger) -> None:
        for n in range(3):
            (row,) = await ledger.attempt_failed(
                BANK, ["m1"], reason=f"fault {n}", reply="raw", park_after=3, at=AT + timedelta(minutes=n)
            )
            assert (row.attempts, row.state) == (n + 1, "parked" if n == 2 else "trying")
        (kept,) = await ledger.parked(BANK)
        assert (kept.reason, kept.reply, kept.first_at, kept.last_at) == ("fault 2", "raw", AT, AT + timedelta(minutes=2))
        await asyncio.gather(*(
            ledger.attempt_failed(BANK, ids, reason="NUL \0, half a pair \ud800", reply="\0", park_after=9, at=AT)
            for ids in (["m1", "m2"], ["m2", "m1"])
        ))
        assert [(row.memory_id, row.attempts) for row in await ledger.parked(BANK)] == [("m1", 5), ("m2", 2)]
        await ledger.attempts_cleared(BANK, ["m1", "m2"])
        assert await ledger.parked(BANK) == []

    async def test_nothing_crosses_banks(self, ledger: Ledger) -> None:
        await self.learn(ledger, change(observation()), entries=(entry(after="text"),))
        assert await ledger.histories("bob", ["o1"]) == []
        assert await ledger.texts("bob") == []
        assert (await ledger.spent("bob"))["passes"] == 0
