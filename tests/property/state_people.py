"""What people do in the stateful test: they forget, decide, correct, revert, take back."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.property.state_child import BAD
from tests.property.state_life import Living
from tests.property.state_model import Row

SOURCES = ("s1", "s2", "s3")
REFUSALS = {"NotFound", "InvalidInput", "Conflict"}

banks = st.sampled_from(("alice", "alice", "alice", "bob"))
tags = st.sampled_from(([], [], [], [], ["work"], ["home", "work"]))
deaths = st.one_of(st.none(), st.none(), st.integers(1, 60))  # at which boundary of a write, counted from now
some = st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True)  # of what is there, by number
words = st.integers(1, 9).map(lambda n: f"It is word{n}x.")


class People(Living):
    """Rules on one of two banks."""

    @rule(bank=banks, numbers=some, dies=deaths)
    def forget_memories(self, bank: str, numbers: list[int], dies: int | None) -> None:
        self._arm(dies)
        ids = self._chosen(bank, numbers)
        self._forget(bank, {"memory_ids": ids}, set(ids))

    @rule(bank=banks, source=st.sampled_from(SOURCES), tagged=tags, dies=deaths)
    def forget_source(self, bank: str, source: str, tagged: list[str], dies: int | None) -> None:
        self._arm(dies)
        kept = self._known[bank].kept.items()
        meant = {id for id, m in kept if m["source"] == source and set(tagged) <= set(m["tags"])}
        self._forget(bank, {"source": source, "tags": tagged or None}, meant)

    def _forget(self, bank: str, what: Row, meant: set[str]) -> None:
        known = self._known[bank]
        if not (dry := self._of(bank, "forget", what=what, dry_run=True)):
            return
        assert set(dry["returned"]["memories"]) - known.forgotten.keys() == meant  # a kill may have left some that are erased
        known.going = meant
        if not (answer := self._ask("forget", bank=bank, what=what)):
            return
        receipt = answer["returned"]
        assert set(receipt["memories"]) - known.forgotten.keys() == meant
        assert receipt["state"] == ("settled" if receipt["memories"] else "nothing")
        known.forget(meant)
        known.going = set()
        self._ask("look", look=(bank,))
        self._verified(bank)

    def _verified(self, bank: str) -> None:
        for told in (self._ask("verify", bank=bank) or {"returned": []})["returned"]:
            # a text that was erased, proposed again on the word of others, and held back, stands in the journal alone
            assert not [place for place in told["found"] if not place.startswith("ledger/journal/")], told

    @rule(bank=banks, do=st.sampled_from(("replay", "drop")), numbers=some, everything=st.booleans(), dies=deaths)
    def decide(self, bank: str, do: str, numbers: list[int], everything: bool, dies: int | None) -> None:
        """For memories that were set aside: all of them, or some, among which others are refused."""
        self._arm(dies)
        known, aside = self._known[bank], set(self._known[bank].aside)
        asked = sorted(aside) if everything else self._chosen(bank, numbers)
        if not (answer := self._of(bank, do, ids=asked)):
            return
        if not set(asked) <= aside:
            assert answer["error"]["kind"] == "NotFound"
            assert known.aside == aside
        else:
            assert {m["id"] for m in answer["returned"]} == set(asked)
            assert known.aside == aside - set(asked)

    @rule(bank=banks, stop=st.sampled_from((False, False, True)))
    def pause(self, bank: str, stop: bool) -> None:
        if self._of(bank, "pause" if stop else "resume"):
            assert self._known[bank].paused == stop

    @rule(bank=banks, what=st.sampled_from(sorted(BAD)))
    def refused(self, bank: str, what: str) -> None:
        if answer := self._of(bank, "refused", what=what):
            told, unchanged = answer["returned"]
            assert told in ("InvalidInput", "NotFound"), told
            assert unchanged

    @rule(bank=banks, number=st.integers(0, 11), version=st.integers(1, 5), dies=deaths)
    def revert(self, bank: str, number: int, version: int, dies: int | None) -> None:
        self._arm(dies)
        if id := _one(self._observations[bank], number):
            self._allowed(self._of(bank, "revert", id=id, version=version))

    @rule(bank=banks, number=st.integers(0, 40), dies=deaths)
    def undo(self, bank: str, number: int, dies: int | None) -> None:
        self._arm(dies)
        if plan := _one(self._plans[bank], -1 - number):
            self._allowed(self._of(bank, "undo", plan=plan))

    @rule(bank=banks, number=st.integers(0, 11), text=words, memory=st.booleans(), dies=deaths)
    def correct(self, bank: str, number: int, text: str, memory: bool, dies: int | None) -> None:
        """The correction is a memory like any other; that of a memory takes its place in the conversation."""
        self._arm(dies)
        known = self._known[bank]
        id = _one(list(known.kept) if memory else self._observations[bank], number)
        if id is None:
            return
        wrong: Row = known.kept[id] if memory else {}
        told = {"text": text, "source": wrong.get("source", "correction"), "trust": 2}
        told |= {"speaker": wrong.get("speaker"), "occurred_at": wrong.get("occurred_at"), "tags": wrong.get("tags")}
        known.maybe = [told]
        if not (answer := self._ask("correct", bank=bank, id=id, text=text)):
            return
        self._allowed(answer)
        if "returned" in answer:
            known.maybe = []
            assert not list(known.keep([answer["returned"]]))
        self._ask("look", look=(bank,))

    def _allowed(self, answer: Row | None) -> None:
        """What cannot be done is refused with a reason."""
        allowed = REFUSALS | ({"EmbedderUnavailable"} if self._down else set())
        assert answer is None or "error" not in answer or answer["error"]["kind"] in allowed, answer


def _one(there: Sequence[str], number: int) -> str | None:
    return there[number % len(there)] if there else None
