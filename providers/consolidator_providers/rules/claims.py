"""What the memories of a batch state: durable spans, put so that they stand on their own. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from consolidator.actions import clean
from consolidator.models import Memory
from consolidator.proposals import ShownMemory
from consolidator_providers.rules import sentences
from consolidator_providers.rules.dates import with_dates
from consolidator_providers.rules.durable import (
    CHANGE_OR_DATE,
    DANGLING,
    GREETING,
    PREFERENCE,
    REQUEST,
    dangling,
    has_verb,
    judge,
    opens_with_subject,
    starts_in_the_air,
)
from consolidator_providers.rules.lexicon import HEDGE
from consolidator_providers.rules.persons import in_third_person, speaks_of_itself
from consolidator_providers.rules.sentences import MAX_TEXT, MAX_WORDS, bare, closed, count, shorten, spoken

SPANS = 3  # observations a memory may give
ROOM = 26  # words of a span; the rest is for the speaker and a resolved date
JOINED = 22  # words up to which neighbours are one statement
QUESTION_WORDS = 12  # of what another speaker asked before
REMARK_WORDS = 8  # of what another speaker said before
LONE = 4.0  # score from which a statement that opens with a pronoun is kept without what it points at
CONFIDENCE = {"hedged": 0.5, "stated": 0.6, "changed": 0.75, "corrected": 0.85}  # what a statement is worth
REPEATED = 0.1  # added by each repetition, up to 0.9
NAME = re.compile(r"[\w][\w .'\u2019-]{0,47}")
ENDING = re.compile(r"\b(?:gave up|given up|stopped|no longer|quit|cancell?ed)\b", re.IGNORECASE)
DENIAL = re.compile(r"(?:no|nope)\b", re.IGNORECASE)
OTHERS = re.compile(r"\b(?:we|us|our|you|your)\b", re.IGNORECASE)
PRONOUN = re.compile(r"\b(?:it|he|she|they|that|this|these|those|them|her|his|their|its|there|here|one|both)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A statement of one memory. `body` is the wording as said, `text` stands on its own; `asked` answers another memory."""

    aliases: tuple[str, ...]
    speaker: str | None
    body: str
    asked: str
    text: str
    score: float
    confidence: float
    vector: list[float] = field(default_factory=list, repr=False)


