"""The example hook: it briefs, it harvests in the background, and whatever happens the agent goes on."""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HOOKS = Path(__file__).parents[2] / "examples" / "hooks"
HOOK = HOOKS / "session.py"
PATIENCE = 60  # seconds until a test gives up
BRIEFING = "<briefing>\n- [K-0a1b2c3d] A fact – and a dash.\n</briefing>\n"
FAKE = """#!{python}
import json, sys
from pathlib import Path

place = Path({place!r})
code, *later = (place / "codes").read_text().split()
(place / "codes").write_text(" ".join(later or [code]))
with open(place / ("harvests" if "harvest" in sys.argv else "asked"), "a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
sys.stdout.buffer.write({briefing!r}.encode())
sys.stderr.write("it is as the test says\\n" if int(code) else "")
sys.exit(int(code))
"""


class Fake:
    """A `consolidator` that answers as the test says. A harvest by it ends only after the test has heard of it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.program = place / "bin" / "consolidator"
        self.program.parent.mkdir()
        self.program.write_text(FAKE.format(python=sys.executable, place=str(place), briefing=BRIEFING))
        self.program.chmod(0o755)
        os.mkfifo(place / "harvests")  # to open it for writing takes a reader
        self.answers(0)

    def answers(self, *codes: int) -> None:
        """The exit codes of the next calls; the last one stays."""
        (self._place / "codes").write_text(" ".join(map(str, codes)))

    @property
    def asked(self) -> list[list[str]]:
        asked = self._place / "asked"
        return [json.loads(line) for line in asked.read_text().splitlines()] if asked.exists() else []

    def harvest(self) -> list[str]:
        """The arguments of the one that goes on; waits for it."""
        pipe = os.open(self._place / "harvests", os.O_RDONLY | os.O_NONBLOCK)
        try:
            assert select.select([pipe], [], [], PATIENCE)[0], "nobody harvests"
            arguments: list[str] = json.loads(os.read(pipe, 65_536))
        finally:
            os.close(pipe)
        return arguments


class Agent:
    """Calls the hook as an agent does."""

    def __init__(self, place: Path, fake: Fake) -> None:
        self.folder = place / "Harbour-API" / "app" / "domain"
        self.folder.mkdir(parents=True)
        (place / "Harbour-API" / ".git").mkdir()
        self.transcript = place / "a session.jsonl"
        self.transcript.write_text('{"role": "user", "content": "hello"}\n')
        self.state = place / "state"
        self.path = [str(fake.program.parent)]

    def tells(self, event: str, *options: str, **fields: object) -> subprocess.CompletedProcess[str]:
        told = {"session_id": "s", "transcript_path": str(self.transcript), "cwd": str(self.folder), "hook_event_name": event}
        return self.sends(json.dumps({**told, **fields}), *options)

    def sends(self, told: str | bytes, *options: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": os.pathsep.join(self.path), "XDG_STATE_HOME": str(self.state), "PYTHONUTF8": "1"}
        command = [sys.executable, str(HOOK), *options]
        ran = subprocess.run(
            command, input=told.encode() if isinstance(told, str) else told, capture_output=True, env=env, timeout=PATIENCE
        )
        return subprocess.CompletedProcess(command, ran.returncode, ran.stdout.decode(), ran.stderr.decode())


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


@pytest.fixture
def agent(tmp_path: Path, fake: Fake) -> Agent:
    return Agent(tmp_path, fake)


@pytest.fixture
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("session_hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestStart:
    def test_prints_the_briefing_of_the_repository(self, agent: Agent, fake: Fake) -> None:
        ran = agent.tells("SessionStart", "--folder", "some where", source="startup")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, BRIEFING, "")
        assert fake.asked == [["--folder", "some where", "bootstrap", "--project", "harbour-api"]]

    def test_a_folder_without_a_repository_is_its_own_project(self, agent: Agent, fake: Fake, tmp_path: Path) -> None:
        agent.tells("SessionStart", cwd=str(tmp_path / "bin"))
        assert fake.asked[0][-1] == "bin"

    def test_a_memory_that_cannot_answer_gives_no_briefing(self, agent: Agent, fake: Fake) -> None:
        fake.answers(1)
        ran = agent.tells("SessionStart")
        assert (ran.returncode, ran.stdout) == (0, "")
        assert ran.stderr == "consolidator hook: no briefing: it is as the test says\n"

    def test_a_memory_that_stays_open_elsewhere_is_asked_for_a_while(
        self, agent: Agent, fake: Fake, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In this process, with a shorter patience than the hook's twenty seconds."""
        monkeypatch.setattr(hook, "BRIEFING_LIMIT", 2)
        monkeypatch.setattr(hook, "WAIT", 0.1)
        monkeypatch.setenv("PATH", agent.path[0])
        fake.answers(4)
        with pytest.raises(ValueError, match=r"^no briefing: it is as the test says$"):
            hook.brief({"cwd": str(agent.folder)}, [])
        assert len(fake.asked) > 2


