"""Settings: TOML, then variables; unknown keys are refused with the nearest known one."""

from __future__ import annotations

from pathlib import Path

import pytest

from consolidator.config import Settings, load
from consolidator.engine import connect
from consolidator.errors import InvalidSettings
from consolidator.registry import open_scorer

ROOT = Path(__file__).parents[2]


def test_defaults_need_nothing() -> None:
    settings = load(env={})
    assert (settings.folder, settings.store.kind, settings.consolidation.proposer) == (Path("memory"), "edge", "rules")


def test_a_folder(tmp_path: Path) -> None:
    assert load(tmp_path, env={}).folder == tmp_path


def test_a_file_and_variables_on_top(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text('folder = "data"\n[consolidation]\nbatch = 4\n[consolidation.guards]\nmin_confidence = 0.6\n')
    settings = load(path, env={"CONSOLIDATOR_CONSOLIDATION__BATCH": "6", "CONSOLIDATOR_STORE__DURABILITY": "power", "OTHER": "x"})
    assert settings.folder == tmp_path / "data"
    assert (settings.consolidation.batch, settings.consolidation.guards.min_confidence) == (6, 0.6)
    assert settings.store.durability == "power"


@pytest.mark.parametrize(("text", "sentence"), [
    ("folde = 'x'", 'no setting "folde"; did you mean "folder"'),
    ("[consolidation]\nbach = 3", r'no setting "consolidation.bach"; did you mean "consolidation.batch"'),
    ("[xyzzy]\na = 1", r'no setting "xyzzy"; known here are consolidation, embedder'),
    ("[consolidation]\nbatch = 'many'", r"setting consolidation.batch: .*integer"),
    ("[recall]\nfloor = 7", r"setting recall.floor: .*less than or equal to 1"),
    ("folder = ", "no valid TOML"),
])
def test_a_mistake_gets_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(InvalidSettings, match=sentence):
        load(path, env={})


def test_an_unknown_variable_is_refused() -> None:
    with pytest.raises(InvalidSettings, match=r'did you mean "store\.url"'):
        load(env={"CONSOLIDATOR_STORE__URI": "x"})


def test_a_value_never_stands_in_an_error() -> None:
    with pytest.raises(InvalidSettings) as caught:
        load(env={"CONSOLIDATOR_MODEL__TRIES": "sk-secret"})
    assert "sk-secret" not in str(caught.value)


def test_a_missing_file() -> None:
    with pytest.raises(InvalidSettings, match="consolidator init"):
        load("nowhere.toml", env={})


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(InvalidSettings, match="name is empty"):
        load("", env={})


def test_a_url_says_where_it_belongs() -> None:
    with pytest.raises(InvalidSettings, match='kind = "qdrant"'):
        load("http://localhost:6333", env={})


async def test_an_unknown_provider_names_those_that_are_there(tmp_path: Path) -> None:
    settings = load(tmp_path, env={"CONSOLIDATOR_EMBEDDER__PROVIDER": "magic"})
    with pytest.raises(InvalidSettings, match="known are hash, openai, sentence-transformers"):
        async with connect(settings=settings):
            pass


async def test_a_server_needs_its_url(tmp_path: Path) -> None:
    env = {"CONSOLIDATOR_EMBEDDER__PROVIDER": "hash", "CONSOLIDATOR_STORE__KIND": "qdrant"}
    with pytest.raises(InvalidSettings, match=r"needs store\.url"):
        async with connect(settings=load(tmp_path, env=env)):
            pass


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_example_is_valid(path: Path) -> None:
    settings = load(path, env={})
    text = path.read_text()
    assert text.startswith("#"), "an example says what it is for"
    assert settings.folder.is_absolute() or settings.folder.parts


def test_keys_are_never_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, env={"CONSOLIDATOR_MODEL__API_KEY": "sk-secret"})
    assert "sk-secret" not in repr(settings)
    assert "sk-secret" not in settings.model_dump_json()


def test_a_ledger_that_others_can_name_is_not_this_processs_own() -> None:
    """Two folders over one ledger: what the one erases, the other must not have remembered as there."""
    shared = {"ledger": {"url": "sqlite:////somewhere/ledger.db"}}
    assert Settings().alone
    assert not Settings.model_validate(shared).alone
    assert not Settings.model_validate({"store": {"kind": "qdrant", "url": "http://127.0.0.1:6333"}}).alone


async def test_an_unknown_scorer_is_named_with_those_that_are_there() -> None:
    with pytest.raises(InvalidSettings, match=r'no logprob model "magic"; known are .*completions.*lexical'):
        await open_scorer(Settings.model_validate({"importance": {"provider": "magic"}}))
