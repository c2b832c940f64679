"""The shipped conversation and its questions hold together."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from consolidator_adapters.conversation import Question, load_conversation, load_questions, place

CONVERSATION, QUESTIONS = load_conversation(), load_questions()
SOURCES = [session.source for session in CONVERSATION.sessions]


def spoken(source: str) -> str:
    return "\n".join(turn.text for s in CONVERSATION.sessions if s.source == source for turn in s.turns).casefold()


def test_there_is_a_year_of_sessions_in_order() -> None:
    starts = [session.start for session in CONVERSATION.sessions]
    assert len(SOURCES) == len(set(SOURCES)) == 13
    assert all(earlier < later for earlier, later in pairwise(starts))
    assert (starts[-1] - starts[0]).days > 365
    assert sum(len(session.turns) for session in CONVERSATION.sessions) == 184


def test_only_the_named_people_speak_and_every_turn_says_something() -> None:
    turns = [turn for session in CONVERSATION.sessions for turn in session.turns]
    assert {turn.speaker for turn in turns} == set(CONVERSATION.people)
    assert all(turn.text.strip() == turn.text and turn.text for turn in turns)


def test_every_session_has_its_place() -> None:
    assert set(CONVERSATION.places) == set(SOURCES)
    assert CONVERSATION.license == "CC0-1.0"


def test_the_session_to_forget_is_one_of_them_and_not_the_last() -> None:
    assert CONVERSATION.forget in SOURCES[:-1]


def test_the_questions_are_told_apart() -> None:
    assert len({question.id for question in QUESTIONS}) == len({question.text for question in QUESTIONS}) == len(QUESTIONS) == 56
    assert min(Counter(question.category for question in QUESTIONS).values()) >= 3


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.id)
class TestEachQuestion:
    def test_its_turns_exist(self, question: Question) -> None:
        assert question.evidence
        assert all(CONVERSATION.turn(turn).text for turn in (*question.evidence, *question.stale))
        assert not set(question.evidence) & set(question.stale)

    def test_what_must_not_be_said_stands_in_the_forgotten_session_alone(self, question: Question) -> None:
        for phrase in question.after_forgetting.must_not_say:
            assert [source for source in SOURCES if phrase.casefold() in spoken(source)] == [CONVERSATION.forget]

    def test_it_can_be_answered_afterwards_exactly_if_other_sessions_tell(self, question: Question) -> None:
        after = question.after_forgetting
        assert after.answerable == bool(question.evidence_without(CONVERSATION.forget))
        assert after.answerable == (after.answer is not None)
        touched = any(place(turn)[0] == CONVERSATION.forget for turn in question.evidence)
        assert touched or after.answer == question.answer


def test_a_turn_is_found_by_its_name() -> None:
    assert place("s01-new-flat:13") == ("s01-new-flat", 13)
    assert CONVERSATION.turn("s01-new-flat:1").speaker == "Maren"
    with pytest.raises(KeyError):
        CONVERSATION.turn("s01-new-flat:99")


def test_a_lost_answer_gives_way_to_what_held_before() -> None:
    drink = next(question for question in QUESTIONS if question.id == "q53")
    assert drink.evidence_without(CONVERSATION.forget) == drink.stale
    assert set(drink.evidence_without("another")) == set(drink.evidence)
