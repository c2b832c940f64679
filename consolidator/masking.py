"""Secrets and personal data in a session, masked before anything looks at it: in what was said, in calls, in names. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

from consolidator import personal, secrets
from consolidator.records import Step, ToolCall
from consolidator.secrets import Secret
from consolidator.stretches import opened

AT_ONCE = 65_536  # characters searched at once: a search holds up all other threads, so one in a long text is many short ones
OVERLAP = 20_000  # that two pieces share: no secret is longer

Find = Callable[[str], list[Secret]]


class Masking:
    """Of one session. count: what was masked."""

    def __init__(self, find: Find, digest: Callable[[str], str], *, private: bool) -> None:
        """private: whether personal data are masked, too."""
        self._find = find
        self._digest = digest
        self._private = private
        self._names: dict[str, str] = {}
        self._values: dict[str, str] = {}  # of secrets that are recognised again, with their kinds
        self.count = 0

    def step(self, step: Step) -> tuple[Step, Step, list[str]]:
        """A step as it stands in the file, and as a reader sees it, both masked; and the kinds of secrets in it.

        Colours, control characters and JSON hide some, and what JSON says around a text announces others: so both are searched.
        """
        kinds: list[str] = []
        told = self._masked(step, kinds)
        return told, self._masked(opened(told), kinds, but={told.text, *(call.arguments for call in told.calls)}), kinds

    def _masked(self, step: Step, kinds: list[str], but: frozenset[str] | set[str] = frozenset()) -> Step:
        """but: texts that were searched before."""

        def told(text: str) -> str:
            return text if text in but else self.text(text, kinds)

        calls = tuple(ToolCall(name=self._name(call.name, kinds), arguments=told(call.arguments)) for call in step.calls)
        tool = None if step.tool is None else self._name(step.tool, kinds)
        return step.model_copy(update={"text": told(step.text), "calls": calls, "tool": tool})

    def _name(self, name: str, kinds: list[str]) -> str:
        """Few names stand in many steps."""
        if name not in self._names:
            self._names[name] = self.text(name, kinds)
        return self._names[name]

    def text(self, text: str, kinds: list[str]) -> str:
        """kinds: takes those of the secrets."""
        hidden = self._noted(text)
        kinds += [secret.kind for secret in hidden]
        both = secrets.joined(hidden, self._of_persons(text))
        self.count += len(both)
        return secrets.mask(text, both, self._digest) if both else text

    def learn(self, step: Step) -> None:
        """Note the secrets of a step that is not shown."""
        for text in (step.text, *(call.arguments for call in step.calls)):
            self._noted(text)

    def _noted(self, text: str) -> list[Secret]:
        hidden = self.hidden(text)
        values = {text[s.start : s.end]: s.kind for s in hidden}
        self._values |= {value: kind for value, kind in values.items() if secrets.is_telling(value)}
        return hidden

    def again(self, step: Step) -> tuple[Step, list[str]]:
        """A masked step without what any step has announced as a secret: one is printed bare where another one names it."""
        kinds: list[str] = []

        def told(text: str) -> str:
            known = {value: kind for value, kind in self._values.items() if value in text}
            found = secrets.joined(
                Secret(kind, at.start(), at.end()) for value, kind in known.items() for at in re.finditer(re.escape(value), text)
            )
            kinds.extend(secret.kind for secret in found)
            return secrets.mask(text, found, self._digest) if found else text

        calls = tuple(call.model_copy(update={"arguments": told(call.arguments)}) for call in step.calls)
        step = step.model_copy(update={"text": told(step.text), "calls": calls})
        self.count += len(kinds)
        return step, kinds

    def hidden(self, text: str) -> list[Secret]:
        """Where secrets stand."""
        if len(text) <= AT_ONCE:
            return self._find(text)
        found = _in_pieces(self._find, text)
        return secrets.joined(found, secrets.echoes(text, found))

    def _of_persons(self, text: str) -> list[Secret]:
        if not self._private:
            return []
        return personal.find(text) if len(text) <= AT_ONCE else _in_pieces(personal.find, text)

    def is_clean(self, text: str) -> bool:
        """Whether there is nothing to mask in it."""
        return not any(value in text for value in self._values) and not self.hidden(text) and not self._of_persons(text)


def _in_pieces(find: Find, text: str) -> list[Secret]:
    """As `find`, on pieces that overlap."""
    starts = range(0, max(1, len(text) - OVERLAP), AT_ONCE - OVERLAP)
    found = ((start, secret) for start in starts for secret in find(text[start : start + AT_ONCE]))
    return secrets.joined(Secret(s.kind, start + s.start, start + s.end) for start, s in found)
