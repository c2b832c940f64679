"""Lives of an engine for the stateful test: `python -m tests.property.state_child` takes orders, one JSON object a line.

`open` forks a fresh process; the orders that follow are its own, until it is closed or killed. Every order has one answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import signal
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from consolidator.config import Settings
from consolidator.engine import Bank, Engine
from consolidator.errors import ConsolidatorError, NotFound
from consolidator.models import dump
from consolidator.parts import Parts
from consolidator.registry import LEDGER_FILE, open_storage
from consolidator.testing import HashEmbedder, ManualClock
from consolidator.testing.killing import Killing
from consolidator_providers.ledger import open_ledger
from consolidator_providers.vector_cache import CachedEmbedder
from tests.crash.engine_child import WRITES, Wrapped, ready_to_fork
from tests.property.state_proposer import StandIn, words

Order = dict[str, Any]
ATTEMPTS, BATCH, PART = 3, 3, 100
LONGEST = 120  # seconds that an order may take


def settings_of(folder: Path) -> Settings:
    """Small limits, so that short lives meet them all; the hash embedder knows words alone, so all candidates are shown."""
    consolidation = {"batch": BATCH, "floor": -1, "attempts": ATTEMPTS, "deletes_day": 3}
    sections = {"consolidation": consolidation, "retain": {"part": PART}, "worker": {"background": False}}
    return Settings.model_validate({"folder": folder, **sections})


class Life:
    """One engine, its troubles, and its time: the ledger's is the same."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.clock, self.proposer = clock, StandIn()
        self._settings = settings_of(folder)
        self._words = HashEmbedder()
        self._calls: Counter[str] = Counter({"boundaries": 1})  # it dies where this comes to 0
        self._engine: Engine | None = None
        self.parts: Parts

    async def open(self) -> None:
        folder = self._settings.folder
        embedder = CachedEmbedder(self._words, folder / "vectors.db")
        storage = await open_storage(self._settings, embedder)
        ledger = await open_ledger(url=f"sqlite:///{folder / LEDGER_FILE}", now=lambda: self.clock().timestamp())
        self.parts = Parts(
            storage=Wrapped(storage, self._killing), ledger=self._killing(ledger), embedder=self._killing(embedder),
            proposer=self.proposer, clock=self.clock, owner="embedded",
        )
        self._engine = Engine(self.parts, self._settings)

    def _killing(self, port: Any) -> Any:
        return Killing(port, 0, self._calls, only=WRITES)

    @property
    def engine(self) -> Engine:
        assert self._engine is not None
        return self._engine

    def arm(self, after: int | None) -> None:
        """Die at the boundary that is so many ahead; None: at none."""
        self._calls["boundaries"] = 1 if after is None else -after

    def embedder_down(self, down: bool) -> None:
        self._words.down = down


async def carried_out(life: Life, order: Order) -> Any:
    """What the order returns. Those to a bank name it."""
    bank = life.engine.bank(order.get("bank", "nobody"))
    if verb := ON_BANKS.get(order["do"]):
        return await verb(bank, order)
    match order["do"]:
        case "arm":
            return life.arm(order["after"])
        case "trouble":
            life.proposer.trouble = order["kinds"]
        case "embedder":
            return life.embedder_down(order["down"])
        case "time":
            life.clock.move(timedelta(seconds=order["seconds"]))
        case "drain":
            return dump(await life.engine.drain())
        case "raw":
            return await raw(life.parts, order["banks"])
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
    return None


async def _retain(bank: Bank, order: Order) -> Any:
    items = [{**item, "occurred_at": _time(item.get("occurred_at"))} for item in order["items"]]
    return dump(await bank.retain(items))


def _time(told: str | None) -> datetime | None:
    return datetime.fromisoformat(told) if told else None


async def _recall(bank: Bank, order: Order) -> Any:
    hits = await bank.recall(order["query"], top_k=50, tags=order["tags"], explain=True)
    await bank._services.echoes.settled()  # that it is noted in the background must not make two runs differ
    return dump(hits)


async def _forget(bank: Bank, order: Order) -> Any:
    return dump(await bank.forget(**order["what"], dry_run=order.get("dry_run", False)))


async def _verify(bank: Bank, order: Order) -> Any:
    return [dump(await bank.verify(receipt)) for receipt in await bank.receipts() if receipt.state == "settled"]


async def _refused(bank: Bank, order: Order) -> Any:
    """What a call with bad arguments says, and whether it left all as it was."""
    await bank.check()
    before = await _told(bank)
    try:
        told = f"accepted: {await BAD[order['what']](bank)}"
    except ConsolidatorError as error:
        told = type(error).__name__
    return [told, await _told(bank) == before]


async def _told(bank: Bank) -> Any:
    return [await bank.memories(), await bank.observations(), await bank.journal(), await bank.parked(), await bank.receipts()]


