"""One of several processes that change the same rows of a ledger: `python -m tests.contract.ledger_racer URL OWNER ROUNDS`."""

from __future__ import annotations

import asyncio
import sys

from consolidator.plans import Lease, Spent
from consolidator.testing.ledger_contract import AT, BANK, change, intent, observation
from consolidator.testing.ledger_queue_contract import counted
from consolidator_providers.ledger import SqlLedger, open_ledger


async def race(url: str, owner: str, rounds: int) -> None:
    ledger = await open_ledger(url=url)
    for n in range(rounds):
        await ledger.wake(BANK, new=1, delay=2, at_most=30, batch=8)
        await ledger.breaker("endpoint", counted)
        await ledger.spend(BANK, "2026-06-01", Spent(calls=1))
        await ledger.attempt_failed(BANK, ["m1"], reason="fault", reply="", park_after=5, at=AT)
        lease = await _turn(ledger, owner)
        await _revise(ledger, lease, f"{owner} {n}")
        await ledger.release(lease)
    await ledger.close()


async def _turn(ledger: SqlLedger, owner: str) -> Lease:
    while (lease := await ledger.claim(BANK, owner, 60)) is None:  # noqa: ASYNC110 (another process holds it)
        await asyncio.sleep(0.002)
    return lease


async def _revise(ledger: SqlLedger, lease: Lease, name: str) -> None:
    rev = next((h.observation.rev for h in await ledger.histories(BANK, ["o1"])), None)
    after = observation(rev=0 if rev is None else rev + 1, version=1 if rev is None else rev + 2)
    await ledger.commit(intent(name, change(after, base_rev=rev)), lease)
    await ledger.mark_applied(name)


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], sys.argv[2], int(sys.argv[3])))
