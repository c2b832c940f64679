"""The right to change a bank: a lease with a fencing token, kept alive by a thread while it is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from consolidator.errors import Conflict, LeaseLost
from consolidator.parts import Parts
from consolidator.plans import Lease

WAIT_SECONDS = 10.0
POLL_SECONDS = 0.2


@asynccontextmanager
async def lease_on(
    parts: Parts, bank: str, *, seconds: float, wait: float = WAIT_SECONDS, over: Sequence[str] = ()
) -> AsyncIterator[Lease]:
    """Hold the bank while its observations change. over: taken from whoever shows one of these memories to a model.

    Raises Conflict when another owner keeps it for longer than `wait` seconds; LeaseLost, at the next await, when it was taken
    over meanwhile.
    """
    lease = await _claim(parts, bank, seconds, wait, over)
    try:
        with _kept(parts, lease, seconds):
            yield lease
    finally:
        await asyncio.shield(parts.ledger.release(lease))


async def _claim(parts: Parts, bank: str, seconds: float, wait: float, over: Sequence[str]) -> Lease:
    deadline = asyncio.get_running_loop().time() + wait
    while (lease := await parts.ledger.claim(bank, parts.owner, seconds, over=over)) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise Conflict(f'bank "{bank}" is being consolidated by another worker; try again in a minute')
        await asyncio.sleep(POLL_SECONDS)  # the holder is another process: nothing here can wake us
    return lease


@contextmanager
def _kept(parts: Parts, lease: Lease, seconds: float) -> Iterator[None]:
    """Renew the lease; when it was taken over, cancel what the holder does: its plan would be refused anyway."""
    loop, holder = asyncio.get_running_loop(), asyncio.current_task()
    held, lost = True, False

    def give_up() -> None:
        nonlocal lost
        lost = held
        if held and holder is not None:
            holder.cancel()

    def told() -> None:
        loop.call_soon_threadsafe(give_up)

    with parts.ledger.beating(lease, seconds, told):
        try:
            yield
        except asyncio.CancelledError:
            if lost and holder is not None and holder.uncancel() == 0:
                raise LeaseLost from None
            raise
        finally:
            held = False
