"""One of several processes that measure the same: `python -m tests.contract.score_racer URL ROUNDS`; prints how many it kept."""

from __future__ import annotations

import asyncio
import sys

from consolidator.testing.ledger_contract import BANK
from consolidator.testing.ledger_scores_contract import measured, score, transcript
from consolidator_providers.ledger import open_ledger


async def race(url: str, rounds: int) -> int:
    ledger, kept = await open_ledger(url=url), 0
    for n in range(rounds):
        await ledger.keep_transcript(BANK, transcript("t1", "m1", turns=n + 2, closed=False))
        kept += len(await measured(ledger, score("m1", "m2", response=f"t1/{n}"), score("m2", response=f"t2/{n}")))
    await ledger.close()
    return kept


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(race(sys.argv[1], int(sys.argv[2])))))
