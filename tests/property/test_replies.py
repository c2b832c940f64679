"""Replies as no model should give them: nothing escapes but BadReply, and what is planned keeps every promise.

FUZZ_REPLIES sets how many are tried, 2,000 unless it is set: an eighth is made up, the others are recorded replies, damaged.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consolidator.actions import MAX_TEXT, MAX_WORDS, SPARE_ACTIONS, Reading, clean, parse, read, sound
from consolidator.errors import BadReply
from consolidator.models import Evidence, Memory, Observation, ObservationState, Trust, Version
from consolidator.planning import Guards, Planned, Planner, texts_to_embed
from consolidator.plans import Change, History
from consolidator.proposals import Batch, Candidate, Op, Proposal, ShownMemory, UpdateKind
from consolidator.testing.models import HashEmbedder, hash_vector
from tests.property.damage import MUTATIONS, STATEMENTS

REPLIES = int(os.environ.get("FUZZ_REPLIES", "2000"))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
RECORDED = tuple(
    json.loads(line)["answer"]
    for path in sorted((Path(__file__).parent.parent / "cassettes").glob("*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
)
DIMENSION = HashEmbedder().dimension
TOLD = ("Ana moved to Berlin in March.", "Bob plays chess on Tuesdays.", "Ana has two cats.", "Ana works in Porto.")


SAID = '{"actions": [], "nothing_durable": ["m1"]}'


@pytest.mark.parametrize("text", [
    SAID, f"{SAID} {SAID}", f"maybe {{this}}: {SAID}", f"so }}}} be it </think>\n{SAID}", f"<think>{SAID[:-9]}</think>{SAID}",
    f"<think>a</think> <think>b</think> {SAID}",
])
def test_what_stands_around_a_reply_changes_nothing(text: str) -> None:
    assert parse(text) == json.loads(SAID)


@pytest.mark.parametrize("told", ["{" * 30, "a <think> b", "</think>", "```", '{"actions": []}'])
def test_what_a_text_quotes_stays(told: str) -> None:
    actions = {"actions": [{"text": told}, {"text": "c </think> d"}]}
    assert parse(json.dumps(actions)) == actions


@pytest.mark.parametrize("text", [
    f'{{"actions": []}} {SAID}',  # a draft, or a reply that a memory quotes: nobody knows which is meant
    f"<think>{SAID}",  # thoughts that were cut
    '{"actions": ["' + "}" * 900 + '", ' + "[" * 900 + "]" * 900 + "]}",
    "}" * 9000 + '{"actions": ' + "[" * 9000 + "]" * 9000 + "}",
])
def test_what_is_not_one_reply_is_an_error(text: str) -> None:
    with pytest.raises(BadReply):
        parse(text)


# what a reply is read against


def _memory(id: str, text: str, n: int) -> Memory:
    trust = Trust.TOOL if n % 4 == 3 else Trust.USER
    return Memory(id=id, bank="b", text=text, source=f"s{n % 3}", speaker="Ana", retained_at=NOW, trust=trust)


def _history(n: int) -> History:
    """An observation with two versions; the first has five sources, the second an operator's word, all of them one memory."""
    sources = [f"old{k}" for k in range(5 if n == 0 else 1)]
    trust = Trust.OPERATOR if n == 1 else Trust.USER
    old = NOW - timedelta(days=9)
    evidence = tuple(Evidence(memory_id=f"x{n}-{s}", source=s, occurred_at=old, trust=trust) for s in sources)
    evidence += (Evidence(memory_id="shared", source="old0", occurred_at=old),)
    id, lineage = f"00000000-0000-0000-0000-00000000000{n}", frozenset(e.memory_id for e in evidence)
    texts = (f"Earlier: {STATEMENTS[n]}", STATEMENTS[n])
    versions = tuple(
        Version(observation_id=id, number=number, text=text, digest="", lineage=lineage, at=NOW)
        for number, text in enumerate(texts, start=1)
    )
    head = Observation(
        id=id, bank="b", text=STATEMENTS[n], version=2, rev=7 + n, evidence=evidence, created_at=NOW, updated_at=NOW
    )
    return History(observation=head, versions=versions, vectors={2: hash_vector(STATEMENTS[n], DIMENSION)})


HISTORIES = {history.observation.id: history for history in map(_history, range(len(STATEMENTS)))}


@lru_cache(maxsize=16)
def batch_of(memories: int) -> Batch:
    told = [_memory(f"id-m{n}", f"{TOLD[n % 4]} ({n})", n) for n in range(1, memories + 1)]
    before = [_memory(f"id-c{n}", f"Said before {n}: Dora sails.", n) for n in (1, 2)]
    known = [history.observation for history in HISTORIES.values()]
    return Batch(
        bank="b", now=NOW, memories=tuple(ShownMemory(alias=f"m{n}", memory=m) for n, m in enumerate(told, start=1)),
        context=tuple(ShownMemory(alias=f"c{n}", memory=m) for n, m in enumerate(before, start=1)),
        candidates=tuple(Candidate(alias=f"o{n}", observation=o) for n, o in enumerate(known, start=1)),
    )


