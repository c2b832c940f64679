"""How answers look on a terminal. Texts of memories are shown as they are: never as markup, never as terminal controls."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from datetime import datetime

    from consolidator.models import Evidence, Hit, Memory, Observation, Receipt, Retained, Stats, Verification, Version
    from consolidator.plans import Entry, Report

HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
SHORT = 8  # characters of an id where it is shown to people
TREND_STYLE = {"new": "cyan", "strengthening": "green", "stable": "", "weakening": "yellow", "stale": "bright_black"}
ACTIONS_SHOWN = 20
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"))
WITNESSES_SHOWN = 3
CHANGES = ("created", "updated", "reinforced", "merged", "deleted", "contested", "skipped")
CHECKED = {  # what was searched for an erasure's traces: retracted observations and husks too, so not what `stats` counts
    "memories": ("memory", "memories"), "observations": ("observation record", "observation records"),
    "ledger_texts": ("ledger text", "ledger texts"),
}


def plain(text: str | None) -> str:
    """On one line, without the controls and marks that could steer a terminal."""
    if text is None:
        return "(erased)"
    return " ".join(plain_line(text).split())


def plain_line(text: str) -> str:
    """With its blanks."""
    return "".join(" " if unicodedata.category(c) in HIDDEN else c for c in text)


def day(when: datetime) -> str:
    return f"{when:%Y-%m-%d}"


def minute(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


def lasting(seconds: float) -> str:
    """A length of time, to about two digits."""
    return next((f"{seconds / size:.0f} {unit}" for size, unit in UNITS if seconds >= 2 * size), f"{seconds:.0f} s")


def count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def short(id: str) -> str:
    return id[:SHORT]


def cut(text: str | None, width: int) -> str:
    shown = plain(text)
    return shown if len(shown) <= width else shown[: width - 1].rstrip() + "…"


def quoted(memory: Memory, width: int | None = None) -> Text:
    """A memory's words, or the first `width` characters of them, with who said them, when and where."""
    words = cut(memory.text, width) if width else plain(memory.text)
    who = f"{plain(memory.speaker)}, " if memory.speaker else ""
    return Text.assemble(f"“{words}” ", (f"{who}{day(memory.time)}, {plain(memory.source)}", "bright_black"))


def corrected(words: Text) -> Text:
    return Text.assemble(("corrected: ", "yellow"), words)


def witnesses(o: Observation, versions: Sequence[Version] = ()) -> list[Evidence]:
    """By time; where there was a correction, what it rests on comes first, and what it has shown to be wrong last."""
    by_time = sorted(o.evidence, key=lambda e: (e.occurred_at, e.memory_id))
    if any(not e.supports for e in by_time) or any(_corrects(version) for version in versions):
        by_time.reverse()
    return sorted(by_time, key=lambda e: not e.supports)


def _corrects(version: Version) -> bool:
    return version.change == "correction" or version.reason.startswith("corrected")


def table(*columns: str, right: Sequence[str] = (), wide: str | None = None) -> Table:
    """A table without frames; only the column `wide` wraps."""
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in columns:
        made.add_column(
            name, justify="right" if name in right else "left", no_wrap=name != wide,
            overflow="fold" if name == wide else "ellipsis",
        )
    return made


def facts(rows: Mapping[str, str] | Sequence[tuple[str, str | Text]]) -> Table:
    """Names and values in two columns."""
    pairs: Iterable[tuple[str, str | Text]] = rows.items() if isinstance(rows, Mapping) else rows
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, Text(value) if isinstance(value, str) else value)
    return grid


def on(bank: str) -> str:
    """What a command has to say to mean this bank."""
    return "" if bank == "default" else f" --bank {bank}"


def retained(kept: Retained, bank: str, waiting: int | None = None, told: str | None = None) -> RenderableType:
    """waiting: how many memories of the bank are pending now. told: what was done, where it is more than keeping."""
    known = len(kept.memories) - kept.new
    told = told or f"kept {count(kept.new, 'new memory', 'new memories')}" + (f", {known:,} known before" if known else "")
    told += f"; masked {count(kept.redacted, 'secret')}" if kept.redacted else ""
    lines = [Text(told)] + [Text(f"  {m.id}  {cut(m.text, 60)}", "bright_black") for m in kept.memories[:3]]
    if len(kept.memories) > 3:
        lines.append(Text(f"  … and {len(kept.memories) - 3:,} more", "bright_black"))
    if not kept.embedded:
        again = f"`consolidator consolidate{on(bank)}`"
        lines.append(Text(f"the embedder failed: found by words at once, by meaning after the next {again}"))
    if kept.held:
        lines.append(Text(f"{kept.held:,} held in quarantine, nothing is made of it: `consolidator parked{on(bank)}`", "yellow"))
    if waiting:
        wait = f"{count(waiting, 'memory waits', 'memories wait')} to be distilled: `consolidator consolidate{on(bank)}`"
        lines.append(Text(f"{wait} does it now, a running worker by itself", "bright_black"))
    return Group(*lines)


def trend(name: str | None) -> Text:
    return Text(str(name or "unknown"), TREND_STYLE.get(str(name), ""))


