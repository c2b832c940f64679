"""The command line's work in the background: a worker that ends when asked, what is set aside, and the checker."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic
from typing import get_args

import pytest

from consolidator.blocking import connect
from consolidator.config import Settings
from consolidator.errors import BadReply, ModelRefused
from consolidator.invariants import Kind
from consolidator.testing import HashEmbedder, ScriptedProposer
from consolidator_adapters.cli.fsck import WHAT_TO_DO
from tests import fault_server
from tests.end_to_end.conftest import Run
from tests.fault_server import Body, FaultServer, Handler, completion, serving

pytestmark = pytest.mark.usefixtures("hash_embedder")

NOTHING = '{"actions": [], "nothing_durable": [{"memory": "m1", "reason": "small talk"}]}'
NOBODY = "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11"
SHUTDOWN = 1.0


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving() as server:
        yield server


@pytest.fixture
def asks(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consolidation asks a model of the fault server."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    for name, value in {
        "CONSOLIDATION__PROPOSER": "model", "MODEL__BASE_URL": server.url, "MODEL__TRIES": "1", "WORKER__DEBOUNCE": "0",
        "WORKER__SHUTDOWN": str(SHUTDOWN),
    }.items():
        monkeypatch.setenv(f"CONSOLIDATOR_{name}", value)


class Slow:
    """A model that answers when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.answer = threading.Event(), threading.Event()
        monkeypatch.setitem(fault_server.MODES, "slow", self)
        monkeypatch.setenv("CONSOLIDATOR_MODEL__NAME", "openai:slow")

    def __call__(self, handler: Handler, _: Body) -> None:
        self.asked.set()
        self.answer.wait(30)
        handler.send(200, completion(NOTHING))


