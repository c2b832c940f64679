"""What the documents tell people to type is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from consolidator.config import Settings
from consolidator.engine import connect
from consolidator.registry import provider

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(command: list[str], folder: Path, **env: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, **env}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_program_does_what_it_says(tmp_path: Path) -> None:
    program, *_ = blocks("python")
    told = run([sys.executable, "-c", program], tmp_path, CONSOLIDATOR_EMBEDDER__PROVIDER="hash")
    first, *_, last = told.splitlines()
    assert "moved to Berlin" in first
    assert "before" in first  # the journey is kept
    assert "Lisbon" in last  # and after forgetting, what the first conversation said stands again
    assert "Berlin" not in last


async def test_a_conversation_is_recorded_and_scored(tmp_path: Path) -> None:
    _, program, _ = blocks("python")
    told: dict[str, Any] = {}
    exec(f"async def converse(bank):\n{textwrap.indent(program, '    ')}", told)
    settings = Settings.model_validate({"folder": tmp_path / "memory", "embedder": {"provider": "hash"}})
    async with connect(settings=settings) as engine:
        bank = engine.bank("mara")
        await bank.retain("I am allergic to peanuts.", source="chat-1", speaker="Mara")
        await told["converse"](bank)
        await engine.drain()
        (hit,) = await bank.recall("What is Mara allergic to?", explain=True)
        assert hit.importance is not None
        assert hit.importance > 0


async def test_an_attempt_is_recorded_and_told_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    *_, program = blocks("python")
    told: dict[str, Any] = {}
    exec(f"async def attempt(bank):\n{textwrap.indent(program, '    ')}", told)
    settings = Settings.model_validate({"folder": tmp_path / "memory", "embedder": {"provider": "hash"}})
    async with connect(settings=settings) as engine:
        bank = engine.bank("agent")
        await told["attempt"](bank)
        await engine.drain()
        await told["attempt"](bank)
    assert "[WORKS] Migrate first." in capsys.readouterr().out


def test_sessions_by_shell(tmp_path: Path) -> None:
    """The commands of the README on the example sessions, whatever is named in capitals."""
    session = ROOT / "examples" / "sessions" / "20261103_091500_success.jsonl"
    lines = re.findall(r"^    (consolidator (?:sample|harvest|bootstrap|measure|episode) [^#\n]*)", README, re.MULTILINE)
    assert len(lines) == 6
    script = "\n".join(lines).replace("SESSION.jsonl", str(session)).replace("~/.claude/projects", str(session.parent))
    script = script.replace("harvest examples/sessions", f"harvest {session}")
    told = run(["bash", "-euc", script], tmp_path, CONSOLIDATOR_EMBEDDER__PROVIDER="hash")
    assert "20261104_140200_failure.jsonl" in told


def test_the_same_by_shell(tmp_path: Path) -> None:
    (script,) = blocks("sh")
    told = run(["bash", "-euc", script], tmp_path, CONSOLIDATOR_EMBEDDER__PROVIDER="hash")
    assert "verified" in told


def test_nothing_is_left_to_fill_in() -> None:
    assert not re.search(r"FIGURE|TODO|XXX", README)


def test_every_file_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_configuration_that_is_named_is_there() -> None:
    named = re.search(r"in \[`configs/`\]\(configs\): (.*?)\. Use", README, re.DOTALL)
    assert named is not None
    assert sorted(re.findall(r"`([\w-]+)`", named[1])) == sorted(path.stem for path in (ROOT / "configs").glob("*.toml"))


def test_every_make_target_that_is_named_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake (\w+)", README)):
        assert f"\n{target}:" in makefile


@pytest.mark.parametrize(("group", "name"), [
    ("storages", "edge"), ("storages", "qdrant"), ("storages", "memory"), ("ledgers", "sql"), ("embedders", "openai"),
    ("embedders", "sentence-transformers"), ("embedders", "hash"), ("chat_models", "openai"), ("proposers", "rules"),
])
def test_every_provider_can_be_found(group: str, name: str) -> None:
    assert callable(provider(group, name))  # type: ignore[arg-type]