def standing(o: Observation | Hit) -> Text:
    """What backs an observation."""
    proof, confidence = o.proof_count or 0, o.confidence or 0.0
    return Text.assemble((f"{count(proof, 'source')}, confidence {confidence:.2f}, trend ", "bright_black"), trend(o.trend))


def observations(found: Sequence[Observation]) -> RenderableType:
    if not found:
        return Text("no observations; `consolidator consolidate` makes them from what is pending")
    made = table("id", "observation", "proof", "conf", "trend", "newest", right=("proof", "conf"), wide="observation")
    for o in found:
        newest = max((e.occurred_at for e in o.evidence), default=o.updated_at)
        cells = (short(o.id), Text(plain(o.text)), str(o.proof_count), f"{o.confidence:.2f}", trend(o.trend), day(newest))
        made.add_row(*cells)
    return Group(made, Text(f"\n{count(len(found), 'observation')}", "bright_black"))


def deleted(found: Sequence[Observation], bank: str) -> RenderableType:
    """What consolidation, or a person, has taken out of sight."""
    if not found:
        return Text("no observation was deleted")
    made = table("id", "observation", "deleted", wide="observation")
    for o in found:
        made.add_row(short(o.id), Text(plain(o.text)), day(o.updated_at))
    how = f"`consolidator history ID{on(bank)}` tells why, and how one comes back"
    return Group(made, Text(f"\n{count(len(found), 'observation')}; {how}", "bright_black"))


def observation(o: Observation, evidence: Mapping[str, Memory], versions: Sequence[Version]) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [
        ("observation", o.id), ("state", f"{o.state}, version {o.version} of {len(versions)}"), ("backed by", standing(o)),
        ("made", f"{minute(o.created_at)}, changed {minute(o.updated_at)}"),
    ]
    rows += [("scope", ", ".join(sorted(plain(tag) for tag in o.tags)))] if o.tags else []
    told: list[RenderableType] = [Text(plain(o.text), "bold"), facts(rows), Text("evidence", "bright_black")]
    for e in witnesses(o, versions):
        memory = evidence.get(e.memory_id)
        words = quoted(memory) if memory else Text(plain(None))
        told.append(Padding(words if e.supports else corrected(words), (0, 0, 0, 2), expand=False))
    return Group(*told)


def memory(m: Memory) -> RenderableType:
    rows: list[tuple[str, str | Text]] = [
        ("memory", m.id), ("source", plain(m.source) + ("" if m.sequence is None else f", turn {m.sequence}")),
        ("happened", minute(m.occurred_at) if m.occurred_at else "unknown"), ("retained", minute(m.retained_at)),
        ("kind", m.kind), ("state", str(m.state)),
    ]
    rows += [("speaker", plain(m.speaker))] if m.speaker else []
    rows += [("tags", ", ".join(sorted(plain(tag) for tag in m.tags)))] if m.tags else []
    return Group(Text(plain(m.text), "bold"), facts(rows))


def journal(entries: Sequence[Entry], cited: Mapping[str, Memory]) -> RenderableType:
    """What became of a bank, oldest first."""
    if not entries:
        return Text("the journal is empty")
    told: list[RenderableType] = []
    for e in entries:
        head = Text.assemble((minute(e.at), "bright_black"), "  ", (e.action.replace("_", " "), "bold"))
        head.append(f" {short(e.observation_id)}" if e.observation_id else "", "cyan")
        head.append(f" by {plain(e.by)}")
        head.append(f", version {e.version}" if e.version else "", "bright_black")
        head.append(f", pass {short(e.intent)}", "bright_black")
        told += [head, Padding(facts(_steps(e, cited, WITNESSES_SHOWN)), (0, 0, 1, 2), expand=False)]
    return Group(*told, Text(count(len(entries), "entry", "entries"), "bright_black"))


def _steps(e: Entry, cited: Mapping[str, Memory], most: int) -> list[tuple[str, str | Text]]:
    rows: list[tuple[str, str | Text]] = [("before", plain(e.before))] if e.before is not None else []
    rows += [("after", plain(e.after))] if e.after is not None else []
    rows += [("why", plain(e.reason))] if e.reason != "" else []
    rows += [("on", quoted(cited[id]) if id in cited else plain(None)) for id in e.cites[:most]]
    more = len(e.cites) - len(e.cites[:most])
    return [*rows, ("", f"… and {more:,} more")] if more else rows


def changes(done: Report) -> list[str]:
    """What was done to observations, such as "2 created"; nothing that was not done."""
    return [f"{getattr(done, name):,} {name}" for name in CHANGES if getattr(done, name)]


