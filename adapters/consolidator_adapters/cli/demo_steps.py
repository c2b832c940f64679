"""The demo's steps on a bank. Each shows what it did, and returns it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.text import Text

from consolidator_adapters.cli import demo_views, views
from consolidator_adapters.cli.call import Call
from consolidator_adapters.cli.demo_measure import Measured, measure, said_by
from consolidator_adapters.cli.reading import memories_of
from consolidator_adapters.cli.writing import watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from consolidator.engine import Bank
    from consolidator.models import Hit, Observation, Receipt
    from consolidator_adapters.conversation import Conversation, Question

TELLING = 12
CHANGED = 4  # of them, at least, with a change of state
FIRST = ("q18", "q16", "q24", "q51", "q17", "q19", "q04", "q42", "q53")  # the order in which questions are shown
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
        changed = [o for o in found if o.version > 1 and await self._changed_state(o)]
        chosen = telling(found, {o.id for o in changed})
        evidence = await memories_of(self.bank, (e.memory_id for o in chosen for e in o.evidence))
        self.show.line(demo_views.observations(chosen, evidence, total=len(found), changed={o.id for o in changed}))
        return chosen

    async def _changed_state(self, o: Observation) -> bool:
        return any(version.change == "state_change" for version in await self.bank.history(o.id))

    async def recall(self) -> dict[str, Any]:
        shown, told = in_order(self.questions, self.asked), []
        for question in shown:
            found = await self.bank.recall(question.text, top_k=5, explain=True)
            wanted = self._wanted(question.evidence)
            self.show.line(demo_views.question(question.text, question.answer, found[:HITS_SHOWN], wanted))
            told.append({"question": question.text, "answer": question.answer, "hits": found})
        measured = await self._measure(self.questions, [question.evidence for question in self.questions])
        self.show.line(demo_views.measured("All shipped questions, measured now", measured))
        return {"questions": told, "measured": asdict(measured)}

    async def forget(self) -> dict[str, Any]:
        source = self.conversation.forget
        planned = await self.bank.forget(source=source, dry_run=True)
        before = {row.id: (await self.bank.observation(row.id)).text for row in planned.observations}
        served = self._count(await self._served())
        receipt = await self.bank.forget(source=source)
        changes = [(row.case.value, before[row.id], await self._text(receipt, row.id)) for row in receipt.observations if row.id in before]
        outcome = await self.bank.verify(receipt)
        self.show.line(demo_views.forgotten(source, self.conversation.places[source], receipt, changes[:CHANGES_SHOWN], outcome))
        return {
            "receipt": receipt, "verification": {**outcome.model_dump(mode="json"), "ok": outcome.ok}, "phrases_before": served,
            "changes": [dict(zip(("case", "before", "after"), change, strict=True)) for change in changes],
        }
