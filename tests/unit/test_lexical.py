"""Importance by words alone: closed form is brute force, and what was erased never was."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import pytest

from consolidator.lexical import LEXICAL_UNIT, Background, divergences, words_of
from consolidator.meters import LexicalMeter, every_pair, in_windows, shown_of
from consolidator.transcripts import Cell, Group
from tests.talks import talk, turn

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


async def measured(response: str, *items: str) -> list[Cell]:
    shown = [(text, id) for id, text in SHOWN.items()]
    said = talk(turn("system", *shown), turn("user", QUERY), turn("assistant", response))
    return await LexicalMeter(transcript=said, texts=SHOWN, background=BANK).cells([(2, each) for each in alone(*items)])


async def test_a19_what_was_not_shown_and_what_says_nothing_has_no_value() -> None:
    unseen, seen = await measured(RESPONSE, "elsewhere", "m1")
    assert (unseen.status, unseen.value, unseen.reason) == ("not_applicable", None, "not_in_context")
    assert (seen.status, seen.tokens) == ("scored", len(words_of(QUERY)) + len(words_of(RESPONSE)))
    assert seen.value == pytest.approx(divergences(QUERY, RESPONSE, SHOWN, alone("m1"), BANK)[0], abs=1e-12)
    assert [c.reason for c in await measured(" … ", "m1", "elsewhere")] == ["empty_response"] * 2
    assert divergences("", "", SHOWN, alone("m1"), BANK) == [0.0]


def test_without_a_bank_every_word_is_as_likely() -> None:
    assert Background().probability("any") == 1 / 50_000
    assert all(map(math.isfinite, divergences(QUERY, RESPONSE, SHOWN, [Group(items=tuple(SHOWN))], Background())))


def test_the_background_is_a_distribution_with_something_left_for_the_unseen() -> None:
    known = sum(BANK.probability(word) for word in BANK.counts)
    assert 0.98 <= known < 1.0
    assert BANK.probability("zyzzyva") == pytest.approx(0.02 / 50_000)


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


# as a meter


async def test_a_cell_is_about_what_was_shown_before_its_response() -> None:
    said = talk(
        turn("system", (SHOWN["o1"], "o1")), turn("user", QUERY), turn("assistant", RESPONSE),
        turn("system", (SHOWN["m1"], "m1"), ("gone", "m9")), turn("user", QUERY), turn("assistant", RESPONSE),
    )
    meter, group = LexicalMeter(transcript=said, texts=SHOWN, background=BANK), Group(items=("o1", "m1", "m9"))
    assert [shown_of(group, meter, place) for place in (0, 2, 5)] == [(), ("o1",), ("o1", "m1")]
    told = await meter.cells([(5, group), (2, group), (2, alone("m1")[0])])
    both = {id: SHOWN[id] for id in ("o1", "m1")}
    assert [cell.value for cell in told] == [
        pytest.approx(divergences(QUERY, RESPONSE, both, [group], BANK)[0], abs=1e-12),
        pytest.approx(divergences(QUERY, RESPONSE, {"o1": SHOWN["o1"]}, [group], BANK)[0], abs=1e-12), None,
    ]
    assert meter.shown(5) is meter.shown(5)


def exchanges(number: int, items: int) -> tuple[LexicalMeter, list[Group]]:
    """Each with new items of their own."""
    texts = {f"m{n}": f"{SHOWN['m1']} {n} number{n}" for n in range(number * items)}
    shown = [turn("system", *((texts[f"m{n}"], f"m{n}") for n in range(at, at + items))) for at in range(0, len(texts), items)]
    said = talk(*(each for show in shown for each in (show, turn("user", QUERY), turn("assistant", RESPONSE))))
    return LexicalMeter(transcript=said, texts=texts, background=BANK), alone(*texts)


async def test_each_item_is_read_once_and_each_response_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def reading(text: str) -> list[str]:
        read.append(text)
        return words_of(text)

    monkeypatch.setattr("consolidator.lexical.words_of", reading)
    meter, groups = exchanges(10, 5)
    rows = await every_pair(meter, meter.transcript, groups)
    for group in groups:
        assert (await in_windows(meter, meter.transcript, group, window=50)).items() <= dict(rows)[group].items()
    assert Counter(text for text in read if text in meter.texts.values()).most_common(1)[0][1] == 1
    assert len(read) == len(groups) + 2 * 10


async def test_others_go_on_while_it_measures() -> None:
    meter, groups = exchanges(20, 5)
    turns, over = 0, False

    async def others() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await every_pair(meter, meter.transcript, groups)
    over = True
    await task
    assert turns >= 20 + len(groups)


async def test_two_may_measure_at_once() -> None:
    meter, groups = exchanges(5, 2)
    one, other = await asyncio.gather(*(every_pair(meter, meter.transcript, groups) for _ in range(2)))
    alone_again, _ = exchanges(5, 2)
    assert one == other == await every_pair(alone_again, alone_again.transcript, groups)
