"""Records what a model replies to the real prompt, scenario by scenario. By hand alone: it overwrites the recording.

    python -m tests.cassettes.record conversation --base-url http://127.0.0.1:8123/v1 --model desk

Any server that speaks OpenAI's chat completions will do; its key is read from OPENAI_API_KEY. A test replays a scenario by
the same function, so that recording and replaying ask the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from consolidator.config import Settings
from consolidator.engine import Bank, connect
from consolidator.plans import Report
from consolidator.ports import ChatModel, Completion, Message
from consolidator.proposing import ModelProposer
from consolidator.testing import HashEmbedder, ManualClock
from consolidator_adapters.conversation import load_conversation
from tests.cassettes import KEYS, answers_of, key_of, path_of
from tests.cassettes.cases import cases
from tests.cassettes.harvested import sessions

PATIENCE = 3600.0  # seconds for one reply: a person may be the model


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A bank that heard a conversation, with what each session's consolidation reported."""

    bank: Bank
    reports: tuple[Report, ...]


@asynccontextmanager
async def told_conversation(model: ChatModel) -> AsyncIterator[Told]:
    """A bank that retained the shipped conversation session by session, and consolidated after each."""
    sessions = load_conversation().sessions
    clock = ManualClock(sessions[-1].start + timedelta(days=1))
    asked = {
        "store": {"kind": "memory"},
        "consolidation": {"near_each": 200},  # no list is cut: a cut through a tie would fall by chance
        "worker": {"background": False, "pass_deadline": PATIENCE},
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate({"folder": folder, **asked})
        words = HashEmbedder(512)  # with fewer places, words collide, and the observation that is meant is often not shown
        async with connect(settings=settings, clock=clock, embedder=words, proposer=ModelProposer(model)) as engine:
            bank, reports = engine.bank("demo"), list[Report]()
            for session in sessions:
                await bank.retain(list(session.items()), source=session.source)
                reports.append(await bank.consolidate())
            yield Told(bank=bank, reports=tuple(reports))


async def conversation(model: ChatModel) -> None:
    """The whole conversation; then the session that the demo erases goes, and what this brings back is digested anew."""
    async with told_conversation(model) as told:
        await told.bank.forget(source=load_conversation().forget)
        await told.bank.consolidate()


SCENARIOS: Mapping[str, Callable[[ChatModel], Awaitable[None]]] = {
    "conversation": conversation, "cases": cases, "sessions": sessions,
}


class Recorder:
    """A chat model that writes down what another one answers. What stands in `known` (key to answer) is not asked again."""

    def __init__(self, model: ChatModel, path: Path, known: Mapping[str, str], key: Callable[[Sequence[Message]], str]) -> None:
        self.name = model.name
        self.endpoint = model.endpoint
        self._model = model
        self._path = path
        self._known = known
        self._key_of = key
        self._rows: list[str] = []

    async def complete(self, messages: Sequence[Message], *, schema: Mapping[str, Any], max_tokens: int) -> Completion:
        key = self._key_of(messages)
        if key in self._known:
            completion = Completion(text=self._known[key], model=self.name)
        else:
            completion = await self._model.complete(messages, schema=schema, max_tokens=max_tokens)
        self._write({"key": key, "user": messages[-1].content, "answer": completion.text})
        return completion

    def _write(self, row: Mapping[str, str]) -> None:
        self._rows.append(json.dumps(row, ensure_ascii=False) + "\n")
        self._path.write_text("".join(self._rows), encoding="utf-8")

    async def close(self) -> None:
        await self._model.close()


async def record(scenario: str, *, base_url: str, model: str, keep: bool) -> None:
    from consolidator_providers.openai import open_chat_model

    key = os.environ.get("OPENAI_API_KEY", "none")
    asked = await open_chat_model(
        model=model, base_url=base_url, api_key=key, deadline=PATIENCE, read_timeout=PATIENCE, tries=1
    )
    known = answers_of(scenario) if keep else {}
    recorder = Recorder(asked, path_of(scenario), known=known, key=KEYS.get(scenario, key_of))
    try:
        await SCENARIOS[scenario](recorder)
    finally:
        await recorder.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=sorted(SCENARIOS))
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--keep", action="store_true", help="ask only what the recording has no answer to")
    args = parser.parse_args()
    asyncio.run(record(args.scenario, base_url=args.base_url, model=args.model, keep=args.keep))


if __name__ == "__main__":
    main()
