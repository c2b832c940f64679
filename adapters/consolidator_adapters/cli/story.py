"""The story of an observation, as a person reads it: version by version, what changed, why, by whom, on which evidence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from consolidator_adapters.cli.views import count, day, facts, minute, on, plain, quoted, short, standing

if TYPE_CHECKING:
    from consolidator.models import Memory, Observation, Receipt, Version
    from consolidator.plans import Entry

FIRST_WORDS = 60  # characters of a memory
WITNESSES = 5  # of one step
HOW = {
    "create": "created", "restate": "restated", "refine": "refined", "state_change": "state changed", "correction": "corrected",
    "delete": "deleted", "merge": "merged into another", "rollback": "rolled back", "revert": "reverted", "undo": "undone",
}
BESIDE = {  # what made no version
    "reinforced": "supported", "imported": "imported", "skipped": "a change was held back",
    "support_dropped": "lost a support, which was erased", "undone": "lost the support of an undone pass",
}
WHO = {"person": "a person", "forget": "an erasure"}
BACK = ("rollback", "revert", "undo")  # changes that bring an older text back
TRIMMED = ".,;:!?\"'“”‘’()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """An observation as it is now, its versions and journal, oldest first; what of its evidence is still there, by id; and by
    which receipts its purged versions went, by number.
    """

    observation: Observation
    versions: Sequence[Version]
    entries: Sequence[Entry]
    cited: Mapping[str, Memory]
    erased: Mapping[int, Receipt]
    bank: str

    def made(self, version: Version) -> Entry | None:
        """The journal's row of a version."""
        rows = (e for e in self.entries if e.version == version.number)
        return next((e for e in rows if e.action not in BESIDE or e.action == "undone"), None)

    def beside(self) -> list[Entry]:
        """Rows that made no version."""
        made = [entry for version in self.versions if (entry := self.made(version))]
        return [entry for entry in self.entries if entry not in made]


def erasures(id: str, receipts: Iterable[Receipt]) -> dict[int, Receipt]:
    """Which receipt purged which version of an observation."""
    rows = [(receipt, row) for receipt in receipts for row in receipt.observations if row.id == id]
    return {number: receipt for receipt, row in reversed(rows) for number in row.purged_versions}


def story(told: Story) -> RenderableType:
    before: Version | None = None
    chapters: list[tuple[datetime, list[RenderableType]]] = []
    for version in told.versions:
        chapters.append((version.at, _chapter(told, version, before)))
        before = version
    chapters += [(entry.at, _aside(told, entry)) for entry in told.beside()]
    lines = [line for _, chapter in sorted(chapters, key=lambda pair: pair[0]) for line in chapter]
    return Group(Text(f"observation {told.observation.id}\n", "bright_black"), *lines, *_now(told))


def _chapter(told: Story, version: Version, before: Version | None) -> list[RenderableType]:
    """How a version came to be. before: the version before it."""
    entry = told.made(version)
    head = Text.assemble((f"version {version.number}", "bold"), f"  {minute(version.at)}  ", (_how(told, version, entry), "bold"))
    head.append(f" by {WHO.get(version.by, plain(version.by))}" if version.by else "")
    head.append(f", pass {short(entry.intent)}" if entry else "", "bright_black")
    rows = [*_words(told, version, before), *_why(version, entry), *_on(told, _grounds(version, before, entry))]
    return [head, Padding(facts(rows), (0, 0, 1, 2), expand=False)]


def _how(told: Story, version: Version, entry: Entry | None) -> str:
    how = HOW.get(version.change, version.change.replace("_", " "))
    if entry and entry.action in ("contested", "reopened"):
        return {"contested": "created, against another", "reopened": "brought back"}[entry.action]
    if version.change in BACK and version.text is not None and version.state == "live":
        number = next((v.number for v in told.versions if v.number < version.number and v.text == version.text), None)
        return how + ((", back" if version.change == "undo" else "") + f" to version {number}" if number else "")
    return how + (", deleted" if version.state != "live" and version.change not in ("delete", "merge") else "")


