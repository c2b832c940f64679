#!/usr/bin/env python3
"""A hook for the start and the end of an agent's session: a briefing at the start, a harvest at the end.

Reads the event as Claude Code gives it to a hook, one JSON object on standard input, with hook_event_name, transcript_path and
cwd. Options of the command line pass through: `session.py --folder ~/memory`. The agent is never stopped: what goes wrong is
told on standard error, the exit code is 0, and the harvest runs in the background. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

LATER = "--later"
NOTHING_YET = 3  # the exit code of `consolidator` where there is no memory
WAIT = 2  # seconds
HELD = 4  # the exit code of `consolidator` where another process has the memory open
PAUSES = (5, 20, 60, 180, 600)  # seconds before it is tried again
BRIEFING_LIMIT, HARVEST_LIMIT = 20, 3600  # seconds


def main(args: Sequence[str]) -> int:
    """Answers one event. Returns 0, whatever happens."""
    try:
        if args[:1] == [LATER]:
            harvested(args[1:])
        else:
            answer(json.load(sys.stdin.buffer), args)
    except (OSError, ValueError, RecursionError, subprocess.SubprocessError) as error:
        complain(str(error))
    return 0


def answer(event: object, options: Sequence[str]) -> None:
    """Raises ValueError for an event that lacks something."""
    if not isinstance(event, dict):
        raise ValueError("the hook's input is no JSON object")
    if (kind := event.get("hook_event_name")) == "SessionStart":
        brief(event, options)
    elif kind == "SessionEnd":
        harvest(event, options)
    else:
        raise ValueError(f"this hook is for SessionStart and SessionEnd, not for {kind!r}")


def brief(event: Mapping[str, object], options: Sequence[str]) -> None:
    """Prints what earlier sessions of the project found; the agent gets it as context."""
    command = [consolidator(), *options, "bootstrap", "--project", project(folder(event))]
    ends = time.monotonic() + BRIEFING_LIMIT
    while True:
        left = max(0.1, ends - time.monotonic())
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=left, check=False)
        if ran.returncode != HELD or time.monotonic() + WAIT >= ends:
            break
        time.sleep(WAIT)  # the harvest of the session before has the memory open: `/clear` ends one and starts the next
    if ran.returncode == NOTHING_YET:
        return
    if ran.returncode:
        raise ValueError(f"no briefing: {ran.stderr.decode(errors='replace').strip() or f'exit code {ran.returncode}'}")
    sys.stdout.buffer.write(ran.stdout)


def harvest(event: Mapping[str, object], options: Sequence[str]) -> None:
    """Starts the harvest and returns at once; its failures go to `hook.log`."""
    transcript = event.get("transcript_path")
    if not isinstance(transcript, str) or not (path := Path(transcript).expanduser()).is_file():
        raise ValueError(f"there is no transcript at {transcript!r}")
    command = [consolidator(), *options, "harvest", str(path.absolute()), "--project", project(folder(event))]
    with log().open("a") as errors:
        subprocess.Popen(
            [sys.executable, str(Path(__file__).absolute()), LATER, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )


def harvested(command: Sequence[str], pauses: Sequence[float] = PAUSES) -> None:
    """Runs the harvest, again after a pause where another process has the memory open."""
    for pause in (*pauses, None):
        ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=HARVEST_LIMIT, check=False)
        if ran.returncode != HELD or pause is None:
            break
        time.sleep(pause)
    if ran.returncode:
        complain(f"no harvest: {ran.stderr.decode(errors='replace').strip() or f'exit code {ran.returncode}'}")


def folder(event: Mapping[str, object]) -> Path:
    """Where the agent works."""
    told = event.get("cwd")
    return Path(told) if isinstance(told, str) and told else Path.cwd()


def project(path: Path) -> str:
    """The name of the repository that a folder lies in, else of the folder."""
    path = path.absolute()
    return next((place for place in (path, *path.parents) if (place / ".git").exists()), path).name.lower() or "unknown"


def consolidator() -> str:
    found = shutil.which("consolidator")
    if found is None:
        raise ValueError("`consolidator` is not on the PATH")
    return found


def log() -> Path:
    path = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "consolidator" / "hook.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def complain(said: str) -> None:
    sys.stderr.write(f"consolidator hook: {said}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
