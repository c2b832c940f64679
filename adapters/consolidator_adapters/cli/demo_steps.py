"""The demo's steps on a bank. Each shows what it did, and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from consolidator.errors import NotFound
from consolidator.models import Trend
from consolidator_adapters.cli import demo_views
from consolidator_adapters.cli.call import Call
from consolidator_adapters.cli.demo_measure import HEAD, Changed, Kept, Measured, Said, carried, measure, said
from consolidator_adapters.cli.reading import memories_of
from consolidator_adapters.cli.writing import watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consolidator.engine import Bank
    from consolidator.models import Hit, Observation
    from consolidator_adapters.conversation import Conversation, Question

TELLING = 12
CHANGED = 5  # of them, at least, with a change of state
MOVING = 4  # and with news of the last weeks
FIRST = ("q19", "q17", "q25", "q40", "q51", "q16", "q08", "q22", "q24")  # the order in which questions are shown
ONLY_FORGOTTEN = "q51"  # what the forgotten session alone answers
HITS_SHOWN = 2
CHANGES_SHOWN = 6


class Show:
    """Headings, views and the time of each step; silent where a JSON document is asked for."""

    def __init__(self, call: Call) -> None:
        self.out = Console(quiet=True) if call.json else call.out
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, title: str) -> Iterator[None]:
        self.line(demo_views.heading(f"{len(self.seconds)}  {title}" if self.seconds else title))
        since = monotonic()
        yield
        self.seconds[name] = round(monotonic() - since, 2)
        self.line(Text(f"({self.seconds[name]:.1f} s)", "bright_black"))

    def line(self, shown: RenderableType) -> None:
        self.out.print(shown)


@dataclass(slots=True, kw_only=True)
class Tour:
    """What the steps share. `ids`: the memory that each turn became."""

    call: Call
    show: Show
    bank: Bank
    conversation: Conversation
    questions: Sequence[Question]
    asked: int
    ids: dict[str, str] = field(default_factory=dict)
    answers: dict[str, list[Hit]] = field(default_factory=dict)  # of every shipped question, as of the last look
    said_before: list[Said] = field(default_factory=list)

    async def walk(self) -> dict[str, Any]:
        """All steps; returns what each gave."""
        told: dict[str, Any] = {}
        for name, title, work in (
            ("retain", "Retain: what was said, word for word", self.retain),
            ("consolidate", "Consolidate: statements with evidence, in a bank of their own", self.consolidate),
            ("observations", "Observations: what was distilled", self.observations),
            ("recall", "Recall: every rank explains itself", self.recall),
            ("forget", "Forget: provable erasure", self.forget),
            ("after", "Afterwards: gone is gone, and nothing else is lost", self.afterwards),
        ):
            with self.show.step(name, title):
                told[name] = await work()
        return told

    async def retain(self) -> dict[str, Any]:
        sessions = self.conversation.sessions
        with self.call.progress() as bar:
            for session in bar.track(sessions, description="retain"):
                kept = await self.bank.retain(list(session.items()), source=session.source)
                self.ids |= {f"{session.source}:{m.sequence}": m.id for m in kept.memories}
        self.show.line(demo_views.conversation(self.conversation, len(self.ids)))
        return {"sessions": len(sessions), "memories": len(self.ids)}

    async def consolidate(self) -> Any:
        with self.call.progress() as bar:
            report = await watched(self.bank, bar)
        by = {entry.by for entry in await self.bank.journal(limit=10)}
        self.show.line(demo_views.report(report, sorted(by)))
        return report

    async def observations(self) -> list[Observation]:
        found = await self.bank.observations()
        versions = {o.id: await self.bank.history(o.id) for o in found}
        changed = {id for id, told in versions.items() if any(version.change == "state_change" for version in told)}
        chosen = telling(found, changed)
        evidence = await memories_of(self.bank, (e.memory_id for o in chosen for e in o.evidence))
        self.show.line(demo_views.observations(chosen, evidence, versions, total=len(found), changed=changed))
        return chosen

    async def recall(self) -> dict[str, Any]:
        shown, told = in_order(self.questions, self.asked), []
        self.show.line(Text("A star marks a hit that brings a turn which answers the question.", "bright_black"))
        for question in shown:
            found = await self.bank.recall(question.text, top_k=HEAD, explain=True)
            wanted = self._wanted(question.evidence)
            self.show.line(demo_views.question(question.text, question.answer, found[:HITS_SHOWN], wanted))
            told.append({"question": question.text, "answer": question.answer, "hits": found})
        await self._ask_all()
        measured = self._measured({question.id: question.evidence for question in self.questions})
        self.show.line(demo_views.measured("All shipped questions, measured now", measured))
        return {"questions": told, "measured": asdict(measured)}

    async def forget(self) -> dict[str, Any]:
        source = self.conversation.forget
        self.said_before = await self._said()
        planned = await self.bank.forget(source=source, dry_run=True)
        before = {row.id: await self._text(row.id) for row in planned.observations}
        receipt = await self.bank.forget(source=source)
        changes = [Changed(row.case.value, before.get(row.id), await self._text(row.id)) for row in receipt.observations]
        outcome = await self.bank.verify(receipt)
        place = self.conversation.places[source]
        self.show.line(demo_views.forgotten(source, place, receipt, mixed(changes, CHANGES_SHOWN), outcome))
        return {
            "receipt": receipt, "verification": {**outcome.model_dump(mode="json"), "ok": outcome.ok},
            "changes": [asdict(change) for change in changes],
        }

    async def _text(self, observation: str) -> str | None:
        try:
            return (await self.bank.observation(observation)).text or None
        except NotFound:
            return None

    async def afterwards(self) -> dict[str, Any]:
        lost = next(question for question in self.questions if question.id == ONLY_FORGOTTEN)
        found = await self.bank.recall(lost.text, top_k=HEAD, explain=True)
        self.show.line(demo_views.question(lost.text, "no longer known", found[:HITS_SHOWN], set()))
        await self._ask_all()
        said_after = await self._said()
        self.show.line(demo_views.said(self.phrases, self.said_before, said_after))
        with self.call.progress() as bar:
            report = await watched(self.bank, bar)
        if report.passes:
            await self._ask_all()
        said_again = await self._said()
        self.show.line(demo_views.again(report, sum(place.found for place in said_again)))
        source = self.conversation.forget
        still = {question.id: question.evidence_without(source) for question in self.questions}
        kept = [self._kept(q, still[q.id]) for q in self.questions if still[q.id] and still[q.id] != q.evidence]
        self.show.line(demo_views.corroborated(kept))
        measured = self._measured({id: turns for id, turns in still.items() if turns})
        self.show.line(demo_views.measured("All questions that can still be answered", measured))
        return {
            "question": lost.text, "hits": found, "phrases": len(self.phrases), "said_before": rows(self.said_before),
            "said_after": rows(said_after), "consolidated_again": report, "said_after_consolidating_again": rows(said_again),
            "still_answered": rows(kept), "measured": asdict(measured),
        }

    def _kept(self, question: Question, turns: Sequence[str]) -> Kept:
        """A fact that the forgotten session had told too: the first hit that brings it now."""
        wanted, found = self._wanted(turns), self.answers[question.id][:HEAD]
        rank = next((rank for rank, hit in enumerate(found, start=1) if carried(hit) & wanted), None)
        return Kept(question.text, question.after_forgetting.answer or "", rank, found[rank - 1].text if rank else "")

    async def _ask_all(self) -> None:
        self.answers = {question.id: await self.bank.recall(question.text) for question in self.questions}

    def _measured(self, turns: Mapping[str, Sequence[str]]) -> Measured:
        return measure((self.answers[id], self._wanted(wanted)) for id, wanted in turns.items())

    def _wanted(self, turns: Sequence[str]) -> set[str]:
        return {self.ids[turn] for turn in turns}

    @property
    def phrases(self) -> list[str]:
        """What only the forgotten session says."""
        return sorted({phrase for question in self.questions for phrase in question.after_forgetting.must_not_say})

    async def _said(self) -> list[Said]:
        """The phrases that can still be read, place by place."""
        hits = [hit for found in self.answers.values() for hit in found]
        observations = await self.bank.observations()
        histories = [version for o in observations for version in await self.bank.history(o.id)]
        journal = await self.bank.journal(limit=100_000)
        places = {
            "answers of recall": [text for hit in hits for text in (hit.text, hit.quote.spoken if hit.quote else "") if text],
            "observations": [o.text for o in observations],
            "histories": [text for version in histories for text in (version.text, version.reason) if text],
            "journal": [text for entry in journal for text in (entry.before, entry.after, entry.reason) if text],
        }
        return [Said(name, len(texts), len(said(self.phrases, texts))) for name, texts in places.items()]


def telling(found: Sequence[Observation], changed: set[str]) -> list[Observation]:
    """Those with the most sources, some whose state changed, some that the last weeks bear on; the best proven first."""
    ranked = sorted(found, key=lambda o: (-o.proof_count, -o.version, o.created_at, o.id))
    chosen = {o.id for o in [o for o in ranked if o.id in changed][:CHANGED]}
    chosen |= {o.id for o in [o for o in ranked if o.id not in chosen and o.trend is not Trend.STALE][:MOVING]}
    chosen |= {o.id for o in [o for o in ranked if o.id not in chosen][: TELLING - len(chosen)]}
    return [o for o in ranked if o.id in chosen]


def in_order(questions: Sequence[Question], number: int) -> list[Question]:
    """So many questions, the telling ones first; what only the forgotten session answers is always among them."""
    ranked = sorted(questions, key=lambda q: FIRST.index(q.id) if q.id in FIRST else len(FIRST))[:number]
    only = next(question for question in questions if question.id == ONLY_FORGOTTEN)
    return ranked if only in ranked else [*ranked[:-1], only]


def mixed(changes: Sequence[Changed], number: int) -> list[Changed]:
    """A few of them, those that left something standing first."""
    return sorted(changes, key=lambda change: change.after is None)[:number]


def rows(values: Sequence[Said] | Sequence[Kept]) -> list[dict[str, Any]]:
    return [asdict(value) for value in values]