NAIVE = datetime(2026, 1, 1)
STRANGER = "5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11"
BAD: dict[str, Callable[[Bank], Awaitable[object]]] = {
    "naive time": lambda bank: bank.retain("It is word1x.", source="s", occurred_at=NAIVE),
    "no source": lambda bank: bank.retain("It is word1x."),
    "one of two is blank": lambda bank: bank.retain(["It is word1x.", " "], source="s"),
    "future": lambda bank: bank.retain("It is word1x.", source="s", occurred_at=bank._parts.clock() + timedelta(days=9)),
    "limit": lambda bank: bank.consolidate(limit=0),
    "top_k": lambda bank: bank.recall("It is word1x.", top_k=0),
    "nothing named": lambda bank: bank.forget(),
    "no id": lambda bank: bank.forget(memory_ids=["word1x"]),
    "blank source": lambda bank: bank.forget(source=" "),
    "stranger replayed": lambda bank: bank.replay([STRANGER]),
    "stranger dropped": lambda bank: bank.drop([STRANGER], reason="why not"),
    "dropped without reason": lambda bank: bank.drop([STRANGER], reason=" "),
    "paused without reason": lambda bank: bank.pause(""),
    "unknown state": lambda bank: bank.memories(state="lost"),
    "stranger": lambda bank: bank.history(STRANGER),
}


ON_BANKS: dict[str, Callable[[Bank, Order], Awaitable[Any]]] = {
    "retain": _retain, "recall": _recall, "forget": _forget, "verify": _verify, "refused": _refused,
    "consolidate": lambda bank, order: _dumped(bank.consolidate(limit=order["limit"], dry_run=order.get("dry_run", False))),
    "replay": lambda bank, order: _dumped(bank.replay(order["ids"])),
    "drop": lambda bank, order: _dumped(bank.drop(order["ids"], reason="not worth it")),
    "revert": lambda bank, order: _dumped(bank.revert(order["id"], order["version"], reason="it was right")),
    "correct": lambda bank, order: _dumped(bank.correct(order["id"], order["text"])),
    "undo": lambda bank, order: _dumped(bank.undo(order["plan"], reason="a mistake")),
    "pause": lambda bank, order: bank.pause("somebody looks"),
    "resume": lambda bank, order: bank.resume(),
    "check": lambda bank, order: _dumped(bank.check(acknowledged=order["acknowledged"])),
}


async def _dumped(answer: Awaitable[object]) -> Any:
    return dump(await answer)


async def view(bank: Bank) -> dict[str, Any]:
    """All that the bank's reading verbs say."""
    entries = await bank.journal()
    histories = {}
    for id in dict.fromkeys(entry.observation_id for entry in entries if entry.observation_id):
        with suppress(NotFound):
            histories[id] = dump(await bank.history(id))
    return {
        "memories": dump(await bank.memories()), "observations": dump(await bank.observations()), "histories": histories,
        "journal": dump(entries), "parked": dump(await bank.parked()), "stats": dump(await bank.stats()),
        "sources": await bank.sources(), "export": [json.loads(line) async for line in bank.export()],
    }


async def raw(parts: Parts, banks: list[str]) -> dict[str, dict[str, list[str]]]:
    """Where in the store and the ledger each word of a bank stands."""
    told: dict[str, dict[str, list[str]]] = {}
    for bank in banks:
        tables = await parts.ledger.dump(bank)
        for name, store in (("memories", parts.memories), ("observations", parts.observations)):
            tables[name] = [dict(point.payload) for point in (await store.scan(bank, limit=10_000)).points]
        places = told.setdefault(bank, {})
        for name, rows in tables.items():
            for word in words(*map(repr, rows)):
                places.setdefault(word, []).append(name)
    return told


async def answered(life: Life, order: Order) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    signal.alarm(LONGEST)
    try:
        answer["returned"] = await carried_out(life, order)
    except ConsolidatorError as error:
        answer["error"] = {"kind": type(error).__name__, "what": str(error)}
    armed, life._calls["boundaries"] = life._calls["boundaries"], 1  # to look is no part of the life
    answer["seen"] = {name: await view(life.engine.bank(name)) for name in order.get("look", ())}
    life._calls["boundaries"] = armed
    signal.alarm(0)
    return answer


async def live(first: Order) -> None:
    """Deterministic but for what hypothesis decides: an example that failed has to fail again."""
    random.seed(0)
    dice = random.Random(0)

    def token_bytes(nbytes: int | None = None) -> bytes:
        return dice.randbytes(nbytes or 32)

    secrets.token_bytes = token_bytes  # for the banks' keys, of which their ids are made
    life = Life(Path(first["folder"]), ManualClock(datetime.fromisoformat(first["at"])))
    await life.open()
    say({"seen": {name: await view(life.engine.bank(name)) for name in first["look"]}})
    while (order := heard())["do"] != "close":
        say(await answered(life, order))
    await life.engine.close()


def heard() -> Order:
    """The next line, and not a byte more: the one after it may be for another process. Nobody waits meanwhile."""
    line = b""
    while not line.endswith(b"\n"):
        if not (told := os.read(0, 1 << 20)):
            raise EOFError
        line += told
    order: Order = json.loads(line)
    return order


def say(answer: dict[str, Any]) -> None:
    line = json.dumps(answer).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


def lived(first: Order) -> dict[str, Any]:
    """How a life of its own process ended."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            with suppress(EOFError):  # the test is gone
                asyncio.run(live(first))
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    return {"ended": os.waitstatus_to_exitcode(ended)}


def main() -> None:
    ready_to_fork()
    with suppress(EOFError):
        while True:
            order = heard()
            say({"ended": 0} if order["do"] == "close" else lived(order))


if __name__ == "__main__":
    main()
