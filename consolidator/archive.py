"""Which items are archived: kept, and not given out until they are confirmed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from consolidator.holdings import entombed, sessions
from consolidator.keeping import Kept
from consolidator.knowledge import POLICY, Activity, activity_of, effective
from consolidator.parts import Parts
from consolidator.points import observation_of
from consolidator.ports import Found
from consolidator.records import KNOWLEDGE

STAYS = 60.0  # seconds: another process may write to the bank


class Archive:
    """Of one deployment. When work went on is read once a minute, and in no bank that has learnt nothing from sessions."""

    def __init__(self, parts: Parts, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._activity = Kept[Activity](STAYS, monotonic)

    def changed(self, bank: str) -> None:
        """Its memories changed."""
        self._activity.drop(bank)

    async def among(self, bank: str, payloads: Mapping[str, Mapping[str, Any]], now: datetime) -> set[str]:
        """Those of these observations, by id, that are archived at a time."""
        learnt = {id: payload for id, payload in payloads.items() if KNOWLEDGE in payload["tags"]}
        if not learnt:
            return set()
        activity = await self._activity.of(bank, self._read)
        items = (observation_of(bank, Found(id, 0.0, payload)) for id, payload in learnt.items())
        return {item.id for item in items if effective(item, activity, now) < POLICY.archived}

    async def _read(self, bank: str) -> Activity:
        records = await sessions(self._parts, bank, await entombed(self._parts, bank))
        return activity_of((record.project, record.at) for record in records if record.at)
