"""What every ledger must do with transcripts, scores and importance. Subclass it and give it a fixture `ledger`."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from consolidator.errors import InvalidInput
from consolidator.models import ObservationState, Receipt
from consolidator.plans import Change
from consolidator.ports import Ledger
from consolidator.testing.ledger_contract import AT, BANK, change, intent, observation, receipt, refused
from consolidator.transcripts import Importance, Score, Segment, Transcript, Turn
from consolidator.words import plain, wordings

UNIT = "a-model/1"


def transcript(id: str = "t1", *items: str, turns: int = 2, later: float = 0, **fields: Any) -> Transcript:
    """Shows the items in its first turn. later: minutes after the others."""
    shown = Segment(text=f"Known: what {id} shows.", items=frozenset(items))
    others = [Turn(role="assistant", segments=(Segment(text=f"Answer {n} of {id}."),)) for n in range(1, turns)]
    told = {"id": id, "turns": (Turn(role="system", segments=(shown,)), *others), "at": AT + timedelta(minutes=later)}
    return Transcript.model_validate({**told, **fields})


def score(*items: str, response: str = "t1/1", later: float = 0, **fields: Any) -> Score:
    told = {"unit": UNIT, "response": response, "items": items, "context": {*items}, "value": 0.5, "tokens": 10}
    return Score.model_validate({**told, "at": AT + timedelta(minutes=later), **fields})


def added(before: Importance | None, score: Score, item: str) -> Importance:
    """A mean without forgetting, which tells in which order it was asked."""
    n = 1.0 if before is None else before.n + 1
    mean = score.value if before is None else before.mean * 0.5 + score.value * 0.5
    most = score.value if before is None else max(before.maximum, score.value)
    tokens, updates = (0, 0) if before is None else (before.tokens, before.updates)
    return Importance(
        item=item, unit=score.unit, mean=mean, n=n, tokens=tokens + score.tokens, maximum=most, last_scored=score.at,
        updates=updates + 1,
    )


async def measured(ledger: Ledger, *scores: Score, bank: str = BANK) -> list[Score]:
    return await ledger.keep_scores(bank, scores, added)


async def ids(ledger: Ledger, bank: str = BANK) -> list[str]:
    return [it.id for it in await ledger.transcripts(bank)]


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


async def groups(ledger: Ledger, bank: str = BANK) -> list[tuple[str, ...]]:
    return sorted(it.items for it in await ledger.scores(bank))


def _handed(line: str) -> Transcript:
    turn = Turn(role="system", segments=(Segment(text=f"{line}\n", items=frozenset({"o1"})),))
    return transcript("t1").model_copy(update={"turns": (turn,)})


class LedgerScoresContract:
    """Transcripts that wait, scores that are kept once, importance that moves with them, and what an erasure takes along."""

    # transcripts

    async def test_a_transcript_waits_and_is_read_back_whole(self, ledger: Ledger) -> None:
        one = transcript("t1", "m1", "o1", closed=False)
        odd = Turn(role="assistant", segments=(Segment(text="NUL \0, two\nlines"),), token_ids=(1, 2))
        other = one.model_copy(update={"id": "a/b c", "turns": (*one.turns, odd), "at": AT - timedelta(days=1)})
        assert await ledger.keep_transcript(BANK, one)
        assert await ledger.keep_transcript(BANK, other)
        assert await ledger.transcripts(BANK) == [other, one]  # the oldest first
        assert await ledger.transcripts(BANK, limit=1) == [other]
        assert await ledger.unscored() == [BANK]
        assert (await ledger.scoring(BANK))["transcripts"] == 2

    async def test_what_was_added_takes_the_place_of_what_was_kept(self, ledger: Ledger) -> None:
        await ledger.keep_transcript(BANK, transcript("t1", "m1", closed=False))
        longer = transcript("t1", "m2", turns=4, later=1, closed=False)
        assert await ledger.keep_transcript(BANK, longer)
        closed = transcript("t1", "m2", turns=4, later=2)
        assert await ledger.keep_transcript(BANK, closed)  # nothing was added, but nothing will be
        assert await ledger.transcripts(BANK) == [closed]
        assert not await ledger.keep_transcript(BANK, transcript("t1", "m2", turns=4, later=3))
        assert await ledger.transcripts(BANK) == [closed]
        assert await ledger.keep_transcript(BANK, transcript("t1", "m2", turns=5, later=4))
        await ledger.entomb(receipt("r1", "m1"), ["m1"])
        assert await ids(ledger) == ["t1"]  # it does not show that one any more

    async def test_what_was_scored_waits_no_longer(self, ledger: Ledger) -> None:
        closed, open_ = transcript("closed", "m1"), transcript("open", "m1", closed=False)
        for it in (closed, open_):
            await ledger.keep_transcript(BANK, it)
            await ledger.transcript_scored(BANK, it)
            await ledger.transcript_scored(BANK, it)
        assert (await ids(ledger), await ledger.texts(BANK), await ledger.unscored()) == ([], [], [])
        assert (await ledger.scoring(BANK))["transcripts"] == 0
        rows = await ledger.dump(BANK)
        assert (rows["transcript"], rows["showing"]) == ([], [])
        await ledger.keep_transcript(BANK, transcript("open", "m1", turns=3, later=1, closed=False))
        assert await ids(ledger) == ["open"]
        await ledger.transcript_scored(BANK, transcript("unknown"))
        await ledger.transcript_scored("nobody", closed)

    async def test_what_was_added_while_it_was_scored_is_not_taken_for_scored(self, ledger: Ledger) -> None:
        read = transcript("t1", "m1", closed=False)
        for added_to in (transcript("t1", "m1", turns=3, later=1, closed=False), transcript("t1", "m1", turns=3, later=2)):
            await ledger.keep_transcript(BANK, read)
            await ledger.keep_transcript(BANK, added_to)
            await ledger.transcript_scored(BANK, read)
            assert await ledger.transcripts(BANK) == [added_to]

    async def test_its_texts_are_told_by_the_piece(self, ledger: Ledger) -> None:
        turn = Turn(role="user", segments=(Segment(text="I know:\n"), Segment(text="Alice likes tea.", items=frozenset({"m1"}))))
        await ledger.keep_transcript(BANK, transcript("t1").model_copy(update={"turns": (turn,)}))
        told = await ledger.texts(BANK)
        assert {place for place, _ in told} == {"transcript/t1"}
        assert {text for _, text in told} == {"I know:\nAlice likes tea.", "I know:", "I know:\n", "Alice likes tea."}
        (row,) = (await ledger.dump(BANK))["transcript"]
        assert "Alice likes tea." in row["body"]

    async def test_what_is_no_id_is_refused(self, ledger: Ledger) -> None:
        await ledger.keep_transcript(BANK, transcript("t1", "m" * 128))
        for id in ("m" * 129, "half \ud800", "NUL \0", ""):
            segment = Segment.model_construct(text="Known.", items=frozenset({"m1", id}))
            turn = Turn.model_construct(role="system", segments=(segment,), token_ids=None)
            odd = transcript("t2").model_copy(update={"turns": (turn,)})
            await refused(InvalidInput, ledger.keep_transcript(BANK, odd))
            await refused(InvalidInput, measured(ledger, score("m1", id)))
            told = score("m1", response=repr(id), context={"m1", id})
            assert await measured(ledger, told) == [told]  # a stranger in a transcript that was measured keeps nobody away
        assert await ids(ledger) == ["t1"]

    # scores

    async def test_scores_are_read_back_the_newest_first_without_their_context(self, ledger: Ledger) -> None:
        first = score("m2", "o1", "m1", value=-0.1234567890123456, tokens=3, share=0.25, how="bucket")
        second = score("m2", response="t1/3", later=1, context={"m2", "m9"})
        assert await measured(ledger, first, second) == [first, second]
        bare = [it.model_copy(update={"context": frozenset()}) for it in (second, first)]
        assert await ledger.scores(BANK) == await ledger.scores(BANK, item="m2") == bare
        assert await ledger.scores(BANK, item="o1") == await ledger.scores(BANK, keys=[first.key, "unknown"]) == bare[1:]
        assert await ledger.scores(BANK, item="m2", keys=[second.key]) == await ledger.scores(BANK, limit=1) == bare[:1]
        assert await ledger.scores(BANK, keys=[first.key, second.key], limit=1) == bare[:1]
        assert await ledger.scores(BANK, item="m9") == await ledger.scores(BANK, keys=[]) == []
        assert await ledger.scoring(BANK) == {"transcripts": 0, "scores": 2, "items": 3}

    async def test_a_measurement_is_kept_once_and_moves_once(self, ledger: Ledger) -> None:
        one = score("m1", "o1")
        again = one.model_copy(update={"items": ("o1", "m1"), "value": 9.0, "at": AT + timedelta(days=1)})
        assert await measured(ledger, one, again) == [one]
        assert await measured(ledger, again) == []
        assert await measured(ledger) == []
        assert {it.updates for it in (await ledger.importances(BANK, UNIT)).values()} == {1}
        others = [one.model_copy(update={field: "another"}) for field in ("unit", "response")]
        assert await measured(ledger, *others) == others
        assert await measured(ledger, one, bank="bob") == [one]

    async def test_each_item_of_the_group_moves_in_the_order_given(self, ledger: Ledger) -> None:
        await measured(ledger, score("m1", value=1.0))
        await measured(
            ledger, score("m1", "m2", value=3.0, response="t1/2"), score("m2", value=-1.0, response="t1/3", later=5),
            score("m1", value=8.0, unit="another"),
        )
        found = await ledger.importances(BANK, UNIT)
        assert {item: (it.mean, it.n, it.maximum, it.updates, it.tokens) for item, it in found.items()} == {
            "m1": (2.0, 2.0, 3.0, 2, 20), "m2": (1.0, 2.0, 3.0, 2, 20),
        }
        assert (found["m1"].last_scored, found["m2"].last_scored) == (AT, AT + timedelta(minutes=5))
        assert [it.mean for it in (await ledger.importances(BANK, "another")).values()] == [8.0]

    async def test_a_response_moves_an_item_once_whatever_is_left_out_with_it(self, ledger: Ledger) -> None:
        """Consolidation gives an observation more evidence: the same answer tells nothing new of those who were there."""
        odd = "NUL \0/1"
        await measured(ledger, score("o1", "m1", response=odd), score("o2", counts=False))
        wider = score("o1", "m1", "m2", value=9.0, response=odd)
        assert await measured(ledger, wider, score("m2", "m3", response=odd), score("o2", "m4")) != []
        found = await ledger.importances(BANK, UNIT)
        assert {item: (it.updates, it.maximum) for item, it in found.items()} == {
            "o1": (1, 0.5), "m1": (1, 0.5), "m2": (1, 9.0), "m3": (1, 0.5), "o2": (1, 0.5), "m4": (1, 0.5),
        }
        assert ("o1", "m1", "m2") in await groups(ledger)  # it explains what it explains

    async def test_a_score_that_does_not_count_moves_nothing(self, ledger: Ledger) -> None:
        aside = score("m1", counts=False)
        assert await measured(ledger, aside) == [aside]
        assert await ledger.importances(BANK, UNIT) == {}
        assert [it.counts for it in await ledger.scores(BANK)] == [False]
        assert await measured(ledger, aside.model_copy(update={"counts": True})) == []
        assert await ledger.scoring(BANK) == {"transcripts": 0, "scores": 1, "items": 1}

    async def test_importance_is_given_of_some_and_of_all(self, ledger: Ledger) -> None:
        await measured(ledger, *(score(f"m{n}", value=float(n)) for n in range(4)), score("m1", unit="another"))
        assert {*await ledger.importances(BANK, UNIT)} == {"m0", "m1", "m2", "m3"}
        assert {*await ledger.importances(BANK, UNIT, ["m1", "m3", "m9", "m1"])} == {"m1", "m3"}
        assert await ledger.importances(BANK, UNIT, []) == await ledger.importances(BANK, "no such unit") == {}
        assert await ledger.score_units(BANK) == {UNIT: (4, 1.5), "another": (1, 0.5)}
        assert await ledger.score_units("bob") == {}

    async def test_a09_what_was_kept_is_there_at_once_and_says_when(self, ledger: Ledger) -> None:
        """Before the next key is measured, and for whoever reads: a restart finds it, and measures nothing twice."""
        for n in range(3):
            await measured(ledger, score(f"m{n}", later=n))
            found = await ledger.importances(BANK, UNIT)
            assert found[f"m{n}"].last_scored == AT + timedelta(minutes=n)
            assert len(found) == n + 1

    async def test_a_step_that_fails_keeps_nothing(self, ledger: Ledger) -> None:
        def fails(before: Importance | None, score: Score, item: str) -> Importance:
            if item == "m2":
                raise ZeroDivisionError
            return added(before, score, item)

        try:
            await ledger.keep_scores(BANK, [score("m1"), score("m2")], fails)
        except ZeroDivisionError:
            pass
        else:
            raise AssertionError("the step's fault was swallowed")
        assert (await ledger.scores(BANK), await ledger.importances(BANK, UNIT)) == ([], {})

    async def test_many_keep_the_same_scores_at_once(self, ledger: Ledger) -> None:
        batch = [score("m1", "m2", response=f"t1/{n}") for n in range(4)]
        kept = await asyncio.gather(*(measured(ledger, *batch[n:], *batch[:n]) for n in (0, 1, 2, 3, 0, 1)))
        assert sum(map(len, kept)) == len(batch)
        assert {it.updates for it in (await ledger.importances(BANK, UNIT)).values()} == {len(batch)}

    async def test_hundreds_at_once(self, ledger: Ledger) -> None:
        items = [f"m{n}" for n in range(1200)]
        batch = [score(*items[n : n + 2], context=frozenset(items), response=f"r{n}") for n in range(1199)]
        assert len(await measured(ledger, *batch)) == len(batch)
        assert await measured(ledger, *batch) == []
        assert len(await ledger.importances(BANK, UNIT, items)) == len(items)
        assert len(await ledger.scores(BANK, keys=[it.key for it in batch], limit=5000)) == len(batch)
        assert await ledger.keep_transcript(BANK, transcript("t1", *items))
        await ledger.entomb(receipt("r1", *items), items)
        assert await ledger.scoring(BANK) == {"transcripts": 0, "scores": 0, "items": 0}
        assert await ledger.importances(BANK, UNIT) == {}
        assert await ids(ledger) == []

    async def test_scores_of_one_bank_are_not_of_another(self, ledger: Ledger) -> None:
        for bank in (BANK, "bob"):
            await ledger.keep_transcript(bank, transcript("t1", "m1"))
            await measured(ledger, score("m1"), bank=bank)
        await ledger.transcript_scored("bob", transcript("t1", "m1"))
        assert (await ids(ledger), await ids(ledger, "bob")) == (["t1"], [])
        await ledger.keep_transcript("bob", transcript("t1", "m1"))
        await ledger.entomb(receipt("r1", "m1"), ["m1"])
        assert (await ids(ledger), await groups(ledger), await ledger.importances(BANK, UNIT)) == ([], [], {})
        assert (await ids(ledger, "bob"), await groups(ledger, "bob")) == (["t1"], [("m1",)])
        assert {*await ledger.importances("bob", UNIT, ["m1"])} == {"m1"}
        assert await ledger.scores("carol", item="m1") == await ledger.scores("carol", keys=[score("m1").key]) == []

    # erasure

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
