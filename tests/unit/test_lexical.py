"""Importance by words alone: closed form is brute force, and what was erased never was."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from consolidator.errors import InvalidInput
from consolidator.lexical import LEXICAL_UNIT, Background, cells, divergences, words_of
from consolidator.transcripts import Group

SHOWN = {
    "m1": "[3 March 2026] Alice: I moved from Lisbon to Berlin.", "m2": "[4 March 2026] Bob: The cat is called Miso.",
    "m3": "[5 March 2026] Alice: I bought a red bicycle.", "o1": "Alice used to live in Lisbon, now in Berlin.",
}
BANK = Background.of([*SHOWN.values(), "Bob: Miso sleeps all day.", "Alice: The weather in March was cold."])
QUERY, RESPONSE = "Where does Alice live?", "Alice lives in Berlin."


def alone(*items: str) -> list[Group]:
    return [Group(items=(item,)) for item in items]


def brute_force(query: str, response: str, shown: list[str], left: list[str], base: Background) -> float:
    def log_p(texts: list[str]) -> float:
        said = Counter(word for text in texts for word in words_of(text))
        n, total = sum(said.values()), 0.0
        for word in words_of(query) + words_of(response):
            b = 0.98 * base.counts.get(word, 0) / base.total + 0.02 / 50_000
            total += math.log((0.5 * said[word] / n if n else 0.0) + 0.5 * b)
        return total

    return (log_p(shown) - log_p(left)) / len(words_of(query) + words_of(response))


@pytest.mark.parametrize(
    "groups", [alone(*SHOWN), [Group(items=("m1", "o1")), Group(items=("m2", "m3"))], [Group(items=tuple(SHOWN))]]
)
@pytest.mark.parametrize("background", [BANK, None])
def test_the_closed_form_is_the_brute_force(groups: list[Group], background: Background | None) -> None:
    base = background or Background.of(SHOWN.values())
    found = divergences(QUERY, RESPONSE, SHOWN, groups, background)
    expected = [
        brute_force(QUERY, RESPONSE, [*SHOWN.values()], [t for item, t in SHOWN.items() if item not in group.items], base)
        for group in groups
    ]
    assert found == pytest.approx(expected, abs=1e-12)


def test_what_an_answer_rests_on_comes_first_and_the_others_got_in_the_way() -> None:
    together, cat, bicycle = divergences(QUERY, RESPONSE, SHOWN, [Group(items=("m1", "o1")), *alone("m2", "m3")], BANK)
    assert together > 0.3 > 0 > max(cat, bicycle)


def test_a13_a_copy_hides_what_a_group_shows() -> None:
    shown = {**SHOWN, "m4": SHOWN["m1"], "o2": SHOWN["o1"]}
    one, both = divergences(QUERY, RESPONSE, shown, [Group(items=("o1", "m1")), Group(items=("o1", "o2", "m1", "m4"))], BANK)
    assert both > 2 * max(one, 0.01)


def test_the_query_is_scored_and_was_not_shown() -> None:
    assert divergences("Berlin", "yes", SHOWN, alone("m1"), BANK)[0] > divergences("Rome", "yes", SHOWN, alone("m1"), BANK)[0]


def test_a19_what_was_not_shown_and_what_says_nothing_has_no_value() -> None:
    unseen, seen = cells(QUERY, RESPONSE, SHOWN, alone("elsewhere", "m1"), BANK)
    assert (unseen.status, unseen.value, unseen.reason) == ("not_applicable", None, "not_in_context")
    assert (seen.status, seen.tokens) == ("scored", len(words_of(QUERY)) + len(words_of(RESPONSE)))
    assert seen.value == divergences(QUERY, RESPONSE, SHOWN, alone("m1"), BANK)[0]
    assert [c.reason for c in cells(QUERY, " … ", SHOWN, alone("m1"), BANK)] == ["empty_response"]
    assert divergences("", "", SHOWN, alone("m1"), BANK) == [0.0]


def test_without_a_bank_every_word_is_as_likely() -> None:
    assert Background().probability("any") == 1 / 50_000
    assert all(map(math.isfinite, divergences(QUERY, RESPONSE, SHOWN, [Group(items=tuple(SHOWN))], Background())))


def test_the_background_is_a_distribution_with_something_left_for_the_unseen() -> None:
    known = sum(BANK.probability(word) for word in BANK.counts)
    assert 0.98 <= known < 1.0
    assert BANK.probability("zyzzyva") == pytest.approx(0.02 / 50_000)


def test_what_was_erased_never_was() -> None:
    assert BANK.adding(["secret plans in Berlin"]).removing(["secret plans in Berlin"]) == BANK
    assert "secret" not in BANK.adding(["secret plans"]).removing(["secret plans"]).counts
    with pytest.raises(InvalidInput, match="does not hold"):
        BANK.removing(["secret plans"])


def test_the_unit_names_its_recipe() -> None:
    assert LEXICAL_UNIT == "lexical/unigram-jm50-1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, WORLD! snake_case ＡＢＣ", ["hello", "world", "snake", "case", "abc"]),
        ("東京タワー2", ["東京", "京タ", "タワ", "ワー", "2"]), ("私", ["私"]), ("GPT東京", ["gpt", "東京"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]), ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("한국어 단어", ["한국어", "단어"]), ("Straße CAFE\u0301", ["strasse", "café"]), ("", []), ("…!", []),
    ],
)
def test_words_of_many_scripts(text: str, words: list[str]) -> None:
    assert words_of(text) == words
