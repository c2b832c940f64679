"""Reading replies: every fault is named, what is sound is kept, and nothing raises but BadReply."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consolidator.actions import MAX_WORDS, clean, parse, read, reply_schema, sound
from consolidator.errors import BadReply
from consolidator.models import Evidence, Memory, Observation
from consolidator.proposals import Batch, Candidate, ShownMemory

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def batch(memories: int = 3, observations: int = 2) -> Batch:
    def candidate(n: int) -> Candidate:
        evidence = (Evidence(memory_id="x", source="s", occurred_at=NOW),)
        known = Observation(id=f"id{n}", bank="b", text=f"Fact {n}.", evidence=evidence, created_at=NOW, updated_at=NOW)
        return Candidate(alias=f"o{n}", observation=known)

    def shown(n: int) -> ShownMemory:
        return ShownMemory(alias=f"m{n}", memory=Memory(id=f"id{n}", bank="b", text=f"Said {n}.", source="s", retained_at=NOW))

    return Batch(
        bank="b", now=NOW, memories=tuple(shown(n + 1) for n in range(memories)),
        candidates=tuple(candidate(n + 1) for n in range(observations)),
    )


def act(op: Any = "create", **fields: Any) -> dict[str, Any]:
    target = {} if op == "create" else {"observation": "o1"}
    change = {"change": "refine"} if op == "update" else {}
    told = {"op": op, "text": "Alice likes tea.", "confidence": 0.8, "evidence": ["m1"], "reason": ""}
    return {**told, **target, **change, **fields}


def reply(*actions: Any, nothing: Any = ("m1", "m2", "m3")) -> dict[str, Any]:
    return {"actions": list(actions), "nothing_durable": [{"memory": m, "reason": ""} for m in nothing]}


FAULTS: dict[str, tuple[Any, str]] = {
    "e04 unknown target": (act("update", observation="o9"), "o9"),
    "e04 target missing": (act("delete", observation=None), "no observation shown"),
    "e10 confidence text": (act(confidence="high"), "number from 0 to 1"),
    "e10 confidence bool": (act(confidence=True), "number from 0 to 1"),
    "e10 confidence 7": (act(confidence=7), "between 0 and 1"),
    "e10 confidence inf": (act(confidence=float("inf")), "between 0 and 1"),
    "e11 op in capitals": (act("CREATE"), "op must be"),
    "e11 op is a list": (act(op=["create"]), "op must be"),
    "e12 too many words": (act(text="word " * (MAX_WORDS + 1)), "at most 30 words"),
    "e12 too long": (act(text="x" * 401), "400 characters"),
    "e23 unknown memory": (act(evidence=["m9"]), "m9"),
    "e23 a real id": (act(evidence=["5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11"]), "no memory shown"),
    "e28 no evidence": (act(evidence=[]), "at least one memory"),
    "e28 evidence is a text": (act(evidence="m1"), "must be a list"),
    "blank text": (act(text=" \u200b "), "text is missing"),
    "unknown change": (act("update", change="improve"), "change must be"),
    "no object": ("create", "is no object"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_action_is_refused_by_name(case: str) -> None:
    action, told = FAULTS[case]
    reading = read(reply(action), batch())
    assert reading.actions == ()
    assert any(told in fault.message for fault in reading.faults), reading.faults


def test_e06_one_action_for_each_observation() -> None:
    reading = read(reply(act("update"), act("delete", evidence=["m2"]), nothing=["m3"]), batch())
    assert [a.op for a in reading.actions] == ["update"]
    assert "at most one action" in reading.faults[0].message
    assert sound(reading).actions == ()  # both rest on o1: they stand or fall together


def test_e12_too_many_actions() -> None:
    reading = read(reply(*(act(text=f"Fact number {n}.") for n in range(20)), nothing=[]), batch())
    assert len(reading.actions) == 7
    assert any("more than 7 actions" in fault.message for fault in reading.faults)


def test_every_memory_is_accounted_for() -> None:
    reading = read(reply(act(), nothing=["m2"]), batch())
    assert [f.message for f in reading.faults] == ["m3 is neither cited nor declared nothing_durable"]
    assert reading.accounted == {"m1", "m2"}


def test_what_is_cited_is_not_also_nothing() -> None:
    reading = read(reply(act()), batch())
    assert ([n.memory for n in reading.nothing], reading.faults) == (["m2", "m3"], ())


def test_g08_g09_a_fault_costs_its_own_group_alone() -> None:
    good = act(evidence=["m3"], text="Bob paints.")
    removal, broken = act("delete", evidence=["m1"]), act(evidence=["m1"], confidence=7)
    kept = sound(read(reply(good, removal, broken, nothing=["m2"]), batch()))
    assert [a.text for a in kept.actions] == ["Bob paints."]  # the delete fell with its replacement
    assert [n.memory for n in kept.nothing] == ["m2"]


@pytest.mark.parametrize("text", [
    '{"actions": [], "nothing_durable": []}',
    'Sure! Here it is:\n```json\n{"actions": [], "nothing_durable": []}\n```\nAnything else?',
    '<think>{"actions": [1]} or [maybe]</think>{"actions": [], "nothing_durable": []}',
    '```\n{"actions": [], "nothing_durable": []}\n```',
    'With {braces} before: {"actions": [], "nothing_durable": []}',
])
def test_g28_the_object_is_found(text: str) -> None:
    assert parse(text) == {"actions": [], "nothing_durable": []}


@pytest.mark.parametrize("text", [
    "", "[]", "null", "I see nothing to do [at all].", '{"actions": [', '{"actions": [{"op": "create"', '{"actions": NaN}',
    '{"op": "create", "text": "x"}', '{"actions": ' + "[" * 30 + "]" * 30 + "}", "x" * 70_000,
])
def test_e11_what_was_not_understood_is_an_error(text: str) -> None:
    with pytest.raises(BadReply):
        parse(text)


def test_texts_are_cleaned() -> None:
    assert clean("  a\u202eb\u200b\x07\n c\u0301 ") == "ab ć"


GOOD = json.dumps(reply(act(), act("update", evidence=["m2"]), nothing=["m3"]))


@given(st.data())
def test_mutated_replies_never_raise_and_never_pass_what_breaks_a_rule(data: st.DataObject) -> None:
    chance = random.Random(data.draw(st.integers()))
    text = list(GOOD)
    for _ in range(chance.randint(1, 12)):
        where = chance.randrange(len(text))
        text[where] = chance.choice(["", text[where] * 2, chance.choice('{}[]",:0truenull-1e9m9o9'), "\\u0000"])
    try:
        reading = read(parse("".join(text)), batch())
    except BadReply:
        return
    holds(sound(reading))


KEYS = ["actions", "nothing_durable", "op", "observation", "text", "confidence", "evidence", "change", "memory"]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["m1", "o1", "create"])
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=25,
)


@given(json_values | st.builds(lambda a, n: {"actions": a, "nothing_durable": n}, st.lists(json_values, max_size=4), json_values))
def test_any_value_is_read(value: object) -> None:
    holds(sound(read(value, batch())))


def holds(reading: Any) -> None:
    targets = [a.observation for a in reading.actions if a.observation]
    assert len(targets) == len(set(targets))
    for action in reading.actions:
        assert set(action.evidence) <= {"m1", "m2", "m3"}
        assert action.evidence
        assert action.observation in ({None} if action.op == "create" else {"o1", "o2"})
        assert action.confidence is None or 0 <= action.confidence <= 1
        assert len(action.text.split()) <= MAX_WORDS


def test_the_schema_keeps_to_what_strict_servers_take() -> None:
    text = json.dumps(reply_schema(8, 15, 2))
    assert not any(word in text for word in ("oneOf", "anyOf", "maxLength", "minimum", "maxItems", "format"))

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["additionalProperties"] is False
                assert sorted(node["required"]) == sorted(node["properties"])
            for inner in node.values():
                check(inner)

    check(reply_schema(8, 15, 2))