def _words(told: Story, version: Version, before: Version | None) -> Iterator[tuple[str, str | Text]]:
    """The text, with what changed made visible; nothing where a deletion has left it as it was."""
    if version.text is None:
        receipt = told.erased.get(version.number)
        yield "text", Text(f"erased on {day(receipt.at)}, receipt {short(receipt.id)}" if receipt else "erased", "yellow")
        return
    old = before.text if before else None
    if version.state != "live" and old == version.text:
        return
    text, dropped = compared(old, version.text)
    yield "text", text
    if dropped:
        yield "no more", Text(dropped, "bright_black strike")


def compared(old: str | None, new: str) -> tuple[Text, str]:
    """The new text, its new words in bold; and the old words that are not in it any more."""
    words, given = plain(new).split(), plain(old).split() if old is not None else []
    if not given:
        return Text(" ".join(words)), ""
    text, dropped = Text(), []
    matcher = SequenceMatcher(None, [_key(w) for w in given], [_key(w) for w in words], autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if c < d:
            text.append(" " if text else "").append(" ".join(words[c:d]), "" if kind == "equal" else "bold")
        if kind != "equal" and a < b:
            dropped.append(" ".join(given[a:b]))
    return text, " … ".join(dropped)


def _key(word: str) -> str:
    return word.strip(TRIMMED).casefold() or word


def _why(version: Version, entry: Entry | None) -> Iterator[tuple[str, str | Text]]:
    reason = version.reason or (entry.reason if entry and version.text is not None else "") or ""
    if version.change == "rollback" and entry and entry.reason:
        reason = f"what it had said came from memories that were erased, {entry.reason}"
    if reason:
        yield "why", plain(reason)


def _grounds(version: Version, before: Version | None, entry: Entry | None) -> list[str]:
    """The memories that a step rests on."""
    if entry and entry.cites:
        return list(entry.cites)
    if version.change in BACK:
        return []
    return sorted((version.lineage - (before.lineage if before else frozenset())) | version.why)


def _on(told: Story, ids: Sequence[str]) -> Iterator[tuple[str, str | Text]]:
    for id in ids[:WITNESSES]:
        memory = told.cited.get(id)
        yield "on", quoted(memory, FIRST_WORDS).append(f", {short(id)}", "bright_black") if memory else plain(None)
    if len(ids) > WITNESSES:
        yield "", f"… and {len(ids) - WITNESSES:,} more"


def _aside(told: Story, entry: Entry) -> list[RenderableType]:
    """What made no version."""
    how = BESIDE.get(entry.action, entry.action.replace("_", " "))
    head = Text(f"           {minute(entry.at)}  {how}")
    head.append(f" by {WHO.get(entry.by, plain(entry.by))}" if entry.by != "forget" else "")
    head.append(f", pass {short(entry.intent)}", "bright_black")
    rows: list[tuple[str, str | Text]] = []
    rows += [("would be", plain(entry.after))] if entry.action == "skipped" and entry.after else []
    rows += [("why", plain(entry.reason))] if entry.reason else []
    return [head, Padding(facts([*rows, *_on(told, entry.cites)]), (0, 0, 1, 2), expand=False)]


def _now(told: Story) -> Iterator[RenderableType]:
    """How it stands, and how a person takes it back."""
    o = told.observation
    state = ("live", "green") if o.state == "live" else ("deleted", "yellow")
    yield Text.assemble(("now", "bold"), f"  version {o.version}, ", state, ": ", standing(o))
    yield Padding(Text(plain(o.text), "bold" if o.state == "live" else "bright_black"), (0, 0, 0, 2), expand=False)
    name, bank = short(o.id), on(told.bank)
    others = [v for v in reversed(told.versions) if v.text is not None and v.state == "live" and _differs(v, o)]
    back = sorted({v.text: v.number for v in others}.values())  # of several that say the same, the first
    if back:
        which = "version " + " or ".join(map(str, back))
        revert = f'consolidator revert {name} {back[-1]} --because "..."{bank}'
        yield Text(f"{which} can stand again: {revert}", "bright_black")
    else:
        yield Text(f"{count(len(told.versions), 'version')}, none to go back to", "bright_black")
    yield Text(f'put it into your own words: consolidator correct {name} "..."{bank}', "bright_black")


def _differs(version: Version, now: Observation) -> bool:
    return now.state != "live" or plain(version.text) != plain(now.text)
