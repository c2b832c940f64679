"""What every ledger must do with transcripts and scores when something is erased. Subclass it and give it a fixture `ledger`."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Any

from consolidator.models import ObservationState, Receipt
from consolidator.plans import Change
from consolidator.ports import Ledger
from consolidator.testing.ledger_contract import AT, BANK, change, intent, observation, receipt
from consolidator.testing.ledger_scores_contract import UNIT, groups, ids, measured, score, transcript
from consolidator.transcripts import Segment, Transcript, Turn
from consolidator.words import plain, wordings


def saying(*texts: str, id: str = "t1", **fields: Any) -> Transcript:
    """A turn for each text, which marks nothing."""
    turns = tuple(Turn(role="user", segments=(Segment(text=text),)) for text in texts)
    return Transcript.model_validate({"id": id, "turns": turns, "at": AT, **fields})


async def keyed(ledger: Ledger, text: str, bank: str = BANK) -> str:
    return hmac.new(await ledger.bank_key(bank), text.encode(), hashlib.sha256).hexdigest()


async def erasing(ledger: Ledger, *texts: str, id: str = "r1", memories: Sequence[str] = ("m1",), **asked: Any) -> Receipt:
    """The receipt of an erasure of these texts, with what they are found by."""
    told = {"digests": tuple([await keyed(ledger, plain(text)) for text in texts]), "asked": asked}
    runs = [(await keyed(ledger, run))[:16] for text in texts for run in wordings(text)]
    return receipt(id, *memories).model_copy(update={**told, "fingerprints": tuple(runs)})


def _handed(line: str) -> Transcript:
    turn = Turn(role="system", segments=(Segment(text=f"{line}\n", items=frozenset({"o1"})),))
    return transcript("t1").model_copy(update={"turns": (turn,)})


class LedgerErasureContract:
    """What an erasure takes along, and what does not come back after it."""

    async def test_an_erasure_takes_what_shows_the_memory_and_what_was_measured_with_it(self, ledger: Ledger) -> None:
        for it in (transcript("t1", "m1", "m2"), transcript("t2", "m2"), transcript("t3")):
            await ledger.keep_transcript(BANK, it)
        seen = transcript("t4", "m1", closed=False)
        await ledger.keep_transcript(BANK, seen)
        await ledger.transcript_scored(BANK, seen)
        await measured(ledger, score("m1", "o1"), score("o1", "o2", response="x"), score("m2"), score("m3", unit="another"))
        await ledger.entomb(receipt("r1", "m1"), ["m1"])
        assert await ids(ledger) == ["t2", "t3"]
        assert await groups(ledger) == [("m2",), ("m3",), ("o2",)]
        assert {*await ledger.importances(BANK, UNIT)} == {"m2", "o2"}
        assert await ledger.score_units(BANK) == {UNIT: (2, 0.5), "another": (1, 0.5)}
        rows = await ledger.dump(BANK)
        assert "m1" not in json.dumps({name: rows[name] for name in ("transcript", "showing", "score", "member", "importance")})

    async def test_whoever_was_measured_with_it_is_measured_anew_and_nobody_else(self, ledger: Ledger) -> None:
        """Also with the same response: a score that stood for the mate alone, or for it and a third, is in nobody's way."""
        alone, third = score("o1", response="x"), score("o1", "o3", response="y")
        await measured(ledger, score("m1", "o1"), alone, third)
        untouched = (await ledger.importances(BANK, UNIT))["o3"]
        for n in range(2):
            await ledger.entomb(receipt(f"r{n}", f"m{n + 1}"), [f"m{n + 1}"])
            assert await ledger.importances(BANK, UNIT) == {"o3": untouched}
            assert await ledger.scores(BANK, keys=[alone.key, third.key]) == []
            assert await measured(ledger, alone, third, score("o1", "m2") if not n else score("o3", "o1", response="y")) != []
            found = await ledger.importances(BANK, UNIT)
            assert (found["o1"].updates, found["o3"]) == (3 if not n else 2, untouched)

    async def test_an_erasure_of_everything_leaves_nothing_that_was_measured(self, ledger: Ledger) -> None:
        for bank in (BANK, "bob"):
            await ledger.keep_transcript(bank, saying("Nobody knows why.", closed=False))
            await measured(ledger, score("o7"), bank=bank)
        await ledger.entomb(await erasing(ledger, everything=True), ["m1"])
        rows = await ledger.dump(BANK)
        assert not [name for name in ("transcript", "showing", "score", "member", "importance") if rows[name]]
        assert (await ids(ledger, "bob"), await groups(ledger, "bob")) == (["t1"], [("o7",)])
        assert {*await ledger.importances("bob", UNIT)} == {"o7"}

    async def test_an_erasure_of_a_source_takes_the_transcript_of_that_name(self, ledger: Ledger) -> None:
        for id in ("chat/7", "chat/8"):
            await ledger.keep_transcript(BANK, saying("Good morning.", id=id))
        await ledger.entomb(await erasing(ledger, source="chat/7"), ["m1"])
        assert await ids(ledger) == ["chat/8"]

    async def test_an_erased_text_goes_from_within_longer_ones(self, ledger: Ledger) -> None:
        said = "I was at the Southmead clinic on Friday because of my left knee."
        held = {"t1": f"As she told me: {said.upper()} And then?", "t2": f"Hm.\n{said}", "t3": "I was at the clinic on Friday."}
        for id, text in held.items():
            await ledger.keep_transcript(BANK, saying("Hello.", text, id=id))
        await ledger.entomb(await erasing(ledger, said), ["m1"])
        assert await ids(ledger) == ["t3"]
        (kept,) = await ledger.receipts(BANK)
        assert (kept.fingerprints, len(kept.digests)) == ((), 1)
        await ledger.settle(await erasing(ledger, said))
        assert [it.fingerprints for it in await ledger.receipts(BANK)] == [()]

    async def test_an_erased_text_is_not_written_again_by_who_goes_on(self, ledger: Ledger) -> None:
        said, later = "My PIN is 4711.", "My cat is Tom."
        before = saying("Hello.", said, closed=False)
        assert await ledger.keep_transcript(BANK, before)
        await ledger.entomb(await erasing(ledger, said), ["m1"])
        for again in (before, saying("Hello.", said, "And then?"), saying("Well:\n my  pin is 4711. \nYes", id="t2")):
            assert not await ledger.keep_transcript(BANK, again)
        assert await ids(ledger) == []
        assert await ledger.keep_transcript(BANK, saying("Hello.", later))
        await ledger.settle(await erasing(ledger, said, later))  # what was found only when it was carried out
        assert not await ledger.keep_transcript(BANK, saying("Hello.", later, id="t3"))
        assert await ledger.keep_transcript("bob", before)

    async def test_an_observation_is_shown_as_it_stands_or_not_at_all(self, ledger: Ledger) -> None:
        """A line as recall hands it out is not the text itself; who goes on with one brings an erased version back."""
        newer = observation(text="Alice drinks oolong.", version=2, rev=1, cites=("m1", "m2"))
        lease = await self._learnt(ledger, observation())
        await ledger.commit(intent("i2", change(newer, base_rev=0, lineage=("m1", "m2"))), lease)
        await ledger.mark_applied("i2")
        assert await ledger.keep_transcript(BANK, _handed("- Alice drinks oolong. (01 June 2026)"))
        back = change(observation(version=3, rev=2), base_rev=1).model_copy(update={"purge": (2,)})
        await ledger.commit(intent("i3", back, kind="forget", erased=("m2",)), lease)
        assert not await ledger.keep_transcript(BANK, _handed("- Alice drinks oolong. (01 June 2026)"))
        assert await ledger.keep_transcript(BANK, _handed("- Alice likes tea. (01 June 2026)"))

    async def test_what_arrives_after_the_tombstone_is_dropped(self, ledger: Ledger) -> None:
        await ledger.keep_transcript(BANK, transcript("t1", "m2", closed=False))
        await ledger.entomb(receipt("r1", "m1"), ["m1"])
        assert not await ledger.keep_transcript(BANK, transcript("t1", "m1", "m2", turns=3))
        assert [len(it.turns) for it in await ledger.transcripts(BANK)] == [2]  # what was there before stays
        others = [score("m2"), score("m3", context={"m2", "m3"})]
        in_flight = [score("m1", "o1"), score("m3", context={"m1", "m3"}, response="t1/2")]
        assert await measured(ledger, *in_flight, *others) == others
        await ledger.settle(receipt("r1", "m1", state="settled"))
        assert await measured(ledger, *in_flight) == []
        assert not await ledger.keep_transcript(BANK, transcript("t2", "m1"))
        assert await groups(ledger) == [("m2",), ("m3",)]

    async def test_an_observation_that_is_erased_takes_its_scores_along(self, ledger: Ledger) -> None:
        lease = await self._learnt(ledger, observation())
        husk = observation(text="", state=ObservationState.ERASED, rev=1, cites=())
        await self._kept(ledger)
        await ledger.commit(intent("i2", Change(after=husk, base_rev=0, purge=(1,)), kind="forget", erased=("m1",)), lease)
        await self._only_of_others(ledger)
        assert not await ledger.keep_transcript(BANK, transcript("t9", "o1"))
        assert await measured(ledger, score("o1"), score("m4", context={"o1", "m4"}), score("m4", response="x")) == [
            score("m4", response="x"),
        ]

    async def test_an_observation_with_an_older_text_is_measured_anew(self, ledger: Ledger) -> None:
        newer = observation(text="Alice drinks oolong.", version=2, rev=1, cites=("m1", "m2"))
        lease = await self._learnt(ledger, observation())
        await ledger.commit(intent("i2", change(newer, base_rev=0, lineage=("m1", "m2"))), lease)
        await ledger.mark_applied("i2")
        await self._kept(ledger)
        back = change(observation(version=3, rev=2), base_rev=1).model_copy(update={"purge": (2,)})
        await ledger.commit(intent("i3", back, kind="forget", erased=("m2",)), lease)
        await self._only_of_others(ledger)
        assert await ledger.keep_transcript(BANK, _handed("- Alice likes tea. (01 June 2026)"))
        assert len(await measured(ledger, score("o1"))) == 1

    async def test_support_that_goes_leaves_what_was_measured(self, ledger: Ledger) -> None:
        lease = await self._learnt(ledger, observation(cites=("m1", "m2")))
        await self._kept(ledger)
        less = Change(after=observation(rev=1), base_rev=0, vector=[0.5, -0.25], lineage=frozenset({"m1"}))
        await ledger.commit(intent("i2", less, kind="forget", erased=("m2",)), lease)
        assert await ids(ledger) == ["t1", "t2"]
        assert await groups(ledger) == [("m9",), ("o1", "m3")]

    async def test_a_text_that_is_restated_leaves_what_was_measured(self, ledger: Ledger) -> None:
        lease = await self._learnt(ledger, observation())
        await self._kept(ledger)
        await ledger.commit(intent("i2", change(observation(version=2, rev=1), base_rev=0)), lease)
        assert await groups(ledger) == [("m9",), ("o1", "m3")]

    async def test_a_text_that_is_being_erased_is_sent_to_nobody(self, ledger: Ledger) -> None:
        """Between the tombstone and the plan that puts an observation right, its text may be the erased one's."""
        await self._learnt(ledger, observation(), observation("o2", cites=("m3",)))
        for id, item in (("t1", "o1"), ("t2", "o2")):
            await ledger.keep_transcript(BANK, transcript(id, item))
        await ledger.entomb(receipt("r1", "m1"), ["m1"])
        assert await ids(ledger) == ["t2"]
        assert not await ledger.keep_transcript(BANK, transcript("t1", "o1"))
        assert await measured(ledger, score("o1")) == []

    async def _learnt(self, ledger: Ledger, *learnt: Any) -> Any:
        lease = await ledger.claim(BANK, "one", 60)
        assert lease is not None
        changes: Sequence[Change] = [change(it, lineage=[it.evidence[0].memory_id]) for it in learnt]
        await ledger.commit(intent("i1", *changes), lease)
        await ledger.mark_applied("i1")
        return lease

    async def _kept(self, ledger: Ledger) -> None:
        for it in (transcript("t1", "o1", "m3"), transcript("t2", "m9", later=1)):
            assert await ledger.keep_transcript(BANK, it)
        assert len(await measured(ledger, score("o1", "m3"), score("m9"))) == 2

    async def _only_of_others(self, ledger: Ledger) -> None:
        assert await ids(ledger) == ["t2"]
        assert await groups(ledger) == [("m9",)]
        assert {*await ledger.importances(BANK, UNIT)} == {"m9"}
