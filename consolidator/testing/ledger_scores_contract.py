"""What every ledger must do with transcripts, scores and importance. Subclass it and give it a fixture `ledger`."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from consolidator.errors import InvalidInput
from consolidator.ports import Ledger
from consolidator.testing.ledger_contract import AT, BANK, receipt, refused
from consolidator.transcripts import Importance, Score, Segment, Transcript, Turn

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


async def groups(ledger: Ledger, bank: str = BANK) -> list[tuple[str, ...]]:
    return sorted(it.items for it in await ledger.scores(bank))


class LedgerScoresContract:
    """Transcripts that wait, scores that are kept once, importance that moves with them."""

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
