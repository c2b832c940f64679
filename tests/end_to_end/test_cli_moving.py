"""`export` and `import` on the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Run

pytestmark = pytest.mark.usefixtures("hash_embedder")


def told(run: Run) -> None:
    run("retain", "I live in Lisbon.", "-s", "chat")
    run("consolidate")


def test_a_bank_goes_to_a_file_and_comes_back_from_it(run: Run, tmp_path: Path) -> None:
    told(run)
    file = tmp_path / "alice.jsonl"
    ran = run("export", str(file))
    assert (ran.code, ran.out) == (0, f"wrote 4 records of bank default to {file}\n") or str(file) in "".join(ran.out.split())
    assert file.stat().st_mode & 0o777 == 0o600
    assert run("export", str(file)).code == 2
    assert run("export", str(file), "--force", "--json").document == {"written": str(file), "records": 4}
    assert run("import", str(file), "-b", "bob").out == "1 memory and 1 observation imported\n"
    assert "known already: 1 memory, 1 observation" in run("import", str(file), "-b", "bob").out
    assert [o["text"] for o in run("observations", "-b", "bob", "--json").document] == ['"I live in Lisbon."']
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_a_stream_is_lines_of_json_and_nothing_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told(run)
    ran = run("export")
    assert [json.loads(line)["record"] for line in ran.out.splitlines()] == ["consolidator", "memory", "observation", "end"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(ran.out.encode())))
    assert run("import", "-", "-b", "bob", "--json").document["observations"] == 1


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("export", "-b", "nobody"), 3, 'there is no bank "nobody"; known are default'),
        (("export", "--json"), 2, "an export is JSON already"),
        (("import", "nowhere.jsonl"), 2, "there is no file nowhere.jsonl"),
    ],
)
def test_mistakes_are_named(run: Run, args: tuple[str, ...], code: int, why: str) -> None:
    told(run)
    ran = run(*args)
    assert (ran.code, why in ran.err) == (code, True), ran.err


def test_a_file_that_is_no_export_is_refused_by_its_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"record": "memory", "id": "m", "text": "A", "source": "s"}\n["A", 1]\n')
    ran = run("import", str(file))
    assert (ran.code, "line 2 is no record" in ran.err) == (2, True), ran.err
    assert not (tmp_path / "memory").exists()  # nothing was made in vain
    told(run)
    assert run("import", str(file)).code == 2
    assert run("stats", "--json").document["memories"] == 1


def test_what_is_no_line_break_in_a_file_of_lines_breaks_none(run: Run, tmp_path: Path) -> None:
    run("retain", "One\u2028two\u0085three\u2029four.", "-s", "chat")
    assert run("export", str(tmp_path / "a.jsonl")).code == 0
    ran = run("import", str(tmp_path / "a.jsonl"), "-b", "bob", "--json")
    assert (ran.code, ran.document["memories"]) == (0, 1), ran.err