def report(done: Report, bank: str) -> RenderableType:
    if done.paused:
        return Text(f"nothing was done: {bank} is paused: {plain(done.paused)}; `consolidator resume {bank}` ends that", "yellow")
    would = "would be " if done.dry_run else ""
    head = f"{count(done.consolidated + done.nothing_durable, 'memory', 'memories')} {would}consolidated"
    head += f", {done.nothing_durable:,} of them without durable content" if done.nothing_durable else ""
    lines = [Text(head), Text(f"observations: {', '.join(changes(done)) or 'no change'}")]
    if done.contested:
        lines.append(Text("contested: it contradicts what a more trusted source said, and stands beside it", "bright_black"))
    trouble = [(done.left, "left pending with their error"), (done.parked, "parked"), (done.held, "held: the model refused")]
    if told := ", ".join(f"{number:,} {what}" for number, what in trouble if number):
        lines.append(Text(f"{told}: `consolidator parked{on(bank)}`", "yellow"))
    if done.calls:
        spent = f"{done.prompt_tokens:,} + {done.reply_tokens:,} tokens"
        lines.append(Text(f"{count(done.calls, 'model call')}, {spent}", "bright_black"))
    lines += [Text(f"fault: {plain(fault)}", "yellow") for fault in done.faults[:5]]
    return Group(*lines, *_actions(done, bank))


def _actions(done: Report, bank: str) -> list[RenderableType]:
    telling = [action for action in done.actions if action.action != "nothing_durable"]
    shown = telling if done.dry_run else telling[:ACTIONS_SHOWN]
    if not shown:
        return []
    made = table("what", "id", "text", wide="text")
    for a in shown:
        text = Text(plain(a.after or a.before or a.reason))
        if a.before and a.after:
            text = Text.assemble((plain(a.before), "bright_black"), "\n→ ", plain(a.after))
        made.add_row(a.action, short(a.observation_id or ""), text)
    more = len(telling) - len(shown)
    return [Text(), made, *([Text(f"… and {more:,} more: `consolidator journal{on(bank)}`", "bright_black")] if more else [])]


def erasure(receipt: Receipt) -> RenderableType:
    """A receipt as counts."""
    would, cases = receipt.state == "planned", Counter(row.case.value for row in receipt.observations)
    rows = [(f"observations {case.replace('_', ' ')}", f"{number:,}") for case, number in sorted(cases.items())]
    rows = [("memories erased", f"{len(receipt.memories):,}"), *(rows or [("observations touched", "0")])]
    rows += [("versions purged", f"{sum(len(row.purged_versions) for row in receipt.observations):,}")]
    rows += [("memories to consolidate again", f"{len(receipt.reopened):,}")]
    rows += [] if would else [("journal rows that lost their text", f"{receipt.journal_rows:,}")]
    rows += [("model calls", f"{receipt.model_calls:,}")]
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    made.add_column("would be done" if would else "receipt")
    made.add_column("" if would else receipt.state, justify="right")
    for name, number in rows:
        made.add_row(name, number)
    return made


def verification(outcome: Verification, note: str | None = None, *, genuine: bool = True) -> RenderableType:
    """note: what is to be said of the receipt. genuine False: what was searched for may not be what was erased."""
    head = ("verified", "bold green") if genuine else ("searched", "bold")
    return Group(*([Text(plain(note), "yellow" if genuine else "bold red")] if note else []), _searched(outcome, head))


def _searched(outcome: Verification, head: tuple[str, str]) -> RenderableType:
    looked = [(number, *CHECKED.get(name, (name.replace("_", " "),) * 2)) for name, number in outcome.checked.items()]
    checked = ", ".join(count(number, one, many) for number, one, many in looked)
    if outcome.ok:
        return Text.assemble(head, f": nothing of what was erased is left in {checked}")
    return Group(
        Text.assemble((f"{count(len(outcome.found), 'trace')} found", "bold red"), f" in {checked}"),
        *(Text(f"  {plain(trace)}") for trace in outcome.found),
    )


def stats(s: Stats) -> RenderableType:
    waiting = f"{s.pending:,}" + (f", the oldest since {minute(s.oldest_pending)}" if s.oldest_pending else "")
    spent = f"{s.model_calls:,}, {s.prompt_tokens:,} prompt and {s.reply_tokens:,} reply tokens"
    rows: dict[str, str] = {
        "bank": s.bank, "memories": f"{s.memories:,}", "observations": f"{s.observations:,}", "pending": waiting,
        "without vector": f"{s.unembedded:,}", "parked": f"{s.parked:,}", "held": f"{s.held:,}",
        "waiting": f"{s.waiting:,}", "passes": f"{s.passes:,}",
        "model calls": spent, "open plans": f"{s.open_plans:,}", "open erasures": f"{s.open_tombstones:,}",
    }
    rows |= {"asked for": "no" if s.due_in is None else "now" if s.due_in < 1 else f"in {lasting(s.due_in)}"}
    rows |= {"failed in a row": f"{s.attempts:,}"} if s.attempts else {}
    rows |= {"importance": f"of {s.scored:,} known, {s.unscored:,} transcripts wait"} if s.scored or s.unscored else {}
    told = {"paused": s.paused, "held by": s.holder, "last error": s.last_error, "no scoring": s.scorer_refused}
    return facts(rows | {name: plain(value) for name, value in told.items() if value})


def sources(found: Mapping[str, int]) -> RenderableType:
    if not found:
        return Text("no sources: the bank is empty")
    made = table("memories", "source", right=("memories",), wide="source")
    for source, number in sorted(found.items()):
        made.add_row(f"{number:,}", Text(plain(source)))
    return made
