"""Commands that look: recall, observations, show, history, journal, sources, stats."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from consolidator.errors import ConsolidatorError, InvalidInput, NotFound
from consolidator_adapters.cli import hits, views
from consolidator_adapters.cli.call import Call, full_id, moment
from consolidator_adapters.cli.story import Story, erasures, story

if TYPE_CHECKING:
    from consolidator.engine import Bank
    from consolidator.models import Memory, Observation, Receipt

Id = Annotated[str, typer.Argument(help="An id, or its first 4 characters or more.", show_default=False)]
Tag = Annotated[list[str] | None, typer.Option("--tag", "-t", help="Only with this tag; give it again for more.")]
BLOCK = 800  # tokens
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
    asked_at: Annotated[str | None, typer.Option("--asked-at", help='From when "last spring" is counted; else from now.')] = None,
    context: Annotated[bool, typer.Option("--context", help="As a block for a prompt, with handles.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show what put each hit where it stands.")] = False,
) -> None:
    """Rank memories and observations for a question."""
    times = {
        "since": moment(since, "--since"), "until": moment(until, "--until", end_of_day=True),
        "as_of": moment(as_of, "--as-of", end_of_day=True), "asked_at": moment(asked_at, "--asked-at"),
    }
    if context and explain:
        raise InvalidInput("--context is for a prompt, --explain for a person: give one of them")
    kinds, tags = kind or ("memory", "observation"), tag or ()
    async with call.memory() as bank:
        if context:
            block = await bank.recall_context(
                query, top_k=top_k, token_budget=BLOCK if budget is None else budget, kinds=kinds, tags=tags, **times
            )
            return call.document(block) if call.json else call.out.print(Text(block.text or block.reason or ""), soft_wrap=True)
        found = await bank.recall(query, top_k=top_k, token_budget=budget, kinds=kinds, tags=tags, explain=explain, **times)
    few = explain and budget is None and len(found) < min(top_k, hits.FEW)
    call.answer(found, lambda: hits.hits(found, few=few))


async def observations(
    call: Call, trend: Annotated[str | None, typer.Option("--trend", help=f"Only {', '.join(TRENDS)}.")] = None, tag: Tag = None,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that were deleted, or merged into others.")] = False,
) -> None:
    """List what was distilled."""
    if trend is not None and trend not in TRENDS:
        raise InvalidInput(f'--trend: there is no trend "{trend}"; known are {", ".join(TRENDS)}')
    async with call.memory() as bank:
        found = await bank.observations(tags=tag or (), trend=trend, state="retracted" if deleted else "live")
    call.answer(found, lambda: views.deleted(found, bank.id) if deleted else views.observations(found))


async def show(call: Call, id: Id) -> None:
    """Show a memory, or an observation with the words of its evidence."""
    async with call.memory() as bank:
        id = await full_id(bank, id)
        observation = await observation_of(bank, id)
        if observation is None:
            memory = await memory_of(bank, id)
            return call.answer({"memory": memory}, lambda: views.memory(memory))
        versions = await bank.history(id)
        evidence = await memories_of(bank, (e.memory_id for e in observation.evidence))
    value = {"observation": observation, "versions": len(versions), "evidence": evidence}
    call.answer(value, lambda: views.observation(observation, evidence, versions))


async def observation_of(bank: Bank, id: str) -> Observation | None:
    """None where there is none of this id."""
    try:
        return await bank.observation(id)
    except NotFound:
        return None


async def memory_of(bank: Bank, id: str) -> Memory:
    """Raises NotFound."""
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
    """Tell the story of an observation: when it changed, why, by whom, on which evidence; and how to take it back."""
    async with call.memory() as bank:
        id = await full_id(bank, id)
        given = await bank.receipts()
        try:
            versions, observation = await bank.history(id), await bank.observation(id)
        except NotFound:
            raise await _no_story(bank, id, given) from None
        entries = await bank.journal(observation_id=id)
        known = {memory for entry in entries for memory in entry.cites}.union(*(v.lineage | v.why for v in versions))
        cited = await memories_of(bank, sorted(known))
    value = {"observation": observation, "versions": versions, "journal": entries, "evidence": cited}
    told = Story(
        observation=observation, versions=versions, entries=entries, cited=cited, erased=erasures(id, given), bank=bank.id
    )
    call.answer({"observation_id": id, **value}, lambda: story(told))


async def _no_story(bank: Bank, id: str, receipts: Iterable[Receipt]) -> ConsolidatorError:
    """What is to be said of an id that is no observation."""
    for receipt in receipts:
        if any(row.id == id and row.case == "erased" for row in receipt.observations):
            return NotFound(f"observation {id} was erased on {views.day(receipt.at)}, by receipt {receipt.id}")
    memory = await memory_of(bank, id)
    short = views.short(memory.id)
    return InvalidInput(f"{short} is a memory: it stays as it was said, and has no history; `consolidator show {short}`")


async def journal(
    call: Call,
    observation: Annotated[str | None, typer.Option("--observation", "-o", help="Only of this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
) -> None:
    """Tell what was decided: when, what, why, on which evidence, by whom; oldest first."""
    async with call.memory() as bank:
        id = await full_id(bank, observation) if observation else None
        entries = await bank.journal(observation_id=id, limit=limit)
        ids = (memory for entry in entries for memory in entry.cites[: views.WITNESSES_SHOWN])
        cited = {} if call.json else await memories_of(bank, ids)
    call.answer(entries, lambda: views.journal(entries, cited))


async def sources(call: Call) -> None:
    """Count the memories of each source: the unit that is forgotten."""
    async with call.memory() as bank:
        found = await bank.sources()
    call.answer(found, lambda: views.sources(found))


async def stats(call: Call) -> None:
    """Count what is there, what waits, and what it cost."""
    async with call.memory() as bank:
        counted = await bank.stats()
    call.answer(counted, lambda: views.stats(counted))
