"""What callers hand in, checked and put into one form. Each refusal says what would be right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar, cast
from uuid import UUID

from pydantic import ValidationError

from consolidator.actions import MAX_TEXT, clean
from consolidator.errors import InvalidInput, NotFound
from consolidator.models import Tags
from consolidator.ports import Condition, Equals, Ids, Range
from consolidator.queries import Query

E = TypeVar("E", bound=StrEnum)


def items_of(text: object) -> list[Mapping[str, Any]]:
    given = [text] if isinstance(text, str | bytes | Mapping) or not isinstance(text, Iterable) else list(text)
    items = [{"text": item} if isinstance(item, str) else item for item in given]
    if not all(isinstance(item, Mapping) for item in items):
        raise InvalidInput("retain takes a text, a mapping such as {'text': ..., 'source': ...}, or a list of these")
    return cast("list[Mapping[str, Any]]", items)


def one_of(values: type[E], told: str | None, what: str) -> E | None:
    if told is None:
        return None
    try:
        return values(told)
    except ValueError:
        raise InvalidInput(f'there is no {what} "{told}"; known are {", ".join(value.value for value in values)}') from None


def tag_set(tags: Iterable[str]) -> Tags:
    return _texts(tags, "tags")


def kind_set(kinds: Iterable[str]) -> frozenset[str]:
    return _texts(kinds, "kinds")


def _texts(given: object, what: str) -> frozenset[str]:
    if isinstance(given, str):
        raise InvalidInput(f'{what} is the text "{given}"; it takes a set of texts, such as {{"{given}"}}')
    if not isinstance(given, Iterable):
        raise InvalidInput(f'{what} takes a set of texts, such as {{"work"}}, and is of type {type(given).__name__}')
    texts = list(given)
    if not all(isinstance(text, str) for text in texts):
        raise InvalidInput(f"{what} takes a set of texts; something in it is no text")
    return frozenset(texts)


def budget(tokens: int) -> int:
    """Of a block for a prompt, which always has one."""
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        raise InvalidInput("token_budget takes a whole number of tokens, such as 800")
    if tokens < 1:
        raise InvalidInput(f"token_budget is {tokens}; it is at least 1")
    return tokens


def id_of(id: str) -> str:
    try:
        return str(UUID(id))
    except (ValueError, TypeError, AttributeError):
        raise NotFound(f'"{id}" is no id; ids look like 5f0c2a9e-7f0e-5c63-9d3e-0a4c1f8f2b11') from None


def ids_of(ids: Iterable[str] | None) -> list[str] | None:
    if isinstance(ids, str):
        raise InvalidInput("memory_ids is one text; it takes a list of ids")
    return None if ids is None else [id_of(i) for i in ids]


def erasure(told: Mapping[str, Any]) -> tuple[dict[str, Any], list[Condition]]:
    """What is to be erased, as the receipt names it, and the memories that match all of it."""
    before, ids, source = told["before"], ids_of(told["memory_ids"]), told["source"]
    tags = sorted(tag_set(told["tags"] or ()))
    if source is not None and not str(source).strip():
        raise InvalidInput("source is blank; name the conversation or document that is to be forgotten")
    if before is not None and (not isinstance(before, datetime) or before.tzinfo is None):
        raise InvalidInput("before is a time with a zone, such as datetime(2026, 1, 31, tzinfo=UTC)")
    named = {"memory_ids": ids, "source": source, "tags": tags or None, "before": before and before.isoformat()}
    asked = {key: value for key, value in named.items() if value is not None}
    if bool(asked) is bool(told["everything"]):
        raise InvalidInput("say what to forget: memory_ids, source, tags or before; or everything=True, alone")
    where: list[Condition] = [] if ids is None else [Ids(tuple(ids))]
    where += [] if source is None else [Equals("source", source)]
    where += [Equals("tags", tag) for tag in tags]
    where += [] if before is None else [Range("time", lt=before)]
    return asked or {"everything": True}, where


def valid_query(asked: dict[str, Any]) -> Query:
    try:
        return Query.model_validate(asked)
    except OverflowError:
        raise InvalidInput("a time lies outside the years 1 to 9999 of UTC") from None
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"]).replace("text", "query")
        raise InvalidInput(f"{field}: {problem['msg'].removeprefix('Value error, ')}") from None


def said(text: str, what: str) -> str:
    """A sentence of a person, for the journal."""
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidInput(f"{what} is blank, or holds a NUL character; say in a few words why")
    return text.strip()[:500]


def statement(text: str) -> str:
    """A text that may stand as an observation."""
    if not isinstance(text, str) or not clean(text):
        raise InvalidInput("the text is blank; say what is right")
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"the text has {len(text):,} characters; at most {MAX_TEXT}: one statement")
    return clean(text)
