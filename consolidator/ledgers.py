"""The ledger's port: journal, plans, versions, tombstones, queue. Its promises stand in its docstrings, as in `ports`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from consolidator.models import Receipt
from consolidator.plans import Breaker, Entry, History, Intent, Lease, Parked, Spent, Standing, Tombstone
from consolidator.transcripts import Importance, Score, Transcript


class Ledger(Protocol):
    """Journal, plans, versions, tombstones, queue: the relational record that decides. Each verb is one transaction.

    Every time that is compared is the ledger's own: the database's where several hosts share it, else the host's.
    """

    async def bank_key(self, bank: str) -> bytes:
        """The bank's 32 random bytes for keyed digests; made on first use."""
        ...

    async def banks(self) -> list[str]: ...

    async def unsettled(self) -> list[str]:
        """Banks with a plan that is not closed, or an erasure that is not settled."""
        ...

    # the queue: one row for each bank

    async def wake(self, bank: str, *, new: int, delay: float, at_most: float, batch: int, priority: int = 5) -> None:
        """Ask for a pass: `delay` seconds from now, but at most `at_most` after it was first asked for; at once when `batch`
        memories wait. Never later than a wake before has asked for, never earlier than `postpone` allows. The most urgent
        priority counts until the pass.
        """
        ...

    async def queue(self, limit: int = 100) -> list[Standing]:
        """Banks that are asked for and not paused, the next one first: due ones by priority, then the others by time.

        For one whose lease runs, `due_in` is not before the lease ends.
        """
        ...

    async def standing(self, bank: str) -> Standing:
        """Of a bank that the ledger does not know: that nothing is asked for."""
        ...

    async def claim(self, bank: str, owner: str, seconds: float, *, over: Sequence[str] = ()) -> Lease | None:
        """The right to change the bank, with a token higher than any before; None while another owner's lease runs, but for one
        whose owner shows one of `over` to a model: nothing may come of that.
        """
        ...

    async def renew(self, lease: Lease, seconds: float) -> bool:
        """False: it was taken over."""
        ...

    def beating(self, lease: Lease, seconds: float, lost: Callable[[], None]) -> AbstractContextManager[None]:
        """While inside, the lease is renewed for `seconds`, every quarter of that, by a thread and a connection of their own: an
        event loop that is blocked must not look dead. `lost` is called once, from that thread, when it was taken over.
        """
        ...

    async def reading(self, lease: Lease, ids: Sequence[str]) -> None:
        """Note which memories a model is shown from now on; none: the call is over. Raises LeaseLost."""
        ...

    async def finish(self, lease: Lease, *, more: bool) -> None:
        """A pass ended well: failures are forgotten. more: the bank is due again at once; else no longer, unless it was woken
        since the lease was claimed. Does nothing when the lease is lost.
        """
        ...

    async def postpone(self, lease: Lease, seconds: float, error: str, *, attempt: bool) -> None:
        """The bank is due in `seconds`, and not before, whatever wakes it. attempt: count a failure. Does nothing when the lease
        is lost.
        """
        ...

    async def release(self, lease: Lease) -> None: ...

    async def pause(self, bank: str, reason: str | None) -> None:
        """No pass until `pause(bank, None)`; then the bank is due at once."""
        ...

    async def breaker(self, endpoint: str, step: Callable[[Breaker, float], Breaker]) -> tuple[Breaker, float]:
        """Change an endpoint's breaker by a pure function of what it is and of the time, so that no two workers do at once.

        Returns what it is now, and the time. An endpoint that is not known begins as `Breaker(endpoint=...)`.
        """
        ...

    async def spend(self, bank: str, day: str, spent: Spent) -> None:
        """Add to what the bank has cost on a day, such as 2026-01-31."""
        ...

    async def spent_on(self, bank: str, day: str) -> Spent: ...

    async def commit(self, intent: Intent, lease: Lease) -> int:
        """Freeze a plan, with its versions and journal rows, and scrub what it erases; returns how many rows lost their text.
        Failures of memories that it marks as done are forgotten.

        Raises LeaseLost when the token is not the bank's newest; ErasedMeanwhile when a shown memory has a tombstone (but
        for a forget plan); Conflict when a memory's revision was consumed before, or another plan of this bank is open;
        StaleVersion when a head is not at its `base_rev`. Then nothing was written.
        """
        ...

    async def unfinished(self, bank: str) -> list[Intent]:
        """Plans that are not closed, oldest first, with their bodies."""
        ...

    async def mark_applied(self, intent_id: str) -> None:
        """The store took it all; another plan of this bank may be frozen."""
        ...

    async def close_applied(self, bank: str) -> int:
        """Empty the bodies of applied plans: call it when a flush begun after they were applied has returned."""
        ...

    async def histories(self, bank: str, ids: Sequence[str]) -> list[History]:
        """In the order asked; unknown ids are left out; erased observations too."""
        ...

    async def resting_on(self, bank: str, memory_ids: Sequence[str]) -> list[str]:
        """Observations with one of these in their evidence, or in the lineage or the why of any version."""
        ...

    async def journal(self, bank: str, *, observation_id: str | None = None, limit: int = 1000) -> list[Entry]:
        """Oldest first; with a limit, the newest of them."""
        ...

    async def told_by_readers_of(self, bank: str, memory_ids: Sequence[str]) -> list[tuple[int, str | None, int | None]]:
        """Journal rows whose maker had read one of these, as (seq, observation, version): what they say may quote it."""
        ...

    async def entomb(self, receipt: Receipt, memory_ids: Sequence[str]) -> None:
        """Open tombstones and keep the receipt, without its fingerprints, in one step: the point of no return of an erasure.

        Transcripts that show one of them, or have a line or a wording that is erased, or the id of the source that is, go with
        it; and the scores whose group has one, with all that is known of every item of such a group, so that it is measured
        anew. Where everything is asked for, nothing of all that is left. The same holds for an observation, when a plan that
        erases it, or gives it an older text, is committed.
        """
        ...

    async def consumed_by(self, intent_id: str) -> list[str]:
        """The memories that a plan has marked."""
        ...

    async def tombstones(self, bank: str, *, ids: Sequence[str] | None = None, open_only: bool = False) -> list[Tombstone]: ...

    async def settle(self, receipt: Receipt) -> None:
        """Close the receipt's tombstones and keep the receipt as it is now."""
        ...

    async def receipts(self, bank: str, *, accepted_only: bool = False) -> list[Receipt]: ...

    async def unscrubbed(self) -> list[Receipt]:
        """Of all banks, the settled ones, whose texts may linger in files; the oldest first."""
        ...

    async def scrub(self) -> bool:
        """As `VectorStore.scrub`, for the ledger's own files."""
        ...

    async def attempt_failed(
        self, bank: str, ids: Sequence[str], *, reason: str, reply: str, park_after: int, at: datetime, lease: Lease | None = None
    ) -> list[Parked]:
        """Count a failure for each; its state is `parked` from the `park_after`-th on. Memories with a tombstone are left out: a
        reply may quote them. Raises LeaseLost when a lease is given that is not the bank's newest.
        """
        ...

    async def hold(self, bank: str, ids: Sequence[str], *, reason: str, at: datetime, lease: Lease | None = None) -> None:
        """Rows in state `held`, whatever they were before; else as `attempt_failed`."""
        ...

    async def attempts_cleared(self, bank: str, ids: Sequence[str]) -> None:
        """The rows are gone."""
        ...

    async def parked(self, bank: str) -> list[Parked]:
        """All rows, in whatever state, the first to fail first."""
        ...

    async def hand_out(self, bank: str, digests: Sequence[str], at: datetime, *, keep: int) -> None:
        """Note texts, by their keyed digests, as given out by recall; only the newest `keep` of a bank stay known."""
        ...

    async def handed_out(self, bank: str, digests: Sequence[str]) -> set[str]:
        """Those of them that are known."""
        ...

    async def deleted_since(self, bank: str, since: datetime) -> int:
        """How many observations consolidation has deleted, by the journal; those merged into others are not lost."""
        ...

    # importance: what was measured, and what waits to be

    async def keep_transcript(self, bank: str, transcript: Transcript) -> bool:
        """Queue a transcript to be scored, in the place of what waits of it. False: it is closed and waits already with as many
        turns; or it shows what was erased, and nothing was written: a memory with a tombstone, an erased observation, or one
        with a text that no version of it has any more, or a line that a receipt has the digest of, though somebody may have
        said it again since: it only means that this conversation is not scored. Raises InvalidInput for an item that is no id.
        """
        ...

    async def transcripts(self, bank: str, *, limit: int = 100) -> list[Transcript]:
        """Those that wait, the oldest `at` first."""
        ...

    async def unscored(self) -> list[str]:
        """Banks with a transcript that waits."""
        ...

    async def transcript_scored(self, bank: str, transcript: Transcript) -> None:
        """It is dropped with its text, unless more was added to it meanwhile; who keeps it again brings the whole."""
        ...

    async def keep_scores(
        self, bank: str, scores: Sequence[Score], step: Callable[[Importance | None, Score, str], Importance]
    ) -> list[Score]:
        """Keep measurements and move the state of each of their items by a pure function of what it was, the score and the item,
        in one step; those that were new. One with a key that is kept already moves nothing; a response moves an item once in
        each unit, also where its group is another one by now; one whose group or context shows a memory with a tombstone, or an
        erased observation, is not kept. A score that does not count is kept, and moves nothing. Raises InvalidInput as above.
        """
        ...

    async def scores(
        self, bank: str, *, item: str | None = None, keys: Sequence[str] | None = None, limit: int = 100
    ) -> list[Score]:
        """The newest first: of an item, or those with one of these keys. `context` is empty."""
        ...

    async def importances(self, bank: str, unit: str, items: Sequence[str] | None = None) -> dict[str, Importance]:
        """Of these items, or of all in the bank; those that were never measured in this unit are left out."""
        ...

    async def score_units(self, bank: str) -> dict[str, tuple[int, float]]:
        """The units in which something of the bank was measured: how many items, and the mean of their means."""
        ...

    async def scoring(self, bank: str) -> dict[str, int]:
        """How many `transcripts` wait, `scores` are kept, and `items` have one."""
        ...

    async def spent(self, bank: str) -> dict[str, int]:
        """`passes` that were committed; `calls`, `prompt_tokens`, `reply_tokens` of all that was spent, on failures too;
        `open_plans`, `open_tombstones`.
        """
        ...

    async def dump(self, bank: str) -> dict[str, list[dict[str, Any]]]:
        """Every row of a bank by table, as it stands there, but for its key and vectors. For `fsck`."""
        ...

    async def texts(self, bank: str) -> list[tuple[str, str]]:
        """Every text that the ledger holds of the bank, each with the place where it stands. For `verify`."""
        ...

    async def describe(self) -> dict[str, str]: ...

    async def close(self) -> None: ...
