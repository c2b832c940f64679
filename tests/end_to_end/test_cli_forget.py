"""The command line's erasures: asked for, proven, and told."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from consolidator.models import Receipt
from tests.end_to_end.conftest import Run

pytestmark = pytest.mark.usefixtures("hash_embedder")


class TestForget:
    def test_needs_yes_where_nobody_can_be_asked(self, told: Run) -> None:
        for args in (("--source", "chat-2"), ("--source", "chat-2", "--json")):
            ran = told("forget", *args)
            assert ran.code == 2
            assert "--yes" in ran.err
        assert told("stats", "--json").document["memories"] == 3

    def test_shows_what_would_go(self, told: Run) -> None:
        shown = told("forget", "--source", "chat-2", "--dry-run").out
        assert "2 memories of chat-2" in shown
        assert "I like green tea." in shown
        assert told("forget", "--source", "chat-2", "--dry-run", "--json").document["state"] == "planned"
        assert told("stats", "--json").document["memories"] == 3

    def test_erases_and_proves_it(self, mine: Run, tmp_path: Path) -> None:
        receipt = tmp_path / "receipt.json"
        shown = mine("forget", "--source", "chat-2", "--yes", "--receipt", str(receipt)).out
        assert "memories erased" in shown
        assert f"consolidator verify {receipt}" in " ".join(shown.split())
        assert "green tea" not in mine("recall", "green tea").out
        assert mine("verify", str(receipt), "--json").document["ok"] is True
        assert mine("verify", Receipt.model_validate_json(receipt.read_text()).id).code == 0

    def test_asks_a_person(self, mine: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        for answer, left in (("n\n", 3), ("", 3), ("y\n", 2)):
            stdin = io.StringIO(answer)
            monkeypatch.setattr(stdin, "isatty", lambda: True)
            monkeypatch.setattr("sys.stdin", stdin)
            assert mine("forget", "--source", "chat-1").code == 0
            assert mine("stats", "--json").document["memories"] == left

    def test_a_trace_is_found(self, mine: Run, tmp_path: Path) -> None:
        receipt = tmp_path / "receipt.json"
        mine("forget", "--source", "chat-2", "--dry-run", "--receipt", str(receipt))
        ran = mine("verify", str(receipt))
        assert ran.code == 1
        assert "found" in ran.out

    def test_a_receipt_that_cannot_be_written_stops_the_erasure(self, mine: Run, tmp_path: Path) -> None:
        ran = mine("forget", "--source", "chat-2", "--yes", "--receipt", str(tmp_path / "nowhere" / "receipt.json"))
        assert (ran.code, ran.out) == (2, "")
        assert "cannot be written: no such file or directory; nothing was erased" in ran.err
        assert mine("stats", "--json").document["memories"] == 3

    def test_an_erasure_that_does_not_happen_leaves_no_receipt(self, mine: Run, tmp_path: Path) -> None:
        receipt = tmp_path / "receipt.json"
        assert mine("forget", "--source", "chat-9", "--yes", "--receipt", str(receipt)).code == 3
        assert not receipt.exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
    @pytest.mark.parametrize("form", ["view", "json"])
    def test_a_receipt_that_could_not_be_written_is_printed(self, mine: Run, form: str) -> None:
        ran = mine("forget", "--source", "chat-2", "--yes", "--receipt", "/dev/full", *(["--json"] if form == "json" else []))
        receipt = Receipt.model_validate_json(ran.out[ran.out.index("{"):])
        assert ran.code == 1
        assert receipt.id in ran.err
        assert mine("verify", receipt.id).code == 0

    def test_a_file_is_held_against_the_receipt_that_is_kept(self, mine: Run, tmp_path: Path) -> None:
        receipt, changed = tmp_path / "receipt.json", tmp_path / "changed.json"
        mine("forget", "--source", "chat-2", "--yes", "--receipt", str(receipt))
        assert mine("verify", str(receipt), "--json").document["note"] is None
        own = Receipt.model_validate_json(receipt.read_text())
        changed.write_text(own.model_copy(update={"digests": ()}).model_dump_json())
        ran = mine("verify", str(changed), "--json")
        assert (ran.code, ran.document["ok"]) == (1, False)
        assert ran.document["note"].startswith("this file differs")
        shown = mine("verify", str(changed)).out
        assert shown.startswith("this file differs")
        assert "verified" not in shown

    def test_a_receipt_that_was_handed_out_before_the_rollback_is_genuine(self, mine: Run, tmp_path: Path) -> None:
        receipt = tmp_path / "receipt.json"
        mine("forget", "--source", "chat-2", "--yes", "--receipt", str(receipt))
        own = Receipt.model_validate_json(receipt.read_text())
        receipt.write_text(own.model_copy(update={"state": "accepted", "digests": own.digests[:1]}).model_dump_json())
        ran = mine("verify", str(receipt), "--json")
        assert ran.code == 0
        assert "before the erasure was finished" in ran.document["note"]

    def test_another_memory_says_that_the_receipt_is_not_its_own(self, mine: Run, told: Run, tmp_path: Path) -> None:
        receipt = tmp_path / "receipt.json"
        mine("forget", "--source", "chat-2", "--yes", "--receipt", str(receipt))
        ran = told("verify", str(receipt))
        assert ran.out.startswith("this memory did not issue this receipt\n")
        own = Receipt.model_validate_json(receipt.read_text())
        ids = [m["id"] for m in told("recall", "green tea", "--kind", "memory", "--json").document]
        assert ran.code == int(bool({*ids} & {*own.memories}))

    def test_what_was_searched_is_counted_in_words(self, mine: Run, tmp_path: Path) -> None:
        receipt = tmp_path / "receipt.json"
        mine("forget", "--source", "chat-2", "--yes", "--receipt", str(receipt))
        assert re.search(r"left in 1 memory, \d+ observation records?, \d+ ledger texts?", mine("verify", str(receipt)).out)

    def test_what_is_not_there(self, mine: Run, tmp_path: Path) -> None:
        assert mine("forget", "--source", "chat-9", "--yes").code == 3
        assert mine("forget", "--yes").code == 2
        assert mine("verify", "no-such-receipt").code == 3
        (tmp_path / "no.json").write_text("{}")
        assert mine("verify", str(tmp_path / "no.json")).code == 2