class TestEnd:
    def test_returns_while_the_harvest_goes_on(self, agent: Agent, fake: Fake) -> None:
        ran = agent.tells("SessionEnd", "--bank", "team", reason="clear")  # the harvest cannot end before it is heard of
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
        assert fake.harvest() == ["--bank", "team", "harvest", str(agent.transcript), "--project", "harbour-api"]

    def test_waits_its_turn_where_the_memory_is_open_elsewhere(
        self, hook: ModuleType, fake: Fake, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake.answers(4, 4, 0)
        hook.harvested([str(fake.program), "later"], pauses=(0, 0, 0))
        assert len(fake.asked) == 3
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(("codes", "tries"), [((4,), 3), ((1,), 1)])
    def test_what_does_not_pass_is_told(
        self, hook: ModuleType, fake: Fake, capsys: pytest.CaptureFixture[str], codes: Sequence[int], tries: int
    ) -> None:
        fake.answers(*codes)
        hook.harvested([str(fake.program), "later"], pauses=(0, 0))
        assert len(fake.asked) == tries
        assert capsys.readouterr().err == "consolidator hook: no harvest: it is as the test says\n"

    def test_the_one_in_the_background_exits_0_too(self, agent: Agent, fake: Fake) -> None:
        fake.answers(1)
        ran = agent.sends("", "--later", str(fake.program))
        assert (ran.returncode, ran.stderr) == (0, "consolidator hook: no harvest: it is as the test says\n")


class TestNothingStopsTheAgent:
    @pytest.mark.parametrize("told", ["", "no json", "[]", "null", '{"hook_event_name": 5}', "{}", "[" * 100_000, b"\xff\xfe{"])
    def test_input_that_is_none(self, agent: Agent, fake: Fake, told: str | bytes) -> None:
        self.passed_over(agent.sends(told), fake)

    @pytest.mark.parametrize("path", [None, 5, "", "/nowhere/at.jsonl", "/", "\0"])
    def test_a_transcript_that_is_not_there(self, agent: Agent, fake: Fake, path: object) -> None:
        self.passed_over(agent.tells("SessionEnd", transcript_path=path), fake)

    def test_an_event_of_another_kind(self, agent: Agent, fake: Fake) -> None:
        self.passed_over(agent.tells("PreToolUse"), fake)

    @pytest.mark.parametrize("event", ["SessionStart", "SessionEnd"])
    def test_a_program_that_is_not_there(self, agent: Agent, fake: Fake, event: str) -> None:
        agent.path = ["/nowhere"]
        ran = agent.tells(event)
        self.passed_over(ran, fake)
        assert "`consolidator` is not on the PATH" in ran.stderr

    def test_a_state_folder_that_cannot_be_made(self, agent: Agent, fake: Fake) -> None:
        agent.state.write_text("a file")
        self.passed_over(agent.tells("SessionEnd"), fake)

    @staticmethod
    def passed_over(ran: subprocess.CompletedProcess[str], fake: Fake) -> None:
        assert (ran.returncode, ran.stdout) == (0, "")
        assert ran.stderr.startswith("consolidator hook: ")
        assert "Traceback" not in ran.stderr
        assert fake.asked == []


def test_the_settings_name_the_hook_for_both_ends() -> None:
    settings: dict[str, Any] = json.loads((HOOKS / "settings.json").read_text())
    told = {event: entries[0]["hooks"][0]["command"] for event, entries in settings["hooks"].items()}
    assert set(told) == {"SessionStart", "SessionEnd"}
    assert all("session.py" in command for command in told.values())
