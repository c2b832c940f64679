"""Settings: one typed object, from a TOML file, then from `CONSOLIDATOR_*` variables. Read once, at the edge."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, SecretStr, ValidationError

from consolidator.breakers import BreakerPolicy
from consolidator.consolidation import ConsolidationPolicy
from consolidator.errors import InvalidSettings
from consolidator.feedback import FeedbackPolicy
from consolidator.harvest import HarvestPolicy
from consolidator.lessons import PracticePolicy
from consolidator.meters import ScoringPolicy
from consolidator.models import Value
from consolidator.ranking import RecallWeights
from consolidator.reranking import RerankPolicy
from consolidator.retention import RetainPolicy
from consolidator.worker import WorkerPolicy

PREFIX = "CONSOLIDATOR_"
DEFAULT_FOLDER = Path("memory")
IN_PROCESS = ("edge", "memory")  # stores that no other process can have open


class StoreSettings(Value):
    """Where vectors live: `edge`, in the folder; `qdrant`, a server at `url`."""

    kind: str = "edge"
    durability: Literal["process", "power"] = "process"  # what an acknowledged write of the embedded store survives
    url: str | None = None
    api_key: SecretStr | None = None
    prefix: str = Field(default="consolidator_", pattern=r"^[A-Za-z0-9_-]*$")  # of the collections' names on a server
    timeout: int = Field(default=10, ge=1)  # seconds


class LedgerSettings(Value):
    """Where the journal lives; without a url, in the folder."""

    url: str | None = None


class EmbedderSettings(Value):
    provider: str = "sentence-transformers"
    model: str = "default"
    threads: int = Field(default=1, ge=1, le=64)
    batch: int = Field(default=64, ge=1, le=1024)
    cache: bool = True
    base_url: str | None = None
    api_key: SecretStr | None = None
    dimension: int | None = Field(default=None, ge=1)


class RerankerSettings(RerankPolicy):
    """A model that reads the question with each of the first hits. provider "none": there is no such model."""

    provider: str = "none"
    model: str = ""  # a cross-encoder's folder, or a name on the hub
    threads: int = Field(default=1, ge=1, le=64)
    batch: int = Field(default=8, ge=1, le=256)  # a call that is given up ends with the batch under way
    max_length: int = Field(default=128, ge=16, le=8192)  # tokens of question and text together; the rest is not read


class ImportanceSettings(ScoringPolicy):
    """What measures the worth of memories to answers. provider "lexical" needs no model; "completions", "chat" and
    "score-endpoint" ask a server at `base_url`; "transformers" loads `model` into the process.
    """

    provider: str = "lexical"
    model: str = ""
    base_url: str | None = None
    api_key: SecretStr | None = None
    deadline: float = Field(default=120.0, gt=0)  # seconds for one request
    max_batch: int = Field(default=16, ge=1, le=256)
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)  # those that the agent uses
    priority: int | None = None  # of the server's, where it has them
    threads: int = Field(default=1, ge=1, le=64)
    device: str = "cpu"
    dtype: str = "auto"
    feedback: FeedbackPolicy = FeedbackPolicy()


class ModelSettings(Value):
    """The chat model of consolidation, as `provider:model`. Used only where consolidation.proposer is "model"."""

    name: str = "openai:gpt-4.1-mini"
    base_url: str | None = None
    api_key: SecretStr | None = None  # else OPENAI_API_KEY
    deadline: float = Field(default=60.0, gt=0)  # seconds for a call with all its retries
    read_timeout: float = Field(default=30.0, gt=0)
    tries: int = Field(default=3, ge=1, le=10)
    json_mode: Literal["auto", "json_schema", "json_object", "text"] = "auto"
    reply_tokens: int = Field(default=2000, ge=100)
    budget_tokens_day: int | None = Field(default=None, ge=1)  # of one bank; then it rests until midnight UTC
    breaker: BreakerPolicy = BreakerPolicy()


class ConsolidationSettings(ConsolidationPolicy):
    """proposer: "rules" works with nothing; "model" asks the chat model of the section `model`."""

    proposer: str = "rules"


class HarvestSettings(HarvestPolicy):
    """detector: finds secrets beside our own rules; "rules": they alone. tokenizer: of the token budgets of briefings and
    stretches; "estimate" needs none.
    """

    detector: str = "detect-secrets"
    tokenizer: str = "cl100k"


class Settings(Value):
    """Everything that can be set. A folder in a file is relative to that file."""

    folder: Path = DEFAULT_FOLDER
    store: StoreSettings = StoreSettings()
    ledger: LedgerSettings = LedgerSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    model: ModelSettings = ModelSettings()
    consolidation: ConsolidationSettings = ConsolidationSettings()
    worker: WorkerPolicy = WorkerPolicy()
    retain: RetainPolicy = RetainPolicy()
    recall: RecallWeights = RecallWeights()
    reranker: RerankerSettings = RerankerSettings()
    importance: ImportanceSettings = ImportanceSettings()
    practice: PracticePolicy = PracticePolicy()
    harvest: HarvestSettings = HarvestSettings()

    @property
    def alone(self) -> bool:
        """No other process works on this memory, and no other memory in its ledger."""
        return self.store.kind in IN_PROCESS and self.ledger.url is None


def load(target: str | Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Settings for a folder, or from a `*.toml` file, with the variables of `env` on top. Raises InvalidSettings."""
    env = os.environ if env is None else env
    told: dict[str, Any] = {}
    if target is not None and not str(target).strip():
        raise InvalidSettings("the folder's name is empty; name a folder, such as ./memory, or a *.toml file")
    if target is not None:
        if str(target).startswith(("http://", "https://")):
            raise InvalidSettings(
                f'"{target}" is a URL; for a Qdrant server, name it in a TOML file: [store] kind = "qdrant", url = "{target}"'
            )
        told = _from_file(Path(target)) if str(target).endswith(".toml") else {"folder": Path(target)}
    try:
        return Settings.model_validate(_merged(told, _from_env(env)))
    except ValidationError as error:
        raise InvalidSettings(_sentence(error)) from None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidSettings(f"there is no settings file {path}; `consolidator init` writes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path} is no valid TOML: {error}") from None
    folder = Path(told.get("folder", DEFAULT_FOLDER))
    return told | {"folder": folder if folder.is_absolute() else path.parent / folder}


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    """`CONSOLIDATOR_STORE__URL` is `url` in the section `store`."""
    told: dict[str, Any] = {}
    for name, value in sorted(env.items()):
        if name.startswith(PREFIX):
            section, _, key = name.removeprefix(PREFIX).lower().partition("__")
            told = _merged(told, {section: {key: value} if key else value})
    return told


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(under[key], over[key]) for key in under.keys() & over.keys() if _are_sections(under[key], over[key])}
    return {**under, **over, **both}


def _are_sections(one: object, other: object) -> bool:
    return isinstance(one, dict) and isinstance(other, dict)


def _sentence(error: ValidationError) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"setting {place}: {problem['msg']}"
    near = difflib.get_close_matches(place, list(_names(Settings)), n=1, cutoff=0.5)
    known = ", ".join(_fields_at(problem["loc"][:-1]))
    return f'there is no setting "{place}"; ' + (f'did you mean "{near[0]}"?' if near else f"known here are {known}")


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _names(field.annotation, f"{prefix}{name}.")


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    model: Any = Settings
    for part in place:
        model = model.model_fields[str(part)].annotation
    return sorted(model.model_fields)
