"""Transcripts from files, and what a bank knows of the memories that they show."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, UUID, uuid5

from consolidator.errors import InvalidInput, NotFound
from consolidator_adapters.cli.call import Call, known_bank
from consolidator_adapters.cli.reading import memories_of, observation_of
from consolidator_adapters.cli.writing import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from consolidator.engine import Bank
    from consolidator.transcripts import Group, Transcript

HOW = '{"role": "system", "content": "...", "items": ["an id that `consolidator recall --json` prints"]}'


@dataclass(frozen=True, slots=True)
class Item:
    """A memory or an observation that a transcript shows."""

    id: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A transcript with what a bank knows of its items. asked: how many it names; the unknown ones are plain text."""

    transcript: Transcript
    items: Mapping[str, Item]
    asked: int
    bank: str

    @property
    def unknown(self) -> int:
        return self.asked - len(self.items)

    def face(self, group: Group) -> Item:
        """What stands for a group: its observation, else what was shown first."""
        known = [self.items.get(id, Item(id, "memory", "(erased)")) for id in group.items]
        return next((item for item in known if item.kind == "observation"), known[0])

    def answer(self, response: str) -> str:
        return self.transcript.turns[int(response.rpartition("/")[2])].text


def transcript_of(file: Path, id: str | None) -> Transcript:
    """Raises InvalidInput, in one sentence, for what cannot be measured."""
    from consolidator.recording import read_transcript

    if file.is_dir():
        raise InvalidInput(f"{file} is a folder; name a file of JSON Lines, a turn on each")
    text = read(file)
    name = file.stem if id is None else id.strip()
    if not 1 <= len(name) <= 256:
        raise InvalidInput("a transcript's name has 1 to 256 characters; --id gives it one")
    changed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    try:
        found = read_transcript(text.split("\n"), id=name, at=changed)
    except InvalidInput as error:
        raise InvalidInput(f"{file}, {error}") from None
    if not found.responses:
        raise InvalidInput(f'{file} has no turn whose role is "assistant": there is no answer to measure')
    if not found.items:
        raise InvalidInput(f"{file} shows no memory: a turn that does names it, such as {HOW}")
    return _with_sound_ids(found)


def _with_sound_ids(transcript: Transcript) -> Transcript:
    """Whatever is named in another way than by an id is unknown to every bank, and has an id that nothing has."""
    sound = {told: _sound(told) for told in transcript.items}
    if all(told == id for told, id in sound.items()):
        return transcript
    turns = []
    for turn in transcript.turns:
        segments = [s.model_copy(update={"items": frozenset(sound[told] for told in s.items)}) for s in turn.segments]
        turns.append(turn.model_copy(update={"segments": tuple(segments)}))
    return transcript.model_copy(update={"turns": tuple(turns)})


def _sound(told: str) -> str:
    try:
        return str(UUID(told))
    except ValueError:
        return str(uuid5(NAMESPACE_OID, told))


@asynccontextmanager
async def opened(call: Call) -> AsyncIterator[Bank]:
    """A bank that is there. Raises NotFound, with those that are."""
    async with call.everything() as engine:
        yield engine.bank(known_bank(call.bank or "default", await engine.banks()))


async def shown_of(bank: Bank, transcript: Transcript, file: Path) -> Shown:
    """Raises NotFound where the bank knows nothing of what the transcript shows."""
    asked = transcript.items
    items = {id: Item(id, "memory", memory.text) for id, memory in (await memories_of(bank, asked)).items()}
    for id in asked:
        if id not in items and (observation := await observation_of(bank, id)) is not None:
            items[id] = Item(id, "observation", observation.text)
    if not items:
        named = "the one item" if len(asked) == 1 else f"any of the {len(asked):,} items"
        ids = "ids are those that `consolidator recall --json` prints, and --bank names another bank"
        raise NotFound(f'bank "{bank.id}" does not know {named} that {file} names; {ids}')
    return Shown(transcript=transcript, items=items, asked=len(asked), bank=bank.id)