# the promises


def judge(text: str, batch: Batch) -> str:
    """How a reply ends, with every promise checked on the way."""
    try:
        value = parse(text)
    except BadReply:
        return "not understood"
    reading = read(value, batch)
    kept = sound(reading)
    for each in (reading, kept):
        check_reading(each, value, batch)
    assert set(kept.actions) <= set(reading.actions)
    left = {shown.alias for shown in batch.memories} - kept.accounted
    assert not left or kept.faults  # what is left has its error
    if not kept.actions and not kept.nothing:
        assert kept.faults
        return "nothing usable"
    proposal = Proposal(actions=kept.actions, nothing=kept.nothing, by="fuzz")
    vectors = {text: hash_vector(text, DIMENSION) for text in texts_to_embed(proposal)}
    planned = Planner(
        intent="6f1f3c1e-52c4-5b6e-9d5a-0c8a9e6b7d42", batch=batch, known=HISTORIES, vectors=vectors, now=NOW, by="fuzz",
        digest=lambda _: "digest",
    ).plan(proposal)
    check_plan(planned, proposal, batch)
    return "some is left" if left else "all is accounted for"


def check_reading(reading: Reading, value: Any, batch: Batch) -> None:
    new = {shown.alias for shown in batch.memories}
    targets = [action.observation for action in reading.actions if action.observation]
    assert len(targets) == len(set(targets))
    assert set(targets) <= {candidate.alias for candidate in batch.candidates}
    assert len(reading.actions) <= len(new) + SPARE_ACTIONS
    for action in reading.actions:
        assert action.op in get_args(Op)
        assert (action.change in get_args(UpdateKind)) if action.op == "update" else action.change is None
        assert (action.observation is None) == (action.op == "create")
        assert action.confidence is None or (type(action.confidence) is float and 0 <= action.confidence <= 1)
        assert set(action.evidence) <= {shown.alias for shown in batch.shown}
        assert set(action.evidence) & new
        assert bool(action.text) == (action.op != "delete")
        assert len(action.text.split()) <= MAX_WORDS
        assert len(action.text) <= MAX_TEXT
        for told in (action.text, action.reason):
            assert told == clean(told)
            told.encode()
    given = [raw.get("confidence") for raw in value["actions"] if isinstance(raw, dict)] if reading.actions else []
    numbers = {confidence for confidence in given if type(confidence) in (int, float)}
    assert {action.confidence for action in reading.actions} <= numbers | {None}  # true is no number
    declared = [nothing.memory for nothing in reading.nothing]
    assert len(declared) == len(set(declared))
    assert not {alias for action in reading.actions for alias in action.evidence} & set(declared)
    assert set(declared) <= new & strings_in(value["nothing_durable"] if declared else [])  # the reply said so


def strings_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return strings_in(list(value.values()))
    return set().union(*map(strings_in, value)) if isinstance(value, list) else {value} if isinstance(value, str) else set()


def check_plan(planned: Planned, proposal: Proposal, batch: Batch) -> None:
    ids = [change.after.id for change in planned.changes]
    assert len(ids) == len(set(ids))
    assert planned.count("deleted") <= Guards().max_deletes
    assert len(planned.entries) == len(planned.done) >= len(proposal.actions) + len(proposal.nothing)
    cited = {memory for entry in planned.entries for memory in entry.cites}
    accounted = {alias for action in proposal.actions for alias in action.evidence} | {n.memory for n in proposal.nothing}
    assert {batch.memory(alias).id for alias in accounted} <= cited
    seen = {shown.memory.id for shown in batch.shown}.union(*(history.current.lineage for history in HISTORIES.values()))
    for change in planned.changes:
        check_change(change, seen)
    check_ends(planned)


def check_ends(planned: Planned) -> None:
    """What an action gave to an observation is there still, or went over to the one that it was merged with."""
    after = {change.after.id: change.after for change in planned.changes}
    proofs = [{e.memory_id for e in o.evidence} for o in after.values() if o.state is ObservationState.LIVE]
    merged = {done.observation_id for done in planned.done if done.action == "merged"}
    for done in planned.done:
        if done.action in ("created", "updated", "reinforced", "contested"):
            given = after[done.observation_id or ""]
            live = given.state is ObservationState.LIVE
            assert live or given.id in merged
            assert set(done.evidence) <= {e.memory_id for e in given.evidence}
            assert live or any(set(done.evidence) <= proof for proof in proofs)
    rewritten = {done.observation_id for done in planned.done if done.action == "updated"}
    assert not rewritten & merged  # only what kept its text goes over to another


