"""What every ledger's queue, leases and counts must do. Subclass it and give it the fixtures `ledger` and `later`.

later: moves the ledger's clock on by so many seconds.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from consolidator.errors import LeaseLost
from consolidator.plans import Breaker, Lease, Spent, Standing
from consolidator.ports import Ledger
from consolidator.testing.ledger_contract import AT, BANK, change, entry, intent, observation, receipt, refused

Later = Callable[[float], None]
DAY = "2026-06-01"


def near(found: float | None, expected: float) -> bool:
    """Times of a clock that runs, on a machine that does other things too: half a second, or a twentieth, does not matter."""
    return found is not None and abs(found - expected) < max(0.5, expected / 20)


def due(standing: Standing) -> bool:
    return standing.due_in is not None and standing.due_in <= 0


async def wake(ledger: Ledger, bank: str = BANK, **told: Any) -> Standing:
    await ledger.wake(bank, **{"new": 1, "delay": 2.0, "at_most": 30.0, "batch": 8, **told})
    return await ledger.standing(bank)


async def claimed(ledger: Ledger, owner: str = "one", *, bank: str = BANK, seconds: float = 60) -> Lease:
    lease = await ledger.claim(bank, owner, seconds)
    assert lease is not None
    return lease


def counted(before: Breaker, now: float) -> Breaker:
    return before.model_copy(update={"rest": before.rest + 1})


class LedgerQueueContract:
    """Wakes, claims, heartbeats, postponement, pauses; breakers, budgets, parked work, what recall gave out."""

    async def test_a_bank_that_nobody_knows_is_asked_nothing(self, ledger: Ledger) -> None:
        assert await ledger.standing("nobody") == Standing(bank="nobody")
        assert await ledger.queue() == []

    async def test_wakes_are_gathered_never_later_and_never_earlier(self, ledger: Ledger, later: Later) -> None:
        assert near((await wake(ledger)).due_in, 2)
        later(1)
        second = await wake(ledger)
        assert near(second.due_in, 1)
        assert not due(second)
        assert second.waiting == 2
        later(1)
        assert due((await ledger.queue())[0])

    async def test_a_pass_is_put_off_for_so_long_and_no_longer(self, ledger: Ledger, later: Later) -> None:
        assert near((await wake(ledger, delay=100.0)).due_in, 30)
        later(20)
        assert near((await wake(ledger, delay=100.0)).due_in, 10)
        assert near((await wake(ledger, delay=0.0)).due_in, 0)

    async def test_a_full_batch_is_due_at_once(self, ledger: Ledger) -> None:
        assert not due(await wake(ledger, new=7))
        full = await wake(ledger, new=1)
        assert due(full)
        assert full.waiting == 8

    async def test_due_banks_come_by_priority_and_the_others_by_time(self, ledger: Ledger, later: Later) -> None:
        for bank, delay, priority in (("c", 1, 9), ("a", 0, 5), ("b", 0.5, 5), ("d", 2, 0)):
            await wake(ledger, bank, delay=float(delay), priority=priority)
        await wake(ledger, "soon", delay=20.0)
        await wake(ledger, "sooner", delay=10.0, priority=9)
        await ledger.bank_key("never asked for")
        later(3)
        order = ["d", "a", "b", "c", "sooner", "soon"]
        assert [s.bank for s in await ledger.queue()] == order
        assert [s.bank for s in await ledger.queue(3)] == order[:3]

    async def test_the_most_urgent_priority_counts_until_the_pass(self, ledger: Ledger) -> None:
        await wake(ledger, priority=7)
        await wake(ledger, priority=0)
        assert (await wake(ledger, priority=5)).priority == 0
        lease = await claimed(ledger)
        await ledger.finish(lease, more=False)
        assert (await wake(ledger, priority=7)).priority == 7

    async def test_a_pass_that_ended_well_leaves_nothing_to_do(self, ledger: Ledger) -> None:
        await wake(ledger, new=3)
        lease = await claimed(ledger)
        await ledger.finish(lease, more=False)
        await ledger.release(lease)
        standing = await ledger.standing(BANK)
        assert (standing.due_in, standing.waiting, standing.holder) == (None, 0, None)
        assert await ledger.queue() == []

    async def test_a_pass_that_found_more_is_followed_at_once(self, ledger: Ledger) -> None:
        await wake(ledger, new=3)
        lease = await claimed(ledger)
        await ledger.finish(lease, more=True)
        await ledger.release(lease)
        (standing,) = await ledger.queue()
        assert due(standing)
        assert standing.waiting == 3

    async def test_a_wake_during_a_pass_is_not_lost_and_waits_as_it_asked_for(self, ledger: Ledger, later: Later) -> None:
        for new in (2, 0):
            await wake(ledger, new=3)
            later(10)
            lease = await claimed(ledger)
            later(5)
            await wake(ledger, new=new, priority=1)
            await ledger.finish(lease, more=False)
            await ledger.release(lease)
            (standing,) = await ledger.queue()
            assert near(standing.due_in, 2)
            assert (standing.waiting, standing.priority) == (new, 1)
            await ledger.finish(await claimed(ledger), more=False)
            assert await ledger.queue() == []

    async def test_a_full_batch_during_a_pass_is_due_when_it_ends(self, ledger: Ledger) -> None:
        await wake(ledger, new=8)
        lease = await claimed(ledger)
        await wake(ledger, new=8)
        await ledger.finish(lease, more=False)
        await ledger.release(lease)
        assert due(await ledger.standing(BANK))

    async def test_an_owner_that_dies_leaves_the_bank_asked_for(self, ledger: Ledger, later: Later) -> None:
        await wake(ledger)
        await claimed(ledger, seconds=60)
        (held,) = await ledger.queue()
        assert near(held.due_in, 60)
        assert held.holder == "one"
        assert near(held.lease_left, 60)
        later(61)
        (left,) = await ledger.queue()
        assert due(left)
        assert (left.holder, left.lease_left, left.waiting) == (None, 0.0, 1)

    async def test_what_is_due_comes_before_what_is_held(self, ledger: Ledger, later: Later) -> None:
        await wake(ledger, "held", priority=0)
        await wake(ledger, "free", priority=9)
        later(3)
        await claimed(ledger, bank="held")
        assert [s.bank for s in await ledger.queue()] == ["free", "held"]

    async def test_a_lost_lease_ends_no_pass(self, ledger: Ledger) -> None:
        await wake(ledger)
        lost = await claimed(ledger, seconds=-1)
        lease = await claimed(ledger, "two")
        await ledger.finish(lost, more=False)
        await ledger.postpone(lost, 100, "late", attempt=True)
        await ledger.release(lost)
        standing = await ledger.standing(BANK)
        assert (standing.holder, standing.attempts, standing.last_error, standing.waiting) == ("two", 0, None, 1)
        await refused(LeaseLost, ledger.reading(lost, ["m1"]))
        await ledger.reading(lease, ["m1"])

    async def test_what_was_put_off_is_not_due_before_whatever_wakes_it(self, ledger: Ledger, later: Later) -> None:
        await wake(ledger)
        lease = await claimed(ledger)
        await ledger.postpone(lease, 100, "the model is down", attempt=True)
        await ledger.release(lease)
        standing = await wake(ledger, new=50, delay=0.0, priority=0)
        assert near(standing.due_in, 100)
        assert (standing.attempts, standing.last_error) == (1, "the model is down")
        later(100)
        assert due(await ledger.standing(BANK))
        assert due(await wake(ledger, delay=20.0))

    async def test_failures_are_counted_until_a_pass_ends_well(self, ledger: Ledger) -> None:
        lease = await claimed(ledger)
        await ledger.postpone(lease, 5, "one", attempt=True)
        await ledger.postpone(lease, 5, "two\0", attempt=True)
        await ledger.postpone(lease, 100, "rests until midnight", attempt=False)
        standing = await ledger.standing(BANK)
        assert (standing.attempts, standing.last_error) == (2, "rests until midnight")
        await ledger.finish(lease, more=True)
        standing = await ledger.standing(BANK)
        assert (standing.attempts, standing.last_error) == (0, None)
        await ledger.release(lease)
        assert due((await ledger.queue())[0])  # and what was put off before holds no longer

    async def test_a_paused_bank_waits_for_a_person(self, ledger: Ledger) -> None:
        await wake(ledger)
        await ledger.pause(BANK, "too many deletions")
        paused = await wake(ledger, new=50)
        assert paused.paused == "too many deletions"
        assert await ledger.queue() == []
        await ledger.pause(BANK, None)
        (standing,) = await ledger.queue()
        assert due(standing)
        assert standing.paused is None

    async def test_lifting_a_pause_makes_due_what_was_put_off_or_never_asked_for(self, ledger: Ledger) -> None:
        await ledger.postpone(await claimed(ledger), 1000, "down", attempt=True)
        for bank in (BANK, "bob"):
            await ledger.pause(bank, "asked to")
            await ledger.pause(bank, None)
            standing = await ledger.standing(bank)
            assert near(standing.due_in, standing.lease_left)

    async def test_what_a_dead_owner_was_reading_is_told(self, ledger: Ledger, later: Later) -> None:
        dead = await claimed(ledger)
        assert dead.reading == ()
        await ledger.reading(dead, ["m2", "m1"])
        later(61)
        assert (await claimed(ledger, "two", seconds=-1)).reading == ("m2", "m1")
        lease = await claimed(ledger, "three")
        assert lease.reading == ("m2", "m1")  # nobody has said yet that it was dealt with
        await ledger.reading(lease, [])
        assert (await claimed(ledger, "three")).reading == ()

    async def test_who_ended_in_order_was_reading_nothing(self, ledger: Ledger) -> None:
        lease = await claimed(ledger)
        await ledger.reading(lease, ["m1"])
        await ledger.release(lease)
        lease = await claimed(ledger, "two", seconds=-1)
        assert lease.reading == ()
        await ledger.reading(lease, ["m1"])
        await ledger.finish(lease, more=False)
        assert (await claimed(ledger, "three")).reading == ()

    async def test_a_heartbeat_outlives_a_blocked_event_loop(self, ledger: Ledger) -> None:
        lost = threading.Event()
        lease = await claimed(ledger, seconds=1.5)
        with ledger.beating(lease, 1.5, lost.set):
            _block(1.9)
            assert await ledger.claim(BANK, "two", 60) is None
        assert not lost.is_set()

    async def test_who_is_taken_over_is_told_once(self, ledger: Ledger) -> None:
        calls: list[str] = []
        told, other_told = threading.Event(), threading.Event()

        def lost() -> None:
            calls.append(threading.current_thread().name)
            told.set()
            raise RuntimeError("a callback's fault must not stop the heartbeats")

        lease, other = await claimed(ledger), await claimed(ledger, bank="bob")
        with ledger.beating(lease, 0.2, lost), ledger.beating(other, 0.2, other_told.set):
            await ledger.release(lease)
            await claimed(ledger, "two")
            assert await asyncio.to_thread(told.wait, 10)
            assert not other_told.is_set()
            await ledger.release(other)
            await claimed(ledger, "two", bank="bob")
            assert await asyncio.to_thread(other_told.wait, 10)
        assert len(calls) == 1
        assert calls[0] != threading.current_thread().name

    async def test_after_its_end_a_heartbeat_says_nothing(self, ledger: Ledger) -> None:
        calls: list[int] = []
        for n in range(3):
            lease = await claimed(ledger, seconds=0.2)
            with ledger.beating(lease, 0.2, lambda n=n: calls.append(n)):  # type: ignore[misc]
                pass
            await ledger.release(lease)
        _block(0.2)
        assert calls == []

    async def test_an_endpoints_breaker_is_changed_by_one_at_a_time(self, ledger: Ledger, later: Later) -> None:
        made = await asyncio.gather(*(ledger.breaker("server/model", counted) for _ in range(8)))
        assert sorted(breaker.rest for breaker, _ in made) == [float(n) for n in range(1, 9)]
        at = max(now for _, now in made)
        later(50)
        full = Breaker(endpoint="server/model", recent=(True, False), open_until=at + 30, probing="me", reason="down")
        kept, now = await ledger.breaker("server/model", lambda before, now: full)
        assert kept == full
        assert near(now - at, 50)
        assert (await ledger.breaker("server/model", lambda before, now: before))[0] == full
        assert (await ledger.breaker("another", lambda before, now: before))[0] == Breaker(endpoint="another")

    async def test_what_calls_cost_is_added_up(self, ledger: Ledger) -> None:
        cost = Spent(calls=1, prompt_tokens=100, reply_tokens=10)
        await asyncio.gather(*(ledger.spend(BANK, DAY, cost) for _ in range(8)))
        await ledger.spend(BANK, "2026-06-02", cost)
        await ledger.spend("bob", DAY, cost)
        assert await ledger.spent_on(BANK, DAY) == Spent(calls=8, prompt_tokens=800, reply_tokens=80)
        assert await ledger.spent_on(BANK, "2026-06-03") == Spent()
        told = await ledger.spent(BANK)
        assert (told["calls"], told["prompt_tokens"], told["reply_tokens"], told["passes"]) == (9, 900, 90, 0)

    async def test_the_newest_texts_that_were_handed_out_are_known(self, ledger: Ledger) -> None:
        await ledger.hand_out(BANK, ["a", "b", "c"], AT, keep=3)
        await ledger.hand_out(BANK, ["a", "d", "d"], AT, keep=3)
        assert await ledger.handed_out(BANK, ["a", "b", "c", "d", "e"]) == {"a", "c", "d"}
        await ledger.hand_out(BANK, ["v", "w", "x", "y"], AT, keep=3)
        assert await ledger.handed_out(BANK, ["a", "v", "w", "x", "y"]) == {"w", "x", "y"}
        assert await ledger.handed_out("bob", ["w"]) == set()
        assert await ledger.handed_out(BANK, []) == set()

    async def test_many_hand_out_at_once(self, ledger: Ledger) -> None:
        digests = [f"d{n}" for n in range(4)]
        await asyncio.gather(*(ledger.hand_out(BANK, digests[n % 4 :] + digests[: n % 4], AT, keep=4) for n in range(8)))
        assert await ledger.handed_out(BANK, digests) == set(digests)

    async def test_an_erased_text_is_not_known_as_handed_out(self, ledger: Ledger) -> None:
        await ledger.hand_out(BANK, ["gone", "stays"], AT, keep=10)
        await ledger.entomb(receipt("r1", "m1"), ["m1"])
        await ledger.settle(receipt("r1", "m1", state="settled").model_copy(update={"digests": ("gone",)}))
        assert await ledger.handed_out(BANK, ["gone", "stays"]) == {"stays"}

    async def test_held_memories_stay_until_they_are_cleared(self, ledger: Ledger) -> None:
        await ledger.attempt_failed(BANK, ["m2"], reason="fault", reply="raw", park_after=1, at=AT)
        await ledger.hold(BANK, ["m1", "m2"], reason="a link with an order\0", at=AT + timedelta(minutes=1))
        rows = await ledger.parked(BANK)
        assert [(row.memory_id, row.state, row.attempts) for row in rows] == [("m2", "held", 1), ("m1", "held", 0)]
        assert [(row.first_at, row.last_at) for row in rows] == [
            (AT, AT + timedelta(minutes=1)), (AT + timedelta(minutes=1), AT + timedelta(minutes=1)),
        ]
        assert await ledger.parked("bob") == []
        await ledger.attempts_cleared(BANK, ["m1", "m2"])
        assert await ledger.parked(BANK) == []

    async def test_deletions_are_counted_from_a_time_on(self, ledger: Ledger) -> None:
        acts = [("deleted", 0), ("deleted", 2), ("merged", 3), ("created", 3), ("rolled_back", 3)]
        rows = tuple(entry(action=action, at=AT + timedelta(hours=hour)) for action, hour in acts)
        await ledger.commit(intent("i1", entries=rows), await claimed(ledger))
        assert await ledger.deleted_since(BANK, AT + timedelta(hours=1)) == 1
        assert await ledger.deleted_since(BANK, AT) == 2
        assert await ledger.deleted_since("bob", AT) == 0

    async def test_the_whole_of_a_bank_is_read_as_plain_rows_without_its_key(self, ledger: Ledger) -> None:
        marks = ({"memory_id": "m1", "rev": 0, "state": "done"},)
        lease = await claimed(ledger)
        told = (entry(observation_id="o1", version=1, after="Alice likes tea.", cites=("m1",), shown=("m2",)),)
        await ledger.commit(intent("i1", change(observation(contests="o0")), marks=marks, entries=told), lease)
        await ledger.spend(BANK, DAY, Spent(calls=1))
        await ledger.claim("bob", "one", 60)
        rows = await ledger.dump(BANK)
        assert json.loads(json.dumps(rows)) == rows
        filled = {"bank", "intent", "use", "observation", "evidence", "version", "lineage", "journal", "cites", "spend"}
        assert {table for table, found in rows.items() if found} == filled
        assert {row["bank"] for table in ("intent", "observation", "journal", "spend") for row in rows[table]} == {BANK}
        (bank,), (head,), (version,) = rows["bank"], rows["observation"], rows["version"]
        assert (bank["id"], bank["token"], head["contests"], version["text"]) == (BANK, lease.token, "o0", "Alice likes tea.")
        assert not {"key", "vector"} & {*bank, *version}
        assert [(row["memory"], row["role"]) for row in rows["cites"]] == [("m1", "cited"), ("m2", "shown")]
        assert not [table for table, found in (await ledger.dump("nobody")).items() if found]


def _block(seconds: float) -> None:
    """What a long computation does to an event loop."""
    time.sleep(seconds)
