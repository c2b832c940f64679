"""What must hold of a bank, whatever happened to it: told by what the outside was told, and by the words of the texts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.property.state_proposer import words

Row = dict[str, Any]
VERBATIM = ("text", "source", "tags", "speaker", "occurred_at", "trust", "metadata", "kind", "part", "retained_at", "echo")
ACCOUNTS = {  # what may have become of a memory that is done
    "created", "contested", "updated", "reinforced", "deleted", "merged", "skipped", "nothing_durable", "dropped",
    "corrected",
}


def spoken_of(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass(slots=True)
class Known:
    """What the outside knows of one bank."""

    name: str
    kept: dict[str, Row] = field(default_factory=dict)  # memories that have to be there, in the order in which they came
    forgotten: dict[str, Row] = field(default_factory=dict)
    maybe: list[Row] = field(default_factory=list)  # items of a retain that was killed
    going: set[str] = field(default_factory=set)  # memories of a forget that was killed: all of them are gone, or none
    states: Counter[str] = field(default_factory=Counter)
    aside: set[str] = field(default_factory=set)  # parked or held
    paused: bool = False
    suspect: bool = False  # a life ended: the next pass may blame a memory for it

    @property
    def ids(self) -> list[str]:
        return list(self.kept)

    @property
    def waiting(self) -> int:
        """How many memories consolidation still owes something."""
        return self.states["pending"] + self.states["unembedded"]

    @property
    def erased(self) -> set[str]:
        """Words that no memory holds any more."""
        return set(words(*(m["text"] for m in self.forgotten.values()))) - set(words(*(m["text"] for m in self.kept.values())))

    def keep(self, memories: Iterable[Row]) -> Iterator[str]:
        """Take in what a retain returned."""
        for memory in memories:
            if memory["id"] in self.forgotten:
                yield f"{memory['id']} was erased, and its id is given again"
            self.kept.setdefault(memory["id"], memory)

    def forget(self, ids: Iterable[str]) -> None:
        for id in ids:
            self.forgotten[id] = self.kept.pop(id)

    def problems(self, seen: Row) -> Iterator[str]:
        """What is wrong with what the bank says of itself."""
        yield from self._memories({m["id"]: m for m in seen["memories"]})
        yield from self._states(seen)
        lineages = {id: set(told[-1]["lineage"]) for id, told in seen["histories"].items()}
        for observation in seen["observations"]:
            yield from self._observation(observation, lineages.get(observation["id"], set()))
        yield from self._versions(seen["histories"])
        yield from self._twins(seen)
        yield from self._accounted(seen)
        for verb, told in seen.items():
            if served := self.erased & set(words(json.dumps(told))):
                yield f"{verb} serves erased words: {sorted(served)}"

    def _memories(self, stored: dict[str, Row]) -> Iterator[str]:
        for id in stored.keys() - self.kept.keys():
            if id in self.forgotten or not any(_could_be(stored[id], item) for item in self.maybe):
                yield f"memory {id} is there, and should not be: {stored[id]['text']}"
            self.kept[id] = stored[id]
        missing = self.kept.keys() - stored.keys()
        if missing and missing != self.going:
            yield f"memories are lost: {sorted(missing)}"
        self.forget(missing)
        self.maybe, self.going = [], set()
        for id, memory in stored.items():
            if changed := [key for key in VERBATIM if _plain(memory[key]) != _plain(self.kept[id][key])]:
                yield f"memory {id} has another {changed}"

    def _states(self, seen: Row) -> Iterator[str]:
        stats, self.states = seen["stats"], Counter(m["state"] for m in seen["memories"])
        self.paused = stats["paused"] is not None
        self.aside = {m["id"] for m in seen["memories"] if m["state"] in ("parked", "held")}
        if stats["memories"] != len(seen["memories"]) or sum(seen["sources"].values()) != len(seen["memories"]):
            yield f"{stats['memories']} memories are counted, {len(seen['memories'])} are there"
        for state in ("pending", "unembedded", "parked", "held"):
            if stats[state] != self.states[state]:
                yield f"{stats[state]} are counted as {state}, {self.states[state]} are"
        if stats["observations"] != len(seen["observations"]):
            yield f"{stats['observations']} observations are counted, {len(seen['observations'])} are there"
        if unlisted := self.aside - {row["memory_id"] for row in seen["parked"]}:
            yield f"set aside, and not listed: {sorted(unlisted)}"

    def _observation(self, observation: Row, lineage: set[str]) -> Iterator[str]:
        it, evidence = f"observation {observation['id']}", observation["evidence"]
        cited = [e["memory_id"] for e in evidence]
        if unknown := set(cited) - self.kept.keys():
            yield f"{it} rests on {sorted(unknown)}, which are not there"
            return
        if not cited or len(set(cited)) < len(cited):
            yield f"{it} has no evidence, or counts some twice: {cited}"
        for e in evidence:
            memory = self.kept[e["memory_id"]]
            if (e["source"], e["trust"]) != (memory["source"], memory["trust"]):
                yield f"{it} mistakes where {e['memory_id']} comes from"
            if e["occurred_at"] != (memory["occurred_at"] or memory["retained_at"]):
                yield f"{it} mistakes when {e['memory_id']} happened"
            if set(memory["tags"]) != set(observation["tags"]):
                yield f"{it} of scope {observation['tags']} rests on a memory of scope {memory['tags']}"
        if not lineage:
            yield f"{it} comes from nowhere"

    def _versions(self, histories: dict[str, list[Row]]) -> Iterator[str]:
        for id, versions in histories.items():
            if [v["number"] for v in versions] != list(range(1, len(versions) + 1)):
                yield f"observation {id} has gaps in its history"
            for version in versions:
                it = f"version {version['number']} of {id}"
                if unknown := set(version["lineage"]) - self.kept.keys():
                    yield f"{it} was derived from {sorted(unknown)}, which are not there"
                    continue
                origins = set(words(*(self.kept[m]["text"] for m in version["lineage"])))
                if foreign := set(words(version["text"] or "")) - origins:
                    yield f"{it} holds {sorted(foreign)}, which its lineage does not"

    def _twins(self, seen: Row) -> Iterator[str]:
        """No two say the same, but for what a person has put into words."""
        put = {id for id, versions in seen["histories"].items() if any(v["by"] == "person" for v in versions)}
        made = [o for o in seen["observations"] if o["id"] not in put]
        told = Counter((spoken_of(o["text"]), *sorted(o["tags"])) for o in made)
        yield from (f"{times} observations say {text[0]}" for text, times in told.items() if times > 1)

    def _accounted(self, seen: Row) -> Iterator[str]:
        told: dict[str, set[str]] = {}
        for entry in seen["journal"]:
            for id in entry["cites"]:
                told.setdefault(id, set()).add(entry["action"])
        for memory in seen["memories"]:
            if memory["state"] == "done" and not told.get(memory["id"], set()) & ACCOUNTS:
                yield f"memory {memory['id']} is done, and nothing tells what became of it"

    def hits(self, hits: list[Row], tags: list[str], observations: Iterable[str]) -> Iterator[str]:
        """What is wrong with an answer of recall."""
        if served := self.erased & set(words(json.dumps(hits))):
            yield f"erased words are recalled: {sorted(served)}"
        there = {"memory": self.kept.keys(), "observation": set(observations)}
        for hit in hits:
            if hit["id"] not in there[hit["kind"]]:
                yield f"the {hit['kind']} {hit['id']} is recalled, and is not there"
            if not set(tags) <= set(hit["tags"]):
                yield f"{hit['id']} of scope {hit['tags']} is recalled for {tags}"


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value  # tags are a set


def _could_be(memory: Row, item: Row) -> bool:
    """Whether a memory is a part of an item that nobody knows to be kept."""
    fields = ("source", "speaker", "occurred_at", "trust")
    scope = memory["tags"] if item["tags"] is None else item["tags"]  # None: nobody said
    same = all(memory[key] == item.get(key) for key in fields) and set(memory["tags"]) == set(scope)
    return same and memory["text"] in item["text"]
