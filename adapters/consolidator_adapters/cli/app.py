"""The application: its commands, its exit codes, its errors in one sentence.

Exit codes: 0 done; 1 it failed; 2 wrong input; 3 there is no such thing; 4 something else holds it; 130 interrupted.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

import consolidator
from consolidator.errors import Conflict, ConsolidatorError, InvalidInput, NotFound, StoreLocked
from consolidator_adapters.cli import (
    briefing,
    candidates,
    demo,
    doctor,
    erasing,
    fsck,
    harvesting,
    moving,
    parking,
    practising,
    reading,
    revising,
    sample,
    scoring,
    working,
    writing,
)
from consolidator_adapters.cli.call import AsJson, BankId, Config, Debug, Folder, command, group

ABOUT = """A memory for agents that consolidates: verbatim memories, evidence-linked observations, provable erasure.

Start with [b]consolidator demo[/b]: it needs no key and no server."""
# the root of what is wrong on a command line: typer brings it along now, and took click's before
USAGE_ERRORS = tuple(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
EXITS: tuple[tuple[type[Exception], int], ...] = ((InvalidInput, 2), (NotFound, 3), (StoreLocked, 4), (Conflict, 4))
INTERRUPTED = 130
ANSWERED = ("consolidator.retention", "consolidator.jobs")  # loggers of what a command's answer tells
CHATTY = ("sentence_transformers", "transformers", "huggingface_hub", "torch", "httpx", "httpcore", "openai", "urllib3")

app = typer.Typer(help=ABOUT, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context, folder: Folder = None, config: Config = None, bank: BankId = None, json: AsJson = False,
    debug: Debug = False, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(consolidator.__version__)
        raise typer.Exit
    ctx.obj = {"folder": folder, "config": config, "bank": bank, "json": json, "debug": debug}


START, USE, LOOK, LEARN, MEASURE = "Start", "Use", "Look", "Learn", "Measure"
REVISE, MOVE, WORK, ERASE = "Put right", "Move", "Work", "Erase"
for panel, work in (
    (START, demo.demo), (START, writing.init), (START, doctor.doctor),
    (USE, writing.retain), (USE, reading.recall), (USE, writing.consolidate),
    (LOOK, reading.observations), (LOOK, reading.show), (LOOK, reading.history), (LOOK, reading.journal),
    (LOOK, reading.sources), (LOOK, reading.stats), (LOOK, working.status), (LOOK, fsck.fsck),
    (LEARN, practising.episode), (LEARN, practising.lessons), (LEARN, sample.sample), (LEARN, harvesting.harvest),
    (LEARN, briefing.bootstrap), (LEARN, briefing.measure),
    (MEASURE, scoring.score), (MEASURE, scoring.importance),
    (REVISE, revising.correct), (REVISE, revising.revert), (REVISE, revising.undo),
    (MOVE, moving.export), (MOVE, moving.import_),
    (WORK, working.worker), (WORK, working.pause), (WORK, working.resume),
    (ERASE, erasing.forget), (ERASE, erasing.scrub), (ERASE, erasing.verify),
):
    app.command(work.__name__.rstrip("_"), rich_help_panel=panel)(command(work))
app.add_typer(group(parking.listed, parking.WORKS, parking.ABOUT), name="parked", rich_help_panel=WORK)
app.add_typer(candidates.app(), name="candidates", rich_help_panel=MEASURE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    _quieten(debug="--debug" in args)
    try:
        code = typer.main.get_command(app).main(args=args, prog_name="consolidator", standalone_mode=False)
    except ConsolidatorError as error:
        return _failed(args, error, str(error), next((code for kind, code in EXITS if isinstance(error, kind)), 1))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter complains at its exit
        return 1
    except OSError as error:
        return _failed(args, error, str(error), 1)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        if not isinstance(error, USAGE_ERRORS):
            raise
        return _failed(args, error, cast(Any, error).format_message(), 2)
    if code == INTERRUPTED:  # which typer makes of an interruption by itself, or lets pass
        sys.stderr.write("interrupted; run it again\n")
    return code if isinstance(code, int) else 0


def _failed(args: Sequence[str], error: BaseException, message: str, code: int) -> int:
    if "--debug" in args:
        raise error
    if "--json" in args:
        told = {"error": {"type": type(error).__name__, "message": message}}
        sys.stdout.write(json.dumps(told, ensure_ascii=False, indent=2) + "\n")
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return code


def _untold(record: logging.LogRecord) -> bool:
    """Not what a command's answer says in a sentence."""
    return record.msg != "embedder_unavailable" and (record.msg != "turn_failed" or bool(record.exc_info))


def _quieten(*, debug: bool) -> None:
    """Our own warnings go to stderr; what vendors chat about does not belong to a command's answer."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for name in ANSWERED:
        log = logging.getLogger(name)
        log.removeFilter(_untold)
        if not debug:
            log.addFilter(_untold)
    if debug:
        return
    warnings.simplefilter("ignore")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
