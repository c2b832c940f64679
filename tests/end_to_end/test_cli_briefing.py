"""The command line on what was learnt: a briefing that a hook can put before a session, and the measures."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from consolidator.calibration import Trial, calibration
from consolidator.config import Settings
from consolidator.engine import connect
from consolidator.tallies import NAMED, Figure, Measurement, Measures
from consolidator.testing import HashEmbedder, ScriptedProposer
from consolidator_adapters.dashboard import PLOT_HIGH, PLOT_LEFT, PLOT_TOP, PLOT_WIDE, runs, svg
from consolidator_adapters.knowledge_files import _safe
from tests.conftest import NOW
from tests.end_to_end.conftest import Run
from tests.learnt import ANY_CONFIDENCE, Learner, ago

pytestmark = pytest.mark.usefixtures("hash_embedder")
PITFALL = "Run `make migrate` before pytest, else 12 tests fail."


@pytest.fixture
def learnt(folder: Path) -> None:
    async def made() -> None:
        script = ScriptedProposer()
        settings = Settings.model_validate({"folder": folder, "consolidation": ANY_CONFIDENCE, "worker": {"background": False}})
        async with connect(settings=settings, embedder=HashEmbedder(), proposer=script) as engine:
            learner = Learner(engine.bank("default"), script)
            item = await learner.learn(PITFALL, [("s1", 3), ("s2", 1)], category="pitfall")
            await learner.learn("The ledger listens on port 5433.", confidence=0.6)
            await learner.session("s1", 3, outcome="failure", errors=("e",), tokens=1000)
            await learner.session("s2", 1, outcome="success", errors=("e",), briefed=(item.id,), used=(item.id,))

    asyncio.run(made())


@pytest.mark.usefixtures("learnt")
def test_a_briefing_is_printed_for_a_hook_and_the_rest_is_said_beside_it(run: Run) -> None:
    told = run("bootstrap", "--project", "shop", "--task", "run the tests")
    assert told.code == 0, told.err
    assert told.out.startswith("<briefing>\n")
    assert told.out.endswith("</briefing>\n")
    assert re.search(r"^- \[K-[0-9a-f]{8}\] 2 sources, confirmed 2026-05-31: Run `make migrate`", told.out, re.MULTILINE)
    assert "left out: 1 confidence" in told.err
    document = run("bootstrap", "--project", "shop", "--json").document
    assert [item["text"] for item in document["items"]] == [PITFALL]
    assert run("bootstrap", "--project", "shop", "--budget", "5", "--json").document["text"] == ""
    assert run("bootstrap", "--project", "mobile").out == ""


@pytest.mark.usefixtures("learnt")
def test_d05_all_that_was_learnt_as_a_folder(run: Run, tmp_path: Path) -> None:
    where = tmp_path / "knowledge"
    told = run("bootstrap", "--files", str(where), "--json").document
    assert told["files"] == ["index.json", "repos/shop.md"]
    index = {entry["fact"]: entry for entry in json.loads((where / "index.json").read_text())["items"]}
    pitfall = index[PITFALL]
    assert (pitfall["category"], pitfall["domain"], pitfall["source_count"]) == ("pitfall", "shop", 2)
    assert pitfall["first_seen"] < pitfall["last_confirmed"]
    page = (where / "repos" / "shop.md").read_text()
    assert page.index("## Pitfalls") < page.index(f"- [{pitfall['handle']}] {PITFALL}") < page.index("## Facts")
    (where / "repos" / "gone.md").write_text("of a project that was forgotten")
    assert run("bootstrap", "--files", str(where)).code == 0
    assert sorted(path.name for path in (where / "repos").iterdir()) == ["shop.md"]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").write_text("keep me")
    assert run("bootstrap", "--files", str(other)).code == 2


def test_a_projects_name_leaves_its_folder_by_no_trick() -> None:
    assert [_safe(name) for name in ("../../etc/passwd", "a b/c", "..", "ok-1.2")] == ["etc-passwd", "a-b-c", "unnamed", "ok-1.2"]


@pytest.mark.usefixtures("learnt")
def test_measures_are_shown_written_and_drawn(run: Run, tmp_path: Path) -> None:
    page, picture = tmp_path / "dashboard.md", tmp_path / "dashboard.svg"
    window = ("--since", f"{ago(5):%Y-%m-%d}", "--until", f"{NOW:%Y-%m-%d}")
    told = run("measure", *window, "--calibration", "--markdown", str(page), "--plot", str(picture), "--json").document
    assert told["whole"]["completion"] == {"value": 0.5, "n": 2}
    assert told["whole"]["hits"] == {"value": 1.0, "n": 1}
    assert told["calibration"]["tested"] == 1
    assert "| Errors that had been met before | 50% | 2 errors |" in page.read_text()
    assert ElementTree.fromstring(picture.read_text()).tag.endswith("svg")
    shown = run("measure", *window, "--calibration").out
    assert "Sessions that succeeded" in shown
    assert "too little is known" in shown


@pytest.mark.parametrize(("args", "said"), [
    (("bootstrap", "--budget", "0"), "--budget is 0"), (("bootstrap", "--project", " "), "project is blank"),
    (("measure", "--plot", "a.png"), "name it a.svg"), (("measure", "--markdown", "a.txt"), "name it a.md"),
    (("measure", "--since", "soon"), "--since"),
    (("measure", "--since", "2026-05-02", "--until", "2026-05-01"), "since lies after"),
])
@pytest.mark.usefixtures("learnt")
def test_what_is_wrong_is_said_in_a_sentence(run: Run, args: tuple[str, ...], said: str) -> None:
    told = run(*args)
    assert told.code == 2
    assert said in told.err
    assert len(told.err.strip().splitlines()) == 1


# the picture


def a_week(*values: float | None) -> Measurement:
    days = tuple(
        Measures(until=ago(6 - n), velocity=Figure(value=v, n=1), completion=Figure(value=None if v is None else v / 10, n=1))
        for n, v in enumerate(values)
    )
    return Measurement(whole=days[-1], days=days)


def test_the_line_is_broken_where_a_day_is_unknown() -> None:
    days = [Figure(value=v) for v in (0.0, 5.0, None, None, 10.0, None, 2.5)]
    base, right = PLOT_TOP + PLOT_HIGH, PLOT_LEFT + PLOT_WIDE
    found = runs(days, 10.0)
    assert [len(run) for run in found] == [2, 1, 1]
    assert (found[0][0], found[2][0]) == ((PLOT_LEFT, base), (right, base - PLOT_HIGH / 4))
    assert found[1][0][1] == PLOT_TOP
    assert all(left[0] < later[0] for left, later in pairwise(point for run in found for point in run))


def test_every_panel_stands_within_the_picture_and_says_its_value() -> None:
    tested = calibration([Trial(id="1", confidence=0.95, verdict="confirmed")])
    root = ElementTree.fromstring(svg(a_week(1.0, 4.0, None, 3.0, 0.0, 9.0, 5.0), tested))
    wide, high = float(root.attrib["width"]), float(root.attrib["height"])
    panels = [part for part in root if part.tag.endswith("}g")]
    assert len(panels) == len(NAMED) + 1
    taken = set()
    for panel in panels:
        (corner,) = re.findall(r"translate\((\d+),(\d+)\)", panel.attrib["transform"])
        left, top = map(float, corner)
        taken.add((left, top))
        for part in panel:
            for x, y in re.findall(r"([\d.]+),([\d.]+)", part.attrib.get("points", "")):
                assert 0 <= left + float(x) <= wide
                assert 0 <= top + float(y) <= high
            assert left + float(part.attrib.get("x", 0)) + float(part.attrib.get("width", 0)) <= wide
            assert top + float(part.attrib.get("y", 0)) + float(part.attrib.get("height", 0)) <= high
    assert len(taken) == len(panels), "no two of them in one place"
    words = [part.text for part in root.iter() if part.tag.endswith("text")]
    assert {named.title for named in NAMED} <= {*words}
    assert "5.0" in words
    assert "100% of 1 tested" in words
