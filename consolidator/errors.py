"""Everything that can go wrong, under one root.

ConsolidatorError
├── InvalidInput            refused before anything was written
│   └── InvalidSettings
├── NotFound
├── Conflict                the state moved, or something else holds it; repeat later
│   ├── LeaseLost
│   ├── ErasedMeanwhile
│   └── StaleVersion
├── MissingProvider         a provider or its package is not there
├── StoreError
│   ├── StoreUnavailable    repeating is safe
│   ├── StoreLocked         another process holds the folder
│   ├── StorePoisoned       the engine in the process failed: reads go on, writes are refused
│   ├── WrongEmbedder       the folder was made with another embedder
│   └── NewerFormat         the folder was written by a newer version
├── LedgerError
├── EmbedderUnavailable
├── RerankerUnavailable
└── ModelError
    ├── ModelUnavailable    time-out, reset, 5xx, a strange body
    ├── ModelBusy           429; carries how long to wait
    │   ├── ModelResting    it failed too often; nobody asks it for a while
    │   └── BudgetSpent     the bank's tokens for today
    ├── ModelDenied         key, quota, unknown model
    ├── ModelTooLong        context exceeded, or the reply was cut at its length
    ├── ModelRefused        a refusal or a content filter
    └── BadReply            the reply breaks the rules; carries the faults

The first line of a class's docstring is its message where none is given.
"""

from __future__ import annotations

import traceback


class ConsolidatorError(Exception):
    """Something went wrong in the memory engine."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().splitlines()[0])


class InvalidInput(ConsolidatorError):
    """An argument is wrong; nothing was written."""


class InvalidSettings(InvalidInput):
    """A setting is wrong."""


class NotFound(ConsolidatorError):
    """There is no such thing in this bank."""


class Conflict(ConsolidatorError):
    """The state moved meanwhile; read again and repeat."""


class LeaseLost(Conflict):
    """Another worker has taken this bank over; this pass was discarded."""


class ErasedMeanwhile(Conflict):
    """A memory that this plan rests on was erased meanwhile; the plan was discarded."""


class StaleVersion(Conflict):
    """The observation changed since it was read; this plan was discarded."""


class MissingProvider(ConsolidatorError):
    """A provider is not installed."""


class StoreError(ConsolidatorError):
    """The vector store failed."""


class StoreUnavailable(StoreError):
    """The vector store cannot be reached; repeating is safe."""


class StoreLocked(StoreError):
    """Another process has this folder open."""


class StorePoisoned(StoreError):
    """The embedded store failed inside; reads go on, writes are refused until it is opened again."""


class WrongEmbedder(StoreError):
    """The store was made with another embedder."""


class NewerFormat(StoreError):
    """The folder was written by a newer version of consolidator."""


class LedgerError(ConsolidatorError):
    """The ledger failed."""


class EmbedderUnavailable(ConsolidatorError):
    """The embedder failed; what was retained is kept, and will be embedded later."""


class RerankerUnavailable(ConsolidatorError):
    """The re-ranker failed; the order without it stands."""


class ModelError(ConsolidatorError):
    """The model gave nothing that can be used."""

    calls = 0  # what was spent before it came to this
    prompt_tokens = 0
    reply_tokens = 0


class ModelUnavailable(ModelError):
    """The model cannot be reached."""


class ModelBusy(ModelError):
    """The model's rate limit is reached."""

    def __init__(self, message: str | None = None, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after  # seconds to wait, where the server said so


class ModelResting(ModelBusy):
    """The model failed too often; it is left alone for a while."""


class BudgetSpent(ModelBusy):
    """The bank has spent its tokens for today; it goes on after midnight UTC."""


class ModelDenied(ModelError):
    """The model refuses this key, this account or this name."""


class ModelTooLong(ModelError):
    """The request or the reply is longer than the model allows."""


class ModelRefused(ModelError):
    """The model refused to answer."""


class BadReply(ModelError):
    """The model's reply breaks the rules."""

    def __init__(self, message: str | None = None, *, faults: tuple[str, ...] = (), reply: str = "") -> None:
        super().__init__(message)
        self.faults = faults
        self.reply = reply  # never logged: it may echo memories


class ScoringError(ConsolidatorError):
    """Nothing was measured: what is unknown stays unknown."""

    retryable = False


class ScoringUnsupported(ScoringError):
    """The endpoint cannot give the log-probability of a given text."""


class ScoringMisaligned(ScoringError):
    """The endpoint's numbers do not belong to the tokens that were asked for."""


class ScoringRejected(ScoringError):
    """The endpoint refuses this item."""


class ContextTooLong(ScoringError):
    """The response and its question are longer than the model reads."""


class ScoringUnavailable(ScoringError):
    """The endpoint cannot be reached, or is busy; repeating is safe."""

    retryable = True

    def __init__(self, message: str | None = None, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after  # seconds, where the endpoint said so


def place_of(error: BaseException) -> str:
    """Where a defect shows, for logs: never what the error says, for that may quote a memory."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "unknown"
