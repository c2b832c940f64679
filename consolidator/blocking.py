"""The same verbs without `await`: each one derived from its asynchronous twin, run on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from consolidator import engine as twin
from consolidator import measuring
from consolidator.clock import Clock, system_clock
from consolidator.config import Settings
from consolidator.errors import ConsolidatorError
from consolidator.events import Called, ObservationChanged, PassDone
from consolidator.ports import ChatModel, Embedder, LogprobModel, Proposer, Reranker
from consolidator.transcripts import Role, Transcript

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
END = object()


class _Loop:
    """An event loop in a thread. A call that is interrupted cancels its task."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="consolidator", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            work.close()
            raise ConsolidatorError("this engine is closed; open it again with connect")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Twin:
    def __init__(self, loop: _Loop, original: Any) -> None:
        self._loop = loop
        self._original = original


def _blocking(verb: Callable[Concatenate[A, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[_Twin, P], T]:
    @functools.wraps(verb)
    def call(self: _Twin, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(verb(self._original, *args, **kwargs))

    return cast(Callable[Concatenate[_Twin, P], T], call)


def _streaming(verb: Callable[Concatenate[A, P], AsyncIterator[T]]) -> Callable[Concatenate[_Twin, P], Iterator[T]]:
    @functools.wraps(verb)
    def call(self: _Twin, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        told = verb(self._original, *args, **kwargs)
        while (item := self._loop.run(_next(told))) is not END:
            yield cast(T, item)

    return cast(Callable[Concatenate[_Twin, P], Iterator[T]], call)


async def _next(told: AsyncIterator[T]) -> T | object:
    return await anext(told, END)


class Recorder(_Twin):
    """A conversation as it goes; see `consolidator.measuring.Recorder`."""

    _original: measuring.Recorder

    @property
    def id(self) -> str:
        return self._original.id

    @property
    def shown(self) -> int:
        return self._original.shown

    def said(self, text: str, *, role: Role = "user") -> None:
        self._original.said(text, role=role)

    def answered(self, text: str, *, token_ids: tuple[int, ...] | None = None) -> None:
        self._original.answered(text, token_ids=token_ids)

    def transcript(self, *, closed: bool = False) -> Transcript:
        return self._original.transcript(closed=closed)

    recall = _blocking(measuring.Recorder.recall)
    keep = _blocking(measuring.Recorder.keep)


class Bank(_Twin):
    """One isolated memory; see `consolidator.engine.Bank`."""

    def transcript(self, id: str | None = None) -> Recorder:
        return Recorder(self._loop, self._original.transcript(id))

    @property
    def id(self) -> str:
        return str(self._original.id)

    retain = _blocking(twin.Bank.retain)
    recall = _blocking(twin.Bank.recall)
    recall_context = _blocking(twin.Bank.recall_context)
    consolidate = _blocking(twin.Bank.consolidate)
    forget = _blocking(twin.Bank.forget)
    verify = _blocking(twin.Bank.verify)
    receipts = _blocking(twin.Bank.receipts)
    observations = _blocking(twin.Bank.observations)
    observation = _blocking(twin.Bank.observation)
    history = _blocking(twin.Bank.history)
    revert = _blocking(twin.Bank.revert)
    correct = _blocking(twin.Bank.correct)
    undo = _blocking(twin.Bank.undo)
    journal = _blocking(twin.Bank.journal)
    memory = _blocking(twin.Bank.memory)
    memories = _blocking(twin.Bank.memories)
    sources = _blocking(twin.Bank.sources)
    parked = _blocking(twin.Bank.parked)
    replay = _blocking(twin.Bank.replay)
    drop = _blocking(twin.Bank.drop)
    pause = _blocking(twin.Bank.pause)
    resume = _blocking(twin.Bank.resume)
    check = _blocking(twin.Bank.check)
    record_episode = _blocking(twin.Bank.record_episode)
    lessons_context = _blocking(twin.Bank.lessons_context)
    episodes = _blocking(twin.Bank.episodes)
    practice = _blocking(twin.Bank.practice)
    distil = _blocking(twin.Bank.distil)
    harvest = _blocking(twin.Bank.harvest)
    bootstrap = _blocking(twin.Bank.bootstrap)
    knowledge = _blocking(twin.Bank.knowledge)
    measure = _blocking(twin.Bank.measure)
    calibration = _blocking(twin.Bank.calibration)
    stats = _blocking(twin.Bank.stats)
    keep_transcript = _blocking(twin.Bank.keep_transcript)
    score = _blocking(twin.Bank.score)
    score_due = _blocking(twin.Bank.score_due)
    candidates = _blocking(twin.Bank.candidates)
    importance = _blocking(twin.Bank.importance)
    export = _streaming(twin.Bank.export)
    import_ = _blocking(twin.Bank.import_)


class Engine(_Twin):
    """A deployment's banks; see `consolidator.engine.Engine`."""

    def bank(self, id: str) -> Bank:
        return Bank(self._loop, self._original.bank(id))

    def now(self) -> datetime:
        now: datetime = self._original.now()
        return now

    def on_pass(self, listener: Callable[[PassDone], None]) -> None:
        """`listener` is called in the thread of the loop."""
        self._original.on_pass(listener)

    def on_call(self, listener: Callable[[Called], None]) -> None:
        """`listener` is called in the thread of the loop."""
        self._original.on_call(listener)

    def on_observation(self, listener: Callable[[ObservationChanged], None]) -> None:
        """`listener` is called in the thread of the loop."""
        self._original.on_observation(listener)

    banks = _blocking(twin.Engine.banks)
    describe = _blocking(twin.Engine.describe)
    drain = _blocking(twin.Engine.drain)
    scrub = _blocking(twin.Engine.scrub)
    work = _blocking(twin.Engine.work)
    stop = _blocking(twin.Engine.stop)


@contextmanager
def connect(
    target: str | Path | None = None, *, settings: Settings | None = None, clock: Clock = system_clock,
    embedder: Embedder | None = None, proposer: Proposer | None = None, chat: ChatModel | None = None,
    reranker: Reranker | None = None, scorer: LogprobModel | None = None,
) -> Iterator[Engine]:
    """`consolidator.connect` for code without an event loop."""
    loop = _Loop()
    try:
        opening = twin.connect(
            target, settings=settings, clock=clock, embedder=embedder, proposer=proposer, chat=chat, reranker=reranker,
            scorer=scorer,
        )
        original = loop.run(_entered(opening))
        try:
            yield Engine(loop, original)
        finally:
            loop.run(original.close())
    finally:
        loop.close()


async def _entered(opening: Any) -> twin.Engine:
    engine: twin.Engine = await opening.__aenter__()
    return engine
