"""What every service works with: the ports of one deployment, opened together."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from consolidator import secrets, words
from consolidator.clock import Clock
from consolidator.events import Events
from consolidator.ports import ChatModel, Embedder, Ledger, LogprobModel, Proposer, Reranker, Storage, VectorStore
from consolidator.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    storage: Storage
    ledger: Ledger
    embedder: Embedder
    proposer: Proposer
    clock: Clock
    owner: str  # names this process in leases
    chat: ChatModel | None = None  # the one that the proposer asks, too; None: what a model would do is done by rules
    reranker: Reranker | None = None
    scorer: LogprobModel | None = None  # None: importance is measured by words alone
    find_secrets: Callable[[str], list[Secret]] = secrets.find  # the thorough way, for whole sessions
    count_tokens: Callable[[str], int] = words.cost  # as a model counts them
    events: Events = field(default_factory=Events)
    applied: set[str] = field(default_factory=set)  # plans that this process has applied and not closed: nothing to redo

    @property
    def memories(self) -> VectorStore:
        return self.storage.memories

    @property
    def observations(self) -> VectorStore:
        return self.storage.observations

    async def digest(self, bank: str) -> Callable[[str], str]:
        """The bank's keyed digest: a plain hash of a short sentence could be guessed."""
        key = await self.ledger.bank_key(bank)
        return lambda text: hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    async def close(self) -> None:
        """All of them, whichever fails. Store before ledger: what the ledger forgets must be on disk."""
        async with AsyncExitStack() as stack:
            for part in (self.scorer, self.reranker, self.embedder, self.chat, self.proposer, self.ledger, self.storage):
                if part is not None:
                    stack.push_async_callback(part.close)