@pytest.fixture
def slow(asks: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    model = Slow(monkeypatch)
    yield model
    model.answer.set()


@contextmanager
def working(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own."""
    code = "import sys; from consolidator_adapters.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "--folder", str(folder), "worker", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def bank_row(folder: Path) -> sqlite3.Row:
    with closing(sqlite3.connect(folder / "ledger.db")) as base:
        base.row_factory = sqlite3.Row
        row: sqlite3.Row = base.execute("SELECT * FROM bank").fetchone()
        return row


class TestWorker:
    def test_a_worker_that_is_told_to_stop_gives_everything_back(
        self, run: Run, folder: Path, slow: Slow, tmp_path: Path
    ) -> None:
        kept = run("retain", "I live in Lisbon.", "-s", "chat-1", "--json").document["memories"][0]["id"]
        with working(folder, "--json") as process:
            assert slow.asked.wait(30)
            assert bank_row(folder)["owner"] is not None
            process.send_signal(signal.SIGTERM)
            told = monotonic()
            out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        assert monotonic() - told < SHUTDOWN + 3
        assert out == ""  # the pass was given up: nothing of it was decided
        row = bank_row(folder)
        assert (row["owner"], row["lease_until"], row["reading"], row["attempts"]) == (None, 0.0, None, 0)
        assert run("stats", "--json").document["pending"] == 1
        acknowledged = tmp_path / "acknowledged"
        acknowledged.write_text(f"{kept}\n")
        assert run("fsck", "--acknowledged", str(acknowledged)).code == 0
        slow.answer.set()
        assert run("worker", "--drain").code == 0
        assert run("stats", "--json").document["pending"] == 0

    def test_what_ends_in_time_is_kept(self, run: Run, folder: Path, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONSOLIDATOR_WORKER__SHUTDOWN", "20")
        run("retain", "Good morning.", "-s", "chat-1")
        with working(folder) as process:
            assert slow.asked.wait(30)
            process.send_signal(signal.SIGTERM)
            slow.answer.set()
            out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "default  1 memory" in out
        assert "has the folder to itself" in err
        assert run("stats", "--json").document["pending"] == 0

    def test_a_second_signal_does_not_wait(self, run: Run, folder: Path, slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONSOLIDATOR_WORKER__SHUTDOWN", "60")
        run("retain", "Good morning.", "-s", "chat-1")
        with working(folder) as process:
            assert slow.asked.wait(30)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert any("ask again" in line for line in iter(process.stderr.readline, ""))
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
        assert run("stats", "--json").document["pending"] == 1

    def test_drain_works_until_nothing_is_left(self, run: Run) -> None:
        run("retain", "I live in Lisbon.", "-s", "chat-1", "--speaker", "Alice")
        run("retain", "I like green tea.", "-s", "chat-1", "--speaker", "Bob", "--bank", "bob")
        ran = run("worker", "--drain")
        assert (ran.code, ran.err) == (0, "")
        assert "default  1 memory, 1 created" in ran.out
        assert "bob  1 memory, 1 created" in ran.out
        assert ran.out.endswith("nothing is left to do\n")
        assert run("worker", "--drain", "--json").lines == [{"left": []}]

    def test_drain_fails_with_a_bank(self, run: Run, asks: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONSOLIDATOR_MODEL__NAME", "openai:503")
        monkeypatch.setenv("CONSOLIDATOR_WORKER__BACKOFF", "1000")
        run("retain", "I live in Lisbon.", "-s", "chat-1")
        ran = run("worker", "--drain", "--json")
        done, end = ran.lines
        assert (ran.code, done["bank"], end["left"][0]["attempts"]) == (1, "default", 1)
        assert "status 503" in done["error"]
        again = run("worker", "--drain")
        assert again.code == 1
        assert "left: failed 1×, due in" in again.out
        assert ran.err == again.err == ""

    def test_a_paused_bank_is_no_failure(self, run: Run) -> None:
        run("retain", "I live in Lisbon.", "-s", "chat-1")
        run("pause", "default", "--because", "the journal is being read")
        ran = run("worker", "--drain")
        assert ran.code == 0
        assert "default is paused: the journal is being read" in ran.out

    def test_a_folder_that_an_application_has_open(self, run: Run, folder: Path) -> None:
        with connect(folder):
            ran = run("worker")
        assert ran.code == 4
        assert "an application consolidates by itself what it has open" in ran.err

    def test_other_commands_leave_consolidation_alone(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONSOLIDATOR_WORKER__DEBOUNCE", "0")
        assert "1 memory waits to be distilled: `consolidator consolidate`" in run("retain", "I live in Lisbon.", "-s", "a").out
        assert "--bank bob`" in run("retain", "I live in Lisbon.", "-s", "a", "-b", "bob").out
        assert run("stats", "--json").document["pending"] == 1


@pytest.fixture
def aside(folder: Path) -> tuple[str, str]:
    """The ids of a parked and of a held memory."""
    settings = Settings.model_validate({"folder": folder, "consolidation": {"attempts": 1}, "worker": {"background": False}})
    script = ScriptedProposer([BadReply("not understood", reply='{"op":\n  "\x1b[2Jexplode"}'), ModelRefused("refused")])
    with connect(settings=settings, embedder=HashEmbedder(), proposer=script) as engine:
        bank = engine.bank("default")
        (riddle,) = bank.retain("A riddle.", source="book").memories
        bank.consolidate()
        (secret,) = bank.retain("A secret.", source="book").memories
        bank.consolidate()
    return riddle.id, secret.id


class TestParked:
    def test_lists_them(self, run: Run, aside: tuple[str, str]) -> None:
        for args in (("parked",), ("parked", "list")):
            assert {row["memory_id"]: row["state"] for row in run(*args, "--json").document} == {
                aside[0]: "parked", aside[1]: "held",
            }
            assert "not understood" in run(*args).out

    def test_shows_one_with_the_raw_reply(self, run: Run, aside: tuple[str, str]) -> None:
        shown = run("parked", "show", aside[0][:8]).out
        assert "A riddle." in shown
        assert '  {"op":\n' in shown
        assert "\x1b" not in shown
        document = run("--json", "parked", "show", aside[0]).document
        assert document["parked"]["reply"] == '{"op":\n  "\x1b[2Jexplode"}'
        assert document["memory"]["text"] == "A riddle."

    def test_gives_them_back(self, run: Run, aside: tuple[str, str]) -> None:
        assert run("parked", "replay").code == 2
        assert "1 memory given back" in run("parked", "replay", aside[0]).out
        assert [row["memory_id"] for row in run("parked", "--json").document] == [aside[1]]
        assert len(run("parked", "replay", "--all", "--json").document) == 1
        assert run("stats", "--json").document["pending"] == 2

    def test_drops_with_a_reason(self, run: Run, aside: tuple[str, str]) -> None:
        ran = run("parked", "drop", aside[0])
        assert (ran.code, "--because" in ran.err) == (2, True)
        assert run("parked", "drop", aside[0], aside[1], "--because", "it is a novel").code == 0
        assert run("parked", "--json").document == []
        story = run("journal").out
        assert "dropped by person" in story
        assert "it is a novel" in story
        assert "“A riddle.”" in story

    def test_what_is_not_there(self, run: Run, aside: tuple[str, str]) -> None:
        assert run("parked", "show", NOBODY).code == 3
        assert run("parked", "drop", "ffff", "--because", "x").code == 3


class TestStatus:
    def test_all_banks(self, run: Run, aside: tuple[str, str]) -> None:
        run("retain", "I live in Lisbon.", "-s", "a", "--bank", "work")
        run("pause", "work", "--because", "the journal is being read")
        banks = {s["bank"]: s for s in run("status", "--json").document["banks"]}
        assert (banks["default"]["parked"], banks["default"]["held"]) == (1, 1)
        assert (banks["work"]["pending"], banks["work"]["paused"]) == (1, "the journal is being read")
        shown = run("status").out
        assert "default has 1 parked, 1 held: `consolidator parked`" in shown
        assert "`consolidator resume work`" in shown
        assert "consolidates with rules" in shown
        assert "default" not in run("status", "--bank", "work").out
        assert run("status", "--bank", "nobody").code == 3

    def test_an_endpoint_that_rests(self, run: Run, asks: None, server: FaultServer, tmp_path: Path) -> None:
        config = tmp_path / "mine.toml"
        config.write_text('[model]\nname = "openai:503"\nbreaker = {failures = 1, rest = 60}\n')
        run("retain", "I live in Lisbon.", "-s", "a", "-c", str(config))
        assert run("worker", "--drain", "-c", str(config)).code == 1
        shown = run("status", "-c", str(config))
        assert "rests for" in shown.out
        assert "default failed: " in shown.out
        checks = {check["name"]: check for check in run("doctor", "--json", "-c", str(config)).document["checks"]}
        assert (checks["endpoint"]["state"], checks["bank default"]["state"]) == ("look", "look")
        assert "503" in checks["endpoint"]["detail"]

    def test_stats_say_what_is_next(self, run: Run) -> None:
        run("retain", "I live in Lisbon.", "-s", "a")
        assert "asked for" in run("stats").out
        run("pause", "default", "--because", "the journal is being read")
        assert "the journal is being read" in run("stats").out

    def test_pause_and_resume(self, run: Run) -> None:
        run("retain", "I live in Lisbon.", "-s", "a")
        assert run("pause", "default").code == 2
        assert run("pause", "nobody", "--because", "x").code == 3
        assert run("pause", "default", "--because", "a look first", "--json").document["paused"] == "a look first"
        shown = run("consolidate")
        assert "default is paused: a look first; `consolidator resume default` ends that" in " ".join(shown.out.split())
        assert run("stats", "--json").document["pending"] == 1
        assert run("resume", "default", "--json").document["was_paused"] == "a look first"
        assert "was not paused" in run("resume", "default").out
        assert "1 memory consolidated" in run("consolidate").out


def test_doctor_names_what_waits_for_a_person(run: Run, aside: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLIDATOR_WORKER__BACKGROUND", "false")
    monkeypatch.setenv("CONSOLIDATOR_MODEL__BUDGET_TOKENS_DAY", "5000")
    run("pause", "default", "--because", "a look first")
    ran = run("doctor", "--json")
    checks = {check["name"]: check for check in ran.document["checks"]}
    assert (ran.code, checks["bank default"]["state"]) == (0, "look")
    assert "1 parked; 1 held; paused: a look first" in checks["bank default"]["detail"]
    assert "`consolidator resume default`" in checks["bank default"]["fix"]
    assert (checks["worker"]["state"], "5,000 tokens a bank and day" in checks["worker"]["detail"]) == ("off", True)
    assert "1 thing waits for somebody to look" in run("doctor").out


def test_consolidate_tells_what_was_held(run: Run, asks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLIDATOR_MODEL__NAME", "openai:refusal")
    run("retain", "A secret.", "-s", "a")
    assert "1 held: the model refused: `consolidator parked`" in run("consolidate").out


class TestFsck:
    def test_a_sound_memory(self, told: Run) -> None:
        ran = told("fsck")
        assert (ran.code, ran.out) == (0, "default  sound\n")
        assert told("fsck", "--json").document == {"ok": True, "banks": {"default": []}}

    def test_says_what_is_wrong_and_what_to_do(self, mine: Run, folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledger.db")) as base, base:
            base.execute("DELETE FROM use")
            base.execute("UPDATE version SET text = 'Alice lives nowhere.' WHERE text LIKE '%tea%'")
        ran = mine("fsck", "--json")
        assert (ran.code, ran.document["ok"]) == (1, False)
        found = ran.document["banks"]["default"]
        assert {it["kind"] for it in found} == {"unconsumed", "differs"}
        assert all(it["do"] == WHAT_TO_DO[it["kind"]] for it in found)
        shown = mine("fsck", "--bank", "default")
        assert (shown.code, "nowhere" in shown.out) == (1, False)
        assert "4 things wrong" in shown.out
        assert "text differs" in shown.out
        assert shown.out.count("→") == 2

    def test_a_warning_is_no_failure(self, run: Run, folder: Path, aside: tuple[str, str]) -> None:
        with closing(sqlite3.connect(folder / "ledger.db")) as base, base:
            base.execute("DELETE FROM parked")
        ran = run("fsck")
        assert ran.code == 0
        assert "2 warnings" in ran.out

    def test_acknowledged_memories_are_stored_or_erased(self, mine: Run, tmp_path: Path) -> None:
        ids = tmp_path / "ids"
        kept = [m["id"] for m in mine("recall", "Alice", "--kind", "memory", "--json").document]
        ids.write_text("\n".join(kept) + "\n\n")
        mine("forget", "--source", "chat-2", "--yes")
        assert mine("fsck", "--acknowledged", str(ids)).code == 0
        ids.write_text("\n".join([*kept, NOBODY]))
        ran = mine("fsck", "--acknowledged", str(ids), "--json")
        assert (ran.code, [it["kind"] for it in ran.document["banks"]["default"]]) == (1, ["lost"])

    def test_wrong_input(self, mine: Run, tmp_path: Path) -> None:
        ids = tmp_path / "ids"
        ids.write_text("xyz\n")
        assert "line 1 is no id" in mine("fsck", "--acknowledged", str(ids)).err
        assert mine("fsck", "--acknowledged", str(tmp_path / "nowhere")).code == 2
        mine("retain", "x", "-s", "a", "--bank", "bob")
        ids.write_text(NOBODY)
        assert "name it with --bank" in mine("fsck", "--acknowledged", str(ids)).err
        assert mine("fsck", "--bank", "nobody").code == 3

    def test_every_kind_has_something_to_do(self) -> None:
        assert set(WHAT_TO_DO) == set(get_args(Kind))


def test_the_journal_tells_a_story(told: Run) -> None:
    shown = told("journal").out
    assert "“I like green tea.” Alice, 2026-03-20, chat-2" in shown
    assert " by rules" in shown
    assert "why" in shown
    first = json.loads(told("journal", "--json").out)[0]
    assert {"at", "action", "reason", "cites", "by"} <= first.keys()
