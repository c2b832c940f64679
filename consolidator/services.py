"""What the handles of one engine share: the services, and the worker behind them."""

from __future__ import annotations

import asyncio
import logging

from consolidator.asking import AskingPolicy
from consolidator.config import Settings
from consolidator.consolidation import Consolidation
from consolidator.echoes import Echoes
from consolidator.errors import ConsolidatorError
from consolidator.forgetting import Forgetting
from consolidator.harvest import Harvest
from consolidator.importance import ImportanceService
from consolidator.jobs import Jobs
from consolidator.models import Receipt
from consolidator.parking import Parking
from consolidator.parts import Parts
from consolidator.practice import Practice
from consolidator.recollection import Recollection
from consolidator.redo import barrier
from consolidator.retelling import Retelling
from consolidator.retention import Retainer
from consolidator.revision import Revision
from consolidator.transfer import Transfer
from consolidator.worker import Worker

log = logging.getLogger("consolidator.services")

MANY = 100  # texts at once are an import: it waits behind conversations
GRACE = 5.0  # seconds that a closing application waits for a pass under way


class Services:
    """Made with the engine, and closed with it."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        asking = AskingPolicy(
            deadline=settings.worker.pass_deadline, budget_tokens_day=settings.model.budget_tokens_day,
            breaker=settings.model.breaker,
        )
        self.parts = parts
        self.closed = False
        self._closing: asyncio.Task[None] | None = None
        self.echoes = Echoes(parts)
        self.retainer = Retainer(parts, settings.retain, self.echoes)
        self.recollection = Recollection(parts, settings.recall, settings.reranker, settings.importance.feedback)
        self.forgetting = Forgetting(parts)
        self.parking = Parking(parts)
        self.revision = Revision(parts)
        self.importance = ImportanceService(
            parts, settings.importance, settings.importance.feedback, measured=self.recollection.measured
        )
        self.transfer = Transfer(parts, self.retainer, settings.retain)
        consolidation = Consolidation(parts, settings.consolidation, asking, settings.practice)
        self.practice = Practice(parts, settings.practice, consolidation, settings.consolidation)
        self.retelling = Retelling(parts, settings.practice)
        self.harvest = Harvest(parts, settings.harvest, self.retainer, consolidation.asking)
        self.jobs = Jobs(
            parts, settings.worker, retainer=self.retainer, forgetting=self.forgetting, consolidation=consolidation,
            importance=self.importance, practice=self.practice,
        )
        self.worker = Worker(parts, settings.worker, self.jobs, alone=settings.alone, scrub=self.scrub)
        self._worker = settings.worker
        self._batch = settings.consolidation.batch

    async def wake(self, bank: str, *, new: int, urgent: bool = False) -> None:
        """Ask for a pass. The asking may be lost, for the sweep finds what is pending: so it never fails a retain."""
        priority = 0 if urgent else 9 if new > MANY else 5
        try:
            await self.parts.ledger.wake(
                bank, new=new, delay=0.0 if urgent else self._worker.debounce, at_most=self._worker.max_delay,
                batch=self._batch, priority=priority,
            )
        except ConsolidatorError as error:
            log.warning("wake_lost", extra={"action": "wake_lost", "error": type(error).__name__})
        self.worker.nudge()

    async def scrub(self) -> list[Receipt]:
        """Rewrite store and ledger, so that what was erased before is in no file; the receipts of which that is true now."""
        settled = await self.parts.ledger.unscrubbed()
        for bank in {receipt.bank for receipt in settled}:
            await barrier(self.parts, bank)
        done = [await part.scrub() for part in (self.parts.memories, self.parts.observations, self.parts.ledger)]
        if not settled or not all(done):
            return []
        scrubbed = [receipt.model_copy(update={"state": "scrubbed"}) for receipt in settled]
        for receipt in scrubbed:
            await self.parts.ledger.settle(receipt)
        log.info("scrubbed", extra={"action": "scrubbed", "receipts": len(scrubbed)})
        return scrubbed

    async def close(self) -> None:
        """Closing twice is harmless. It goes on to its end though a caller is cancelled."""
        self.closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="consolidator closes")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self.worker.stop(min(GRACE, self._worker.shutdown))
            await self.echoes.settled()
        finally:
            await self.parts.close()
