"""The blocking twin: every verb, the same signature, the same results and errors."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from consolidator import blocking, engine
from consolidator.config import Settings
from consolidator.errors import InvalidInput
from consolidator.testing import HashEmbedder, ManualClock, ScriptedProposer
from consolidator.testing.proposers import word_for_word


def verbs(cls: type) -> set[str]:
    return {name for name, member in vars(cls).items() if inspect.iscoroutinefunction(member) and not name.startswith("_")}


@pytest.mark.parametrize("name", ["Bank", "Engine"])
def test_no_twin_is_missing(name: str) -> None:
    original, twin = getattr(engine, name), getattr(blocking, name)
    missing = verbs(original) - set(vars(twin)) - {"close"}
    assert not missing


@pytest.mark.parametrize("verb", sorted(verbs(engine.Bank)))
def test_a_twin_has_the_signature_and_the_docstring_of_its_original(verb: str) -> None:
    original, twin = getattr(engine.Bank, verb), getattr(blocking.Bank, verb)
    assert inspect.signature(twin).parameters.keys() == inspect.signature(original).parameters.keys()
    assert twin.__doc__ == original.__doc__
    assert not inspect.iscoroutinefunction(twin)


def test_a_whole_round(tmp_path: Path, clock: ManualClock) -> None:
    settings = Settings(folder=tmp_path / "m")
    proposer = ScriptedProposer([word_for_word])
    with blocking.connect(settings=settings, clock=clock, embedder=HashEmbedder(), proposer=proposer) as opened:
        bank = opened.bank("alice")
        assert bank.id == "alice"
        bank.retain("Alice lives in Lisbon.", source="chat")
        assert bank.consolidate().created == 1
        assert [h.text for h in bank.recall("Where does Alice live?")] == ["Alice lives in Lisbon."]
        receipt = bank.forget(source="chat")
        assert bank.verify(receipt).ok
        assert bank.observations() == []
        assert opened.banks() == ["alice"]
        with pytest.raises(InvalidInput, match="blank"):
            bank.recall(" ")


def test_an_error_at_opening_comes_through(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput), blocking.connect("http://localhost:1"):
        pass
