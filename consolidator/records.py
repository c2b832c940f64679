"""Transcripts: what was said in a session, turn by turn."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from consolidator.models import Time, Value

TURN_PACE = timedelta(seconds=20)  # where a transcript dates only its sessions


class Utterance(Value):
    speaker: str
    text: str


class Session(Value):
    source: str
    start: Time
    turns: tuple[Utterance, ...]

    def items(self) -> Iterator[dict[str, object]]:
        """The turns as `retain` takes them."""
        for sequence, turn in enumerate(self.turns):
            when = self.start + sequence * TURN_PACE
            yield {"text": turn.text, "speaker": turn.speaker, "sequence": sequence, "occurred_at": when}
