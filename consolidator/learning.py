"""A bank's verbs on sessions: what an agent's transcripts have taught, how it is given out again, and whether that helps."""

from __future__ import annotations

from datetime import datetime

from consolidator import arguments
from consolidator.bootstrap import Bootstrap, Briefing
from consolidator.calibration import Calibration
from consolidator.errors import InvalidInput
from consolidator.harvest import Harvested, Progress
from consolidator.knowledge import Knowledge
from consolidator.measure import Measure
from consolidator.practising import PractisedBank
from consolidator.records import SessionLog
from consolidator.retention import MAX_NAME, RetainPolicy, checked_items
from consolidator.tallies import Measurement

LONGEST = MAX_NAME - len("project:")  # characters of a project's name: it stands in a tag


class LearningBank(PractisedBank):
    """One isolated memory, which learns from sessions."""

    async def harvest(
        self, session: SessionLog, *, project: str | None = None, agent: str | None = None, dry_run: bool = False,
        ask: bool = True, on_stretch: Progress | None = None,
    ) -> Harvested:
        """Take durable knowledge out of an agent's session: facts, pitfalls, patterns, quirks of tools, open questions.

        Secrets and personal data are masked before anything is sent or stored. What was harvested before is skipped; a session
        that has grown goes on where it stood. project: else the one that the session names most. dry_run: the items that would be
        weighed; nothing is kept. ask: False leaves a model unasked, and reads by rules. on_stretch: is told how many are done.
        Raises InvalidInput before anything is written or sent; ModelUnavailable, ModelBusy, ModelDenied, EmbedderUnavailable and
        Conflict: what was done is kept, and the same again goes on there.
        """
        if not isinstance(session, SessionLog):
            raise InvalidInput("this takes a SessionLog, as read_session makes one of a file")
        name = _project(session, project)
        checked_items([{"text": "-", "source": session.id}], RetainPolicy(), self._parts.clock())  # before a model is asked
        try:
            return await self._services.harvest.run(
                self.id, session, project=name, agent=agent or session.agent, dry_run=dry_run, ask=ask, on_stretch=on_stretch,
                changing=lambda: self._services.jobs.changing(self.id),
            )
        finally:
            if not dry_run:
                self._services.recollection.changed(self.id)

    async def bootstrap(
        self, *, project: str | None = None, agent: str | None = None, task: str | None = None, token_budget: int = 2000
    ) -> Briefing:
        """A text for the beginning of a session: what holds in the project, for the agent and everywhere, each item behind a
        handle; of the task, its rules and mistakes, and first of all what bears on it. Empty, with a reason, where there is none.

        Only what is certain (above 0.7 now, questions too), not outweighed, and worth acting on; pitfalls first, whole items, and
        never more than token_budget tokens for all of the text. `left_out` counts the rest by reason.
        """
        budget = arguments.budget(token_budget)
        return await Bootstrap(self._parts).briefing(
            self.id, project=_named(project, "project"), agent=_named(agent, "agent"), token_budget=budget,
            task=_named(task, "task") and task,  # as episodes spell it
        )

    async def knowledge(self, *, project: str | None = None, archived: bool = False) -> list[Knowledge]:
        """What was learnt from sessions, as it stands now: all of it, or what holds in a project; pitfalls first, then by
        confidence. archived: those too whose confidence has sunk below 0.3; they are kept, and come back when they are confirmed.
        """
        found = await Bootstrap(self._parts).knowledge(self.id, project=_named(project, "project"))
        return [item for item in found if archived or not item.archived]

    async def measure(self, *, since: datetime | None = None, until: datetime | None = None) -> Measurement:
        """Whether what is learnt helps, in a window of event times and on each of its last seven days. until: None is now."""
        if any(t is not None and (not isinstance(t, datetime) or t.tzinfo is None) for t in (since, until)):
            raise InvalidInput("since and until are times with a zone, such as datetime(2026, 1, 31, tzinfo=UTC)")
        if since is not None and since > (until or self._parts.clock()):
            raise InvalidInput("since lies after until")
        return await Measure(self._parts).measure(self.id, since=since, until=until)

    async def calibration(self) -> Calibration:
        """Whether what was called certain proves true: first confidences against what other sources have said since."""
        return await Measure(self._parts).calibration(self.id)


def _named(told: str | None, what: str) -> str | None:
    name = None if told is None else " ".join(told.split())
    name = name.lower() if name and what == "project" else name  # one project, however it is written
    if name == "":
        raise InvalidInput(f"{what} is blank; name it, or leave it out")
    return name


def _project(session: SessionLog, told: str | None) -> str:
    """Raises InvalidInput where none is named: what holds in one project is not to be told in all of them."""
    name = " ".join((told if told is not None else next(iter(session.projects), "")).split()).lower()
    if not name:
        raise InvalidInput(f'session "{session.id}" names no project; name it, such as project="shop"')
    if len(name) > LONGEST or not name.isprintable():
        raise InvalidInput(f"a project's name has at most {LONGEST} characters, all of them printable; this has {len(name)}")
    return name
