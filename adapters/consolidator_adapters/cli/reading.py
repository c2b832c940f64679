"""Commands that look: recall, observations, show, history, journal, sources, parked, stats."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from consolidator.errors import InvalidInput, NotFound
from consolidator_adapters.cli import hits, views
from consolidator_adapters.cli.call import Call, full_id, moment

if TYPE_CHECKING:
    from consolidator.engine import Bank
    from consolidator.models import Memory, Observation

Id = Annotated[str, typer.Argument(help="An id, or its first 4 characters or more.", show_default=False)]
Tag = Annotated[list[str] | None, typer.Option("--tag", "-t", help="Only with this tag; give it again for more.")]
TRENDS = ("new", "strengthening", "stable", "weakening", "stale")


async def recall(  # noqa: PLR0913 (one parameter for each filter)
    call: Call,
    query: Annotated[str, typer.Argument(help="A question.", show_default=False)],
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="At most so many hits.")] = 10,
    budget: Annotated[int | None, typer.Option("--budget", help="At most so many tokens.")] = None,
    kind: Annotated[list[str] | None, typer.Option("--kind", help="memory, observation, world, experience, lesson.")] = None,
    tag: Tag = None,
    since: Annotated[str | None, typer.Option("--since", help="Happened from this date or time on.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Happened up to the end of this date, or this time.")] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="What was known then.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what put each hit where it stands.")] = False,
) -> None:
    """Rank memories and observations for a question."""
    times = {
        "since": moment(since, "--since"), "until": moment(until, "--until", end_of_day=True),
        "as_of": moment(as_of, "--as-of", end_of_day=True),
    }
    async with call.memory() as bank:
        found = await bank.recall(
            query, top_k=top_k, token_budget=budget, kinds=kind or ("memory", "observation"), tags=tag or (), explain=explain,
            **times,
        )
    few = explain and budget is None and len(found) < min(top_k, hits.FEW)
    call.answer(found, lambda: hits.hits(found, few=few))


async def observations(
    call: Call, trend: Annotated[str | None, typer.Option("--trend", help=f"Only {', '.join(TRENDS)}.")] = None, tag: Tag = None
) -> None:
    """List what was distilled."""
    if trend is not None and trend not in TRENDS:
        raise InvalidInput(f'--trend: there is no trend "{trend}"; known are {", ".join(TRENDS)}')
    async with call.memory() as bank:
        found = await bank.observations(tags=tag or (), trend=trend)
    call.answer(found, lambda: views.observations(found))


async def show(call: Call, id: Id) -> None:
    """Show a memory, or an observation with the words of its evidence."""
    async with call.memory() as bank:
        id = await full_id(bank, id)
        observation = await _observation(bank, id)
        if observation is None:
            memory = await _memory(bank, id)
            return call.answer({"memory": memory}, lambda: views.memory(memory))
        versions = await bank.history(id)
        evidence = await memories_of(bank, (e.memory_id for e in observation.evidence))
    value = {"observation": observation, "versions": len(versions), "evidence": evidence}
    call.answer(value, lambda: views.observation(observation, evidence, versions))


async def _observation(bank: Bank, id: str) -> Observation | None:
    try:
        return await bank.observation(id)
    except NotFound:
        return None


async def _memory(bank: Bank, id: str) -> Memory:
    try:
        return await bank.memory(id)
    except NotFound:
        raise NotFound(f'bank "{bank.id}" has no memory or observation {id}') from None


async def memories_of(bank: Bank, ids: Iterable[str]) -> dict[str, Memory]:
    """Those of them that are still there."""
    found = {}
    for id in dict.fromkeys(ids):
        try:
            found[id] = await bank.memory(id)
        except NotFound:  # erased since
            continue
    return found


async def history(call: Call, id: Id) -> None:
    """Tell the story of an observation: when it changed, why, by whom, on which evidence."""
    async with call.memory() as bank:
        id = await full_id(bank, id)
        versions = await bank.history(id)
        entries = await bank.journal(observation_id=id)
        cited = await memories_of(bank, (memory for entry in entries for memory in entry.cites))
    value = {"observation_id": id, "versions": versions, "journal": entries, "evidence": cited}
    call.answer(value, lambda: views.story(entries, versions, cited))


async def journal(
    call: Call,
    observation: Annotated[str | None, typer.Option("--observation", "-o", help="Only of this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
) -> None:
    """List what was decided, oldest first."""
    async with call.memory() as bank:
        id = await full_id(bank, observation) if observation else None
        entries = await bank.journal(observation_id=id, limit=limit)
    call.answer(entries, lambda: views.journal(entries))


async def sources(call: Call) -> None:
    """Count the memories of each source: the unit that is forgotten."""
    async with call.memory() as bank:
        found = await bank.sources()
    call.answer(found, lambda: views.sources(found))


async def parked(call: Call) -> None:
    """List memories that consolidation could not digest, and why."""
    async with call.memory() as bank:
        rows = await bank.parked()
        said = await memories_of(bank, (row.memory_id for row in rows))
    call.answer(rows, lambda: views.parked(rows, said))


async def stats(call: Call) -> None:
    """Count what is there, what waits, and what it cost."""
    async with call.memory() as bank:
        counted = await bank.stats()
    call.answer(counted, lambda: views.stats(counted))