def check_change(change: Change, seen: set[str]) -> None:
    after, before = change.after, HISTORIES.get(change.after.id)
    cited = [e.memory_id for e in after.evidence]
    assert len(cited) == len(set(cited)) > 0
    assert after.proof_count == len({e.source for e in after.evidence if e.supports})
    assert set(cited) <= seen
    assert change.lineage <= seen
    assert math.isfinite(after.confidence)
    assert 0 <= after.confidence <= 1
    assert after.confidence >= Guards().min_confidence
    assert len(after.text.split()) <= MAX_WORDS
    if before is None:
        assert (change.base_rev, after.rev, after.version) == (None, 0, 1)
        assert change.version is not None
        assert change.vector == hash_vector(after.text, DIMENSION)
    else:
        check_successor(change, before)
    if change.version is not None:
        told = change.version
        assert (told.number, told.text, told.state, told.lineage) == (after.version, after.text, after.state, change.lineage)


def check_successor(change: Change, before: History) -> None:
    after, held = change.after, before.observation
    assert (change.base_rev, after.rev) == (held.rev, held.rev + 1)
    assert {e.memory_id for e in held.evidence} <= {e.memory_id for e in after.evidence}
    assert after.created_at == held.created_at
    if change.version is None:
        assert (after.text, after.version, after.state) == (held.text, held.version, held.state)
    else:
        assert after.version == held.version + 1 or after.state is ObservationState.RETRACTED
        # the batch holds nobody's word above a user's: nothing of an operator's changes, but that it may go to its twin
        assert held.trust < Trust.OPERATOR or change.version.change == "merge"


# replies that are made up

ALIASES = st.sampled_from(["m1", "m2", "m3", "c1", "c2", "o1", "o2", "o6"])
STRANGE = st.sampled_from(["", "m9", "o7", "M1", " m1", "m1\u200b", "\ud800", "null", *HISTORIES])
NUMBERS = st.sampled_from([0, 1, 0.7, 0.49, 0.5, -1, 7, 90, 10**400, -(10**400), float("nan"), float("inf"), 1e-320])
SENTENCES = st.sampled_from([
    *STATEMENTS, *TOLD, f"  {STATEMENTS[0].upper()} ", "Ana lives in Porto.", "Ana has 2 cats.", "word " * 31, "x" * 401,
    "\u202eAna\u202c lives\u200b here.", "<think>no</think>", "", "\u200b", "{" * 25,
])
KEYS = ALIASES | STRANGE | st.sampled_from(["op", "actions"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | ALIASES | STRANGE | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 11).flatmap(lambda n: JUNK if n == 0 else usual)


ACTION = mostly(st.fixed_dictionaries(
    {"op": mostly(st.sampled_from(get_args(Op))), "evidence": mostly(st.lists(mostly(ALIASES), min_size=1, max_size=3))},
    optional={
        "text": mostly(SENTENCES | st.text(max_size=60)), "confidence": mostly(NUMBERS | st.none()),
        "observation": mostly(st.sampled_from(["o1", "o2", "o3", "o4"])), "reason": mostly(st.text(max_size=10)),
        "change": mostly(st.sampled_from(get_args(UpdateKind))),
    },
))
NOTHING = mostly(st.fixed_dictionaries({"memory": mostly(ALIASES)}, optional={"reason": JUNK}))
REPLY = mostly(st.fixed_dictionaries(
    {"actions": mostly(st.lists(ACTION, max_size=9))}, optional={"nothing_durable": mostly(st.lists(NOTHING, max_size=4))}
))


@settings(max_examples=REPLIES // 8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(reply=REPLY, ascii=st.booleans())
def test_replies_that_are_made_up(reply: Any, ascii: bool) -> None:
    judge(json.dumps(reply, ensure_ascii=ascii), batch_of(3))


# recorded replies, damaged


def damaged(number: int) -> tuple[str, Batch]:
    """The reply of this number and the batch that it was about; the same for each run."""
    chance = random.Random(number)
    text = chance.choice(RECORDED)
    memories = max([int(n) for n in re.findall(r'"m(\d)"', text)], default=1)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        text = chance.choice(MUTATIONS)(chance, text)
    return text, batch_of(memories)


def test_recorded_replies_that_are_damaged() -> None:
    ends: Counter[str] = Counter()
    for number in range(REPLIES - REPLIES // 8):
        text, batch = damaged(number)
        try:
            ends[judge(text, batch)] += 1
        except Exception as error:
            error.add_note(f"damaged({number}) is {ascii(text)[:500]}")
            raise
    assert set(ends) == {"not understood", "nothing usable", "some is left", "all is accounted for"}  # each road was taken


def test_recorded_replies_that_are_cut() -> None:
    """No beginning of a reply passes for a reply."""
    whole = [text.rstrip().removesuffix("```").rstrip() for text in RECORDED]
    stride = max(1, 2 * sum(map(len, whole)) // REPLIES)
    for text in whole:
        for length in range(len(text) % stride, len(text), stride):
            with pytest.raises(BadReply):
                parse(text[:length])
