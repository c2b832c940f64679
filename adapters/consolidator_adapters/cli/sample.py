"""The command that says which sessions of agents are worth harvesting first: sample."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from consolidator.errors import InvalidInput
from consolidator_adapters.cli import views
from consolidator_adapters.cli.call import Call, interruptible, moment
from consolidator_adapters.cli.replacing import replace

if TYPE_CHECKING:
    from consolidator.sampling import Choice, Sampled, Scan

FORMATS = ("table", "json", "paths")
NAME_SHOWN = 40
PROJECTS_SHOWN, PROJECTS_WIDE = 2, 24
EACH = 5_000  # files between two lines of progress
Where = Annotated[
    Path | None,
    typer.Argument(metavar="FOLDER", help="Holds sessions; else ~/.claude/projects, ~/.codex/sessions.", show_default=False),
]


async def sample(  # noqa: PLR0913 (one parameter for each option)
    call: Call, where: Where = None,
    count: Annotated[int, typer.Option("--count", help="So many at most.")] = 100,
    project: Annotated[
        str | None, typer.Option("--project", help="Name a project, or a part of a file's name.", show_default=False)
    ] = None,
    since: Annotated[str | None, typer.Option("--since", help="This day and later, YYYY-MM-DD.", show_default=False)] = None,
    min_score: Annotated[int, typer.Option("--min-score", help="From this value on, 3 to 16.")] = 0,
    top_percent: Annotated[float, typer.Option("--top-percent", help="Of those that pass, instead of --count.")] = 0,
    format: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "table",
    output: Annotated[Path | None, typer.Option("--output", help="Write it into this file.", show_default=False)] = None,
) -> None:
    """Choose, among many sessions of agents, those that are worth harvesting first.

    Every file is read whole. Nothing is sent, nothing is kept.
    """
    from consolidator.clock import system_clock
    from consolidator.sampling import sample as chosen_of

    choice = _choice(count, project, since, min_score, top_percent)
    _check(format, output)
    scans = _scans(call, where)
    chosen = chosen_of(scans, choice, system_clock())
    shown = "json" if call.json else format
    if output is not None:
        replace(output, _written(call, scans, chosen, shown))
        call.err.print(f"{views.count(len(chosen), 'session')} written to {output}")
    elif shown == "json":
        call.document(document(scans, chosen))
    elif shown == "paths":
        typer.echo(_paths(chosen), nl=False)
    else:
        call.out.print(table(scans, chosen))


def _choice(count: int, project: str | None, since: str | None, min_score: int, top_percent: float) -> Choice:
    from consolidator.sampling import HIGHEST, Choice

    if count < 1:
        raise InvalidInput("--count is a number from 1 on")
    if not 0 <= min_score <= HIGHEST:
        raise InvalidInput(f"--min-score is a number from 0 to {HIGHEST}")
    if not 0 <= top_percent <= 100:
        raise InvalidInput("--top-percent is a number from 0 to 100; 0 leaves it to --count")
    if since is not None and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", since):
        raise InvalidInput(f'--since: "{since}" is no day; write one such as 2026-05-02')
    return Choice(count=count, project=project, since=moment(since, "--since"), min_score=min_score, top_percent=top_percent)


def _check(format: str, output: Path | None) -> None:
    if format not in FORMATS:
        raise InvalidInput(f'--format: there is no format "{format}"; known are {", ".join(FORMATS)}')
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise InvalidInput(f"--output takes a file in a folder that is there; {output} is none")


def _scans(call: Call, where: Path | None) -> list[Scan]:
    """What the sessions of the folders tell. Raises FileNotFoundError."""
    from consolidator_adapters.session_files import PLACES, find, places, scan_files

    folders = [where] if where is not None else places(Path.home())
    if not folders:
        known = " nor ".join(f"~/{place.as_posix()}" for place in PLACES)
        raise FileNotFoundError(f"there is neither {known}; name a folder that holds sessions")
    found = [(folder, path) for folder in folders for path in find(folder)]
    with interruptible():
        return scan_files(found, on_read=_told(call, len(found)))


def _told(call: Call, total: int) -> Callable[[int], None]:
    """Says on stderr how far it is, each time that another 5,000 files were read."""
    told = 0

    def tell(read: int) -> None:
        nonlocal told
        if read // EACH > told:
            told = read // EACH
            call.err.print(f"{told * EACH:,} of {total:,} files read")

    return tell


def document(scans: Sequence[Scan], chosen: Sequence[Sampled]) -> dict[str, Any]:
    skipped = [{"path": scan.path, "reason": scan.skipped} for scan in scans if scan.skipped is not None]
    return {
        "sessions": [item(one) for one in chosen], "files": len(scans), "skipped": skipped,
        "bad_lines": sum(scan.bad for scan in scans),
    }


def item(one: Sampled) -> dict[str, Any]:
    scan = one.scan
    return {
        "path": scan.path, "filename": scan.name, "score": one.score, "breakdown": one.breakdown.model_dump(),
        "message_count": scan.messages, "tool_calls": scan.tool_calls, "failed_calls": scan.failed_calls,
        "repos": list(scan.repos), "outcome": scan.outcome, "is_failure": scan.outcome == "failure",
        "at": None if scan.at is None else scan.at.isoformat(), "bad_lines": scan.bad,
    }


def _paths(chosen: Sequence[Sampled]) -> str:
    return "".join(f"{one.scan.path}\n" for one in chosen)


def _written(call: Call, scans: Sequence[Scan], chosen: Sequence[Sampled], shown: str) -> str:
    if shown == "json":
        return json.dumps(document(scans, chosen), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    if shown == "paths":
        return _paths(chosen)
    with call.out.capture() as kept:
        call.out.print(table(scans, chosen))
    return re.sub(r" +$", "", kept.get(), flags=re.MULTILINE)


def table(scans: Sequence[Scan], chosen: Sequence[Sampled]) -> RenderableType:
    made = views.table("score", "messages", "projects", "session", right=("score", "messages"), wide="session")
    for one in chosen:
        repos = views.cut(", ".join(one.scan.repos[:PROJECTS_SHOWN]), PROJECTS_WIDE) or "-"
        name = Text(views.cut(one.scan.name, NAME_SHOWN))
        name.append(" FAIL" if one.scan.outcome == "failure" else "", "red")
        made.add_row(str(one.score), f"{one.scan.messages:,}", Text(repos), name)
    above: list[RenderableType] = [made, Text()] if chosen else []
    return Lines(*above, *(Text(line, "bright_black") for line in _notes(scans, chosen)))


def _notes(scans: Sequence[Scan], chosen: Sequence[Sampled]) -> list[str]:
    if not scans:
        return ["there is no session (*.jsonl, *.json) in it"]
    lines = [f"{len(chosen):,} of {views.count(len(scans), 'session')}"]
    reasons = Counter(scan.skipped for scan in scans if scan.skipped is not None)
    lines += [f"{views.count(many, 'file')} skipped: {views.plain(reason)}" for reason, many in reasons.most_common()]
    bad = sum(scan.bad for scan in scans if scan.skipped is None)
    return [*lines, f"{views.count(bad, 'line')} could not be read"] if bad else lines
