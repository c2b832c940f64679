"""Commands around training candidates: answers that leant on memory. They are found, listed, approved, rejected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text
from typer.core import TyperGroup

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, group
from consolidator_adapters.cli.replacing import replace
from consolidator_adapters.cli.scoring import File, Name
from consolidator_adapters.cli.scoring_views import listed as counted
from consolidator_adapters.cli.scoring_views import unknown_items
from consolidator_adapters.cli.transcribed import Shown, opened, shown_of, transcript_of

if TYPE_CHECKING:
    from consolidator.config import Settings
    from consolidator.divergence import CandidateReport, Dependence
    from consolidator.transcripts import Transcript
    from consolidator_adapters.cli.candidate_file import Candidate, Status

ABOUT = """Answers that leant on memory: what a model has not learnt, as examples to train it on.

[b]consolidator candidates TRANSCRIPT --out FILE[/b] finds them ([b]consolidator candidates find --help[/b] has its options);
then approve or reject them."""
FIND = "find"
HOW = "name a transcript: `consolidator candidates TRANSCRIPT.jsonl --out candidates.jsonl`"
STYLE: dict[Status, str] = {"pending": "", "approved": "green", "rejected": "bright_black"}
TheFile = Annotated[Path, typer.Argument(metavar="FILE", help="The candidates' file.", show_default=False)]
Ids = Annotated[list[str], typer.Argument(help="Ids of answers, as the file has them.", show_default=False)]


async def nothing(call: Call) -> None:
    """Without a transcript there is nothing to find."""
    raise InvalidInput(HOW)


async def find(
    call: Call, file: File, out: Annotated[Path, typer.Option("--out", help="Where they go; what is in it stays.")],
    id: Name = None, count: Annotated[int, typer.Option("--count", help="Look at the last so many turns.")] = 100,
    threshold: Annotated[float, typer.Option("--threshold", help="Nats that an answer has to lose without memory.")] = 1.0,
    per_token: Annotated[bool, typer.Option("--per-token", help="The threshold is of each token.")] = False,
) -> None:
    """Write the answers that lean on memory as training candidates, pending; memory itself is left out of them."""
    from consolidator_adapters.cli import candidate_file

    if count < 1:
        raise InvalidInput("--count is a number from 1 on")
    transcript = transcript_of(file, id)
    known = candidate_file.read(out) if out.exists() else []
    if not out.absolute().parent.is_dir():
        raise InvalidInput(f"there is no folder {out.parent} for the candidates")
    async with opened(call) as bank:
        shown = await shown_of(bank, transcript, file)
        with call.progress() as bar:
            bar.add_task("scoring", total=None)
            report = await bank.candidates(transcript, count=count, threshold=threshold, per_token=per_token)
    passed = [one for one in report.candidates if _passes(one, threshold, per_token=per_token)]
    every = candidate_file.merged(known, _made(transcript, passed, call.settings()))
    added = every[len(known) :]
    if added:
        replace(out, candidate_file.written(every))
    told = _found(report, added, out, shown, threshold=threshold, per_token=per_token)
    lexical = call.settings().importance.provider == "lexical"
    document = {"file": str(out), "added": [one.response for one in added], "known": len(passed) - len(added), "report": report}
    call.answer({**document, "plain_text": shown.unknown}, lambda: Lines(told, *_by_words(lexical=lexical)))


def _passes(one: Dependence, threshold: float, *, per_token: bool) -> bool:
    return one.value is not None and one.value * (1 if per_token else one.tokens) > threshold


def _made(transcript: Transcript, passed: Sequence[Dependence], settings: Settings) -> Iterator[Candidate]:
    from consolidator_adapters.cli.candidate_file import Candidate

    now = time.time_ns()
    for number, one in enumerate(passed):
        messages = _messages(transcript, int(one.response.rpartition("/")[2]), settings)
        told: dict[str, Any] = {"response": one.response, "value": one.value, "tokens": one.tokens, "messages": messages}
        yield Candidate.model_validate({**told, "made_at": now + number})


def _messages(transcript: Transcript, place: int, settings: Settings) -> list[dict[str, str]]:
    """The turns before an answer, and the answer: without what memory told, known to the bank or not, and without thoughts."""
    from consolidator.targets import Context, target

    scoring = settings.importance
    asked = target(
        transcript, place, Context(turns=tuple(range(place)), tokens=0), transcript.items, marks=scoring.thought_marks,
        thought=scoring.thought,
    )
    before = [{"role": turn.role, "content": turn.text} for turn in asked.context if turn.text.strip()]
    return [*before, {"role": "assistant", "content": asked.response}]


def _found(
    report: CandidateReport, added: Sequence[Candidate], out: Path, shown: Shown, *, threshold: float, per_token: bool
) -> RenderableType:
    per = "a token" if per_token else "an answer"
    lines = [Text(f"{views.count(len(added), 'new candidate')} in {out}" if added else "no new candidate", "bold")]
    seen = views.count(report.seen, "answer")
    lines.append(Text(f"{seen} seen, {report.above:,} above {threshold:g} nats {per}{_highest(report)}"))
    if report.above > len(added):
        lines.append(Text(f"{report.above - len(added):,} known before", "bright_black"))
    if not report.seen:
        lines.append(Text("none of the last turns is an answer: --count takes more", "yellow"))
    if errors := Counter(views.plain(error) for error in report.errors):
        lines.append(Text(f"unknown: {counted(errors)}", "yellow"))
    lines += [Text(line, "bright_black") for line in unknown_items(shown)]
    next_step = f"`consolidator candidates list {out}`, then approve or reject them by these ids"
    return Lines(*lines, *([Text(), _rows(added), Text(next_step, "bright_black")] if added else []))


def _highest(report: CandidateReport) -> str:
    known = [(one.value, one.tokens) for one in report.candidates if one.value is not None]
    if not known:
        return ""
    return f"; the highest {max(v * n for v, n in known):.2f} an answer, {max(v for v, _ in known):.2f} a token"


def _by_words(*, lexical: bool) -> Iterator[Text]:
    if lexical:
        told = "measured by the words alone; what a model has not learnt is told by that model: see `importance` in the settings"
        yield Text(told, "yellow")


def _rows(candidates: Sequence[Candidate]) -> RenderableType:
    made = views.table("id", "status", "nats", "a token", "answer", right=("nats", "a token"), wide="answer")
    twice = {id for id, many in Counter(one.response for one in candidates).items() if many > 1}
    for one in candidates:
        id = str(one.made_at) if one.response in twice else one.response
        numbers = (f"{one.value * one.tokens:.2f}", f"{one.value:.2f}")
        answer = Text(views.cut(one.messages[-1].content, 120))
        made.add_row(views.plain(id), Text(one.status, STYLE[one.status]), *numbers, answer)
    return made


def _states(candidates: Sequence[Candidate]) -> dict[str, int]:
    found = Counter(one.status for one in candidates)
    return {state: found[state] for state in STYLE}


def _in_words(states: Mapping[str, int]) -> str:
    return ", ".join(f"{many:,} {state}" for state, many in states.items())


async def list_(call: Call, file: TheFile) -> None:
    """List the candidates of a file."""
    from consolidator_adapters.cli import candidate_file

    found = candidate_file.read(file)
    told = Text(f"\n{_in_words(_states(found))}", "bright_black")
    call.answer(found, lambda: Lines(_rows(found), told) if found else Text("no candidate is in it"))


async def approve(call: Call, file: TheFile, ids: Ids) -> None:
    """Approve candidates: they may be trained on."""
    _decide(call, file, ids, "approved")


async def reject(call: Call, file: TheFile, ids: Ids) -> None:
    """Reject candidates. The 10 that were rejected last stay in the file."""
    _decide(call, file, ids, "rejected")


def _decide(call: Call, file: Path, ids: Sequence[str], status: Status) -> None:
    from consolidator_adapters.cli import candidate_file

    before = candidate_file.read(file)
    every, changed = candidate_file.decided(before, ids, status, now=time.time_ns())
    if changed:
        replace(file, candidate_file.written(every))
    dropped = len(before) - len(every)
    told = f"{views.count(len(changed), 'candidate')} {status}"
    told += f", {len({*ids}) - len(changed):,} before" if len({*ids}) > len(changed) else ""
    told += f"; {views.count(dropped, 'older rejected one')} left the file" if dropped else ""
    states = _states(every)
    told += f"; now {_in_words(states)}"
    call.answer({"changed": [one.response for one in changed], "dropped": dropped, **states}, lambda: Text(told))


WORKS: dict[str, Any] = {FIND: find, "list": list_, "approve": approve, "reject": reject}


class _Finds(TyperGroup):
    """Where no command below this one is named, it is to find."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = {*self.commands, "--help"} & {*args}
        return super().parse_args(ctx, args if named or not args else [FIND, *args])


def app() -> typer.Typer:
    made = group(nothing, WORKS, ABOUT)
    made.info.cls = _Finds
    return made
