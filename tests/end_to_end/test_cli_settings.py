"""The command line's settings, folders and self-examination."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from consolidator.blocking import connect
from consolidator.config import Settings, load
from consolidator.errors import InvalidSettings
from consolidator_adapters.cli import main
from tests.end_to_end.conftest import Run

pytestmark = pytest.mark.usefixtures("hash_embedder")


class TestSettings:
    def test_init_writes_a_file_that_changes_nothing(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "consolidator.toml"
        assert run("init", str(path)).code == 0
        assert load(path, env={}) == Settings(folder=tmp_path / "memory")
        assert run("init", str(path)).code == 2
        assert run("init", str(path), "--force").code == 0

    def test_the_template_names_every_setting_with_its_default(self) -> None:
        template = files("consolidator_adapters.cli").joinpath("template.toml").read_text()
        told = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", template, flags=re.MULTILINE))
        defaults = Settings().model_dump(mode="json")
        settings = Settings.model_validate(told).model_dump(mode="json")
        assert _leaves(told) == _leaves(defaults)
        for name in _leaves(defaults):
            default = _leaf(defaults, name)
            assert default is None or _leaf(settings, name) == default, name

    def test_a_settings_file_is_used(self, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "consolidator.toml"
        path.write_text('folder = "elsewhere"\n')
        assert main(["retain", "x", "-s", "a", "--config", str(path)]) == 0
        assert (tmp_path / "elsewhere").is_dir()
        path.write_text("[stor]\nkind = 1\n")
        assert main(["stats", "--config", str(path)]) == 2
        assert 'did you mean "store"' in capsys.readouterr().err
        assert main(["stats", "--config", str(tmp_path)]) == 2

    @pytest.mark.parametrize("option", ["--folder", "--config"])
    def test_a_url_says_where_it_belongs(self, run: Run, option: str) -> None:
        with pytest.raises(InvalidSettings) as said:
            load("http://localhost:6333")
        ran = run("stats", option, "http://localhost:6333")
        assert (ran.code, ran.err) == (2, f"error: {said.value}\n")

    @pytest.mark.parametrize("below", ["", "/deeper/down"])
    @pytest.mark.parametrize("args", [("stats",), ("retain", "x", "-s", "a"), ("demo",)])
    def test_a_file_is_no_folder(self, run: Run, tmp_path: Path, below: str, args: tuple[str, ...]) -> None:
        (tmp_path / "big.txt").write_text("years of work")
        ran = run(*args, "--folder", f"{tmp_path}/big.txt{below}")
        assert (ran.code, ran.err) == (2, f"error: {tmp_path}/big.txt is a file; --folder takes a folder\n")

    @pytest.mark.parametrize("args", [("retain", "x", "-s", "a"), ("demo",)])
    def test_a_folder_that_cannot_be_written(
        self, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
    ) -> None:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)  # permissions bind no superuser
        ran = run(*args)
        said = f"error: {folder} cannot be written: permission denied; choose another with --folder\n"
        assert (ran.code, ran.out, ran.err) == (2, "", said)

    def test_a_folder_that_is_open_elsewhere(self, run: Run, folder: Path) -> None:
        with connect(folder):
            ran = run("stats", "--json")
        assert ran.code == 4
        assert ran.document["error"]["type"] == "StoreLocked"


class TestDoctor:
    def test_says_that_all_is_there(self, told: Run) -> None:
        ran = told("doctor", "--json")
        states = {check["name"]: check["state"] for check in ran.document["checks"]}
        assert (ran.code, ran.document["ok"]) == (0, True)
        assert {states[name] for name in ("python", "embedder", "store", "ledger", "consolidation")} == {"ok"}
        assert states["model"] == "off"

    def test_makes_no_memory(self, run: Run, folder: Path) -> None:
        assert run("doctor").code == 0
        assert not folder.exists()

    def test_names_what_is_missing_and_how_to_get_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONSOLIDATOR_EMBEDDER__PROVIDER", "nonesuch")
        ran = run("doctor", "--json")
        (embedder,) = (check for check in ran.document["checks"] if check["name"] == "embedder")
        assert (ran.code, embedder["state"]) == (1, "missing")
        assert "nonesuch" in embedder["detail"]

    def test_the_store_is_not_blamed_for_the_embedder(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CONSOLIDATOR_EMBEDDER__PROVIDER", "nonesuch")
        store = next(check for check in run("doctor", "--json").document["checks"] if check["name"] == "store")
        assert (store["state"], store["detail"]) == ("off", "not checked: needs the embedder")

    def test_a_folder_that_cannot_be_written(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        ran = run("doctor", "--json")
        assert [check["name"] for check in ran.document["checks"] if check["state"] == "missing"] == ["folder"]
        assert ran.code == 1

    def test_shows_where_settings_come_from_and_what_survives(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text('[store]\ndurability = "power"\n')
        details = {check["name"]: check["detail"] for check in run("doctor", "--json", "-c", str(path)).document["checks"]}
        assert details["settings"] == f"{path}; variables: CONSOLIDATOR_EMBEDDER__PROVIDER"
        assert "durability: power" in details["store"]

    def test_never_prints_a_key(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-private")
        monkeypatch.setenv("CONSOLIDATOR_CONSOLIDATION__PROPOSER", "model")
        monkeypatch.setenv("CONSOLIDATOR_MODEL__BASE_URL", "http://me:sk-very-private@127.0.0.1:9/v1")
        ran = run("doctor")
        assert "--online" in ran.out
        assert "sk-very-private" not in ran.out + ran.err


def _leaves(told: dict[str, Any], prefix: str = "") -> set[str]:
    return {
        leaf for name, value in told.items()
        for leaf in (_leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name})
    }


def _leaf(told: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        told = told[part]
    return told