@dataclass(frozen=True, slots=True)
class Heard:
    """A memory with its claims, best first where there are too many; `reason` says why there are none."""

    shown: ShownMemory
    claims: tuple[Claim, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a statement answers: the other speaker's last words, and the memory that holds them."""

    alias: str
    remark: str
    asks: bool

    @property
    def lead(self) -> str:
        return f', asked "{self.remark}?"' if self.asks else f', in reply to "{self.remark}"'


@dataclass(frozen=True, slots=True)
class _Span:
    parts: tuple[str, ...]
    score: float
    leans: bool  # on what was said before it
    first: int  # positions in the memory
    last: int
    statement: bool = True  # False: a question or a request stands in it, so that it can only be quoted

    @property
    def text(self) -> str:
        return " ".join(closed(part) for part in self.parts)


def speaker_of(memory: Memory) -> str | None:
    """The speaker as a name that can stand in a sentence; None for what is no such name."""
    name = clean(memory.speaker or "")
    return name if NAME.fullmatch(name) and count(name) <= 4 else None


def context_of(memories: Sequence[ShownMemory], at: int) -> Context | None:
    """What another speaker said last, just before, in the same source: a short question, or a short remark."""
    if at == 0:
        return None
    before, now = memories[at - 1], memories[at]
    one, other = before.memory, now.memory
    if one.source != other.source or speaker_of(one) in (None, speaker_of(other)) or speaker_of(other) is None:
        return None
    if one.sequence is not None and other.sequence is not None and other.sequence - one.sequence != 1:
        return None
    said = spoken(sentences.own_words(one.text)[0])
    last = next((one for one in reversed(said[-2:]) if one.endswith("?")), said[-1] if said else "")
    last = "" if "⟦⟧" in last else bare(last)
    asks = last.endswith("?")
    remark = shorten(last.rstrip("?.! "), QUESTION_WORDS if asks else REMARK_WORDS).replace('"', "'")
    return Context(before.alias, remark, asks) if count(remark) > 1 else None


def listen(shown: ShownMemory, context: Context | None, text: str | None = None) -> Heard:
    """What a memory states; `text` replaces its own where a part of it was dealt with already."""
    own, quotes = sentences.own_words(shown.memory.text if text is None else text)
    said = spoken(own)
    spans, reason = _spans(said, answer=bool(context and context.asks))
    made = [claim for span in spans if (claim := _claim(shown, span, context)) is not None]
    if spans and not made:
        reason = "nothing in it can be put into one short sentence that stands on its own"
    if not made and quotes:
        reason = "quotes somebody else's words"
    return Heard(shown, tuple(made), reason or "nothing that lasts")


def _spans(said: Sequence[str], *, answer: bool) -> tuple[list[_Span], str]:
    """The best spans in the order said, and the reason where there are none."""
    spans: list[_Span] = []
    reasons: list[str] = []
    plain = [bare(raw) if at == 0 or not DENIAL.match(raw) else raw for at, raw in enumerate(said)]
    for at, sentence in enumerate(plain):
        if spans and spans[-1].last >= at:
            continue
        verdict = judge(sentence, answer=answer and at < 2)
        if not verdict.durable and not (verdict.fragment and at and plain[at - 1].endswith("?")):
            reasons.append(verdict.reason)
            continue
        span = _Span((sentence,), verdict.score, dangling(sentence), at, at)
        following = plain[at + 1] if at + 1 < len(plain) else ""
        if count(sentence) < 4 and 0 < count(following) < JOINED and "?" not in following and "⟦⟧" not in following:
            span = _Span((sentence, following), verdict.score, span.leans, at, at + 1)
        if spans and spans[-1].last == at - 1 and _joins(spans[-1], span):
            spans[-1] = _joined(spans[-1], span)
        else:
            spans.append(_with_context(span, plain))
    return _best(spans), "; ".join(dict.fromkeys(reasons))


def _joins(one: _Span, other: _Span) -> bool:
    together = count(one.text) + count(other.text)
    if other.leans:
        return together <= ROOM
    taste, dated = (bool(PREFERENCE.search(one.text)), bool(PREFERENCE.search(other.text))), (one, other)
    ended = ENDING.search(one.text) or ENDING.search(other.text)
    apart = ended or (taste[0] != taste[1] and CHANGE_OR_DATE.search(dated[taste[0]].text))
    return together <= JOINED and not one.leans and not apart


def _joined(one: _Span, other: _Span) -> _Span:
    statement = one.statement and other.statement
    return _Span((*one.parts, *other.parts), one.score + other.score, one.leans, one.first, other.last, statement)


def _with_context(span: _Span, said: Sequence[str]) -> _Span:
    """The span with the sentence before it, where it leans on that and both fit."""
    before = said[span.first - 1] if span.first else ""
    usable = before and "⟦⟧" not in before and not GREETING.match(before) and count(before) + count(span.text) <= ROOM
    if not span.leans or not usable:
        return span
    statement = not (before.endswith("?") or REQUEST.match(before))
    return _Span((before, *span.parts), span.score, dangling(before), span.first - 1, span.last, statement)


def _best(spans: list[_Span]) -> list[_Span]:
    best = sorted(spans, key=lambda span: -span.score)[:SPANS]
    return [span for span in spans if span in best]


def _claim(shown: ShownMemory, span: _Span, context: Context | None) -> Claim | None:
    memory, speaker = shown.memory, speaker_of(shown.memory)
    near = context is not None and (span.first == 0 or (context.asks and span.first == 1))
    open_start = starts_in_the_air(span.text) or (context is not None and context.asks and not has_verb(span.parts[0]))
    asked = context if near and speaker and span.leans and open_start else None
    room = min(ROOM, MAX_WORDS - count(asked.remark) - 5) if asked else ROOM
    body = _within(span.text, room)
    if not body and asked:
        asked, body = None, _within(span.text, ROOM)
    if not body or (span.leans and not asked and len(span.parts) == 1 and span.score < LONE and DANGLING.match(body)):
        return None
    text = _put(body, speaker, memory, asked, span.leans or not span.statement)
    if text is None:
        return None
    return Claim(
        aliases=(asked.alias, shown.alias) if asked else (shown.alias,),
        speaker=speaker,
        body=body,
        asked=asked.remark if asked else "",
        text=text,
        score=span.score,
        confidence=CONFIDENCE["hedged" if HEDGE.search(body) else "stated"],
        vector=shown.vector,
    )


def _within(text: str, room: int) -> str:
    return text if count(text) <= room else closed(shorten(text, room))


def _put(body: str, speaker: str | None, memory: Memory, asked: Context | None, leans: bool) -> str | None:
    """The statement on its own: rewritten where that is safe, else quoted, else None."""
    when = memory.occurred_at.date() if memory.occurred_at else None
    if speaker and not asked and not leans:
        plain = in_third_person(body, speaker) if speaks_of_itself(body) else _impersonal(body)
        if plain and fits(dated := with_dates(plain, when)):
            return clean(dated)
    quoted = body.replace('"', "'")
    lead = f"{speaker}{asked.lead if asked else ''}: " if speaker else ""
    if not speaker and not speaks_of_itself(body):
        options = [with_dates(body, when), body]
    else:
        options = [f'{lead}"{with_dates(quoted, when, "[]")}"', f'{lead}"{quoted}"']
    return next((clean(option) for option in options if fits(option)), None)


def _impersonal(body: str) -> str | None:
    """A sentence about somebody or something that it names first, without any person left open; else None."""
    pointing = PRONOUN.search(body) or OTHERS.search(body)
    addressed = re.match(r"\w+,", body)
    return body if opens_with_subject(body) and not addressed and not pointing and '"' not in body else None


def fits(text: str) -> bool:
    return count(clean(text)) <= MAX_WORDS and len(clean(text)) <= MAX_TEXT
