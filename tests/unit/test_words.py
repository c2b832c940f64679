"""Words: how texts are compared and split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidator.words import cost, says_the_same, split, stems


@given(st.text(max_size=600), st.integers(5, 80))
def test_parts_lose_white_space_alone(text: str, limit: int) -> None:
    parts = split(text, limit)
    assert all(len(part) <= limit for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_parts_end_at_sentences() -> None:
    assert split("One two. Three four! Five six? Seven.", 20) == ["One two. Three four!", "Five six? Seven."]


@pytest.mark.parametrize(("one", "other", "same"), [
    ("Alice likes tea.", "Alice does like tea", True),
    ("The colour is purple", "The colour is purple.", True),
    ("She pays 875 a month", "She pays 940 a month", False),
    ("She likes tea", "She does not like tea", False),
    ("They met in Lisbon", "They met in Porto", False),
])
def test_g13_near_is_not_equal(one: str, other: str, same: bool) -> None:
    assert says_the_same(one, other) is same


def test_stems_join_forms_of_a_word() -> None:
    assert stems("moving moved moves") == stems("move") or len(stems("moving moved moves")) == 1


@given(st.text(max_size=200))
def test_cost_grows_with_the_text(text: str) -> None:
    assert 0 <= cost(text) <= cost(text + " and more")


@pytest.mark.parametrize(("one", "other", "same"), [
    ("Run the migrations before the tests.", "Run the tests before the migrations.", False),
    ("Warm the cache after deploying.", "Warm the cache before deploying.", False),
    ("Warm the cache after deploying.", "After a deploy, warm the cache.", True),
    ("Use rg instead of grep in this repo.", "In this repo use rg rather than grep.", True),
    ("Use rg instead of grep.", "Use grep instead of rg.", False),
    ("Check the lock file before installing.", "Before installing, check the lock file.", True),
    ("Ask before, not after.", "Ask before.", False),
    ("`pnpm test` failed; after `pnpm add redis` it ran.", "`pnpm test` failed; after `pnpm install` it ran.", False),
    ("Run `make test`.", "Run `make test`, which reads `.env`.", True),
])
def test_what_comes_before_what_is_part_of_what_is_said(one: str, other: str, same: bool) -> None:
    assert says_the_same(one, other) is same
    assert says_the_same(other, one) is same
