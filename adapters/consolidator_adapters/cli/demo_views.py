"""How the demo's steps look."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from consolidator.trends import RECENT_DAYS
from consolidator_adapters.cli.demo_measure import HEAD, Changed, Kept, Measured, Said, carried
from consolidator_adapters.cli.hits import reason, told_of, witness
from consolidator_adapters.cli.places import program
from consolidator_adapters.cli.views import (
    corrected,
    count,
    cut,
    day,
    erasure,
    facts,
    plain,
    quoted,
    standing,
    table,
    verification,
    witnesses,
)

if TYPE_CHECKING:
    from datetime import datetime

    from consolidator.models import Hit, Memory, Observation, Receipt, Verification, Version
    from consolidator.plans import Report
    from consolidator_adapters.conversation import Conversation

TRENDS = (
    f"trends: new, first told in the last {RECENT_DAYS} days; stale, nothing new about it in the last {RECENT_DAYS} days; "
    "strengthening, stable, weakening, told more, as or less often of late"
)
FIRST_SENTENCE = "I moved to Berlin in May."
QUOTE = 110  # characters of a witness, where many are shown


def heading(title: str) -> RenderableType:
    return Group(Text(), Rule(Text(title, "bold"), align="left"))


def opened(where: Mapping[str, Mapping[str, str]], now: datetime) -> RenderableType:
    store, embedder = where["store"], where["embedder"]
    return facts({
        "store": f"{store.get('store', '')} in {store.get('where', '')}", "embedder": embedder["name"],
        "clock": f"set to {day(now)}, one day after the last session, so that trends speak",
    })


def conversation(told: Conversation, memories: int) -> RenderableType:
    first, last = told.sessions[0].start, told.sessions[-1].start
    head = f"“{told.title}”: {count(len(told.sessions), 'session')} from {day(first)} to {day(last)}"
    return Group(Text(told.about), Text(f"{head}, {count(memories, 'memory', 'memories')} kept.", "bold"))


def report(done: Report, by: Sequence[str]) -> RenderableType:
    memories = f"{done.consolidated + done.nothing_durable:,} in {count(done.passes, 'pass', 'passes')}"
    rows = {"done by": ", ".join(by), "memories": f"{memories}, {done.nothing_durable:,} of them without durable content"}
    rows |= {name: f"{getattr(done, name):,}" for name in ("created", "updated", "reinforced")}
    others = {name: getattr(done, name) for name in ("merged", "deleted", "skipped", "left", "parked")}
    rows |= {name: f"{number:,}" for name, number in others.items() if number}
    if done.calls:
        rows["model calls"] = f"{done.calls:,}, {done.prompt_tokens:,} prompt and {done.reply_tokens:,} reply tokens"
    return facts(rows)


def observations(
    shown: Sequence[Observation], evidence: Mapping[str, Memory], versions: Mapping[str, Sequence[Version]], *, total: int,
    changed: set[str],
) -> RenderableType:
    told: list[RenderableType] = [Text(f"{len(shown)} of {total:,}, the best proven first"), Text(TRENDS, "bright_black")]
    for o in shown:
        note = (", its state changed", "yellow") if o.id in changed else ""
        told += [Text(), Text(plain(o.text), "bold"), Text.assemble(standing(o), note)]
        for e in witnesses(o, versions.get(o.id, ())):
            if e.memory_id in evidence:
                words = quoted(evidence[e.memory_id], width=QUOTE)
                told.append(Padding(words if e.supports else corrected(words), (0, 0, 0, 2), expand=False))
    return Group(*told)


def question(asked: str, answer: str, found: Sequence[Hit], wanted: set[str]) -> RenderableType:
    """The first hits, and why they stand there; a star marks a hit that brings what answers the question."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for rank, hit in enumerate(found, start=1):
        body: list[RenderableType] = [Text(plain(hit.text))]
        body += [witness(hit, hit.quote)] if hit.quote else []
        body += [told_of(hit)]
        body += [Text("= ", "bright_black") + reason(hit.explanation, hit.score)] if hit.explanation else []
        grid.add_row(Text(f"{rank}{'*' if carried(hit) & wanted else ' '}", "bold green"), Group(*body))
    return Group(Text(), Text(asked, "bold"), Text(f"the answer: {plain(answer)}", "bright_black"), grid)


def measured(title: str, m: Measured) -> RenderableType:
    rows = {
        f"recall@{HEAD}": f"{m.recall:.2f} of the turns that answer a question are in its first {HEAD} hits "
        f"({m.recall_verbatim:.2f} word for word, the rest as evidence of an observation)",
        "answered": f"{m.any} of {m.questions} have one there ({m.any_verbatim} word for word), {m.all} have all",
    }
    return Group(Text(), Text(title, "bold"), facts(rows))


def forgotten(
    source: str, place: str, receipt: Receipt, shown: Sequence[Changed], outcome: Verification
) -> RenderableType:
    made = table("case", "before", "after", wide="before")
    made.columns[2].no_wrap, made.columns[2].overflow = False, "fold"
    for change in shown:
        made.add_row(change.case.replace("_", " "), Text(cut(change.before, 150)), Text(cut(change.after, 150)))
    rest = len(receipt.observations) - len(shown)
    more = [Text(f"… and {rest} more", "bright_black")] if rest > 0 else []
    head = Text.assemble("Erasing the session ", (source, "bold"), f" ({place.lower()[:1]}{place[1:]}).")
    return Group(head, Text(), erasure(receipt), Text(), made, *more, Text(), verification(outcome))


def said(phrases: Sequence[str], before: Sequence[Said], after: Sequence[Said]) -> RenderableType:
    made = table("what is served", "texts", "phrases before", "phrases now", right=("texts", "phrases before", "phrases now"))
    for old, new in zip(before, after, strict=True):
        style = "bold red" if new.found else "bold green"
        made.add_row(new.place, f"{new.texts:,}", f"{old.found} of {len(phrases)}", Text(f"{new.found}", style))
    head = f"{len(phrases)} phrases that only the forgotten session says, looked for in all that is served:"
    return Group(Text(), Text(head), made)


def again(done: Report, found: int) -> RenderableType:
    memories = count(done.consolidated + done.nothing_durable, "re-opened memory", "re-opened memories")
    changes = f"{done.created} created, {done.updated} updated, {done.reinforced} reinforced"
    did = f"{memories} consolidated again: {changes}" if done.passes else "Nothing had to be re-opened and consolidated again"
    return Group(Text(), Text(f"{did}; phrases found now: {found}."))


def corroborated(kept: Sequence[Kept]) -> RenderableType:
    made = table("what others had said too", "found at", "answer", right=("found at",), wide="what others had said too")
    made.columns[2].no_wrap, made.columns[2].overflow = False, "fold"
    for row in kept:
        made.add_row(Text(row.question), str(row.rank or "-"), Text(plain(row.answer)))
    return Group(Text(), made)


def farewell(folder: Path, *, kept: bool) -> RenderableType:
    if not kept:
        return Group(heading("That was it"), Text(f"{folder} is removed; `{program()} demo --keep` leaves it."))
    at, kept_in = f"-f {shlex.quote(str(folder))} -b demo", Text(f"The memory is in {folder}. Try next:")
    there = (
        f'recall {at} --explain "Where does Maren work?"', f"observations {at}", f"history {at} ID",
        f"forget {at} --source s09-house-with-garden --dry-run",
    )
    mine = (f'retain -s chat-1 --speaker Alice "{FIRST_SENTENCE}"', "consolidate", "observations")
    tries = [f"  {program()} {words}" for words in there], [f"  {program()} {words}" for words in mine]
    own = Text("and a memory of your own, in the folder memory:")
    return Group(heading("That was it"), kept_in, *map(Text, tries[0]), own, *map(Text, tries[1]))
