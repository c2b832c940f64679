"""Log-probabilities in the process, by transformers. Only the response's rows get logits; a folder needs no network."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from consolidator.errors import (
    ContextTooLong,
    InvalidSettings,
    MissingProvider,
    ScoringError,
    ScoringRejected,
    ScoringUnavailable,
    ScoringUnsupported,
)
from consolidator.ports import LogprobModel
from consolidator.transcripts import Scored, ScoringAbility, Target
from consolidator_providers.logprob_handshake import (
    GENERATED,
    Generated,
    Proven,
    check_batch,
    check_copying,
    check_generated,
    check_shape,
    unit_of,
)
from consolidator_providers.logprob_tokens import Template, learn_template
from consolidator_providers.logprob_wire import (
    Messages,
    Outcome,
    checked,
    demand_limits,
    each,
    messages_of,
    nothing,
    scored,
    sent_as,
    sound,
)
from consolidator_providers.sentence_transformers import INSTALL, ModelSource, located

KIND = "transformers"
DTYPES = ("auto", "float32", "bfloat16", "float16")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """threads: of torch, in the whole process. dtype: of the weights; probabilities are always reckoned in 32 bits."""

    threads: int
    device: str
    dtype: str


class CausalModel:
    """Loads the model when it is first needed. Every method runs in one and the same thread."""

    def __init__(self, source: ModelSource, setting: Setting, template_kwargs: Mapping[str, Any]) -> None:
        self.source = source
        self._setting = setting
        self.template_kwargs = template_kwargs
        self._torch: Any = None
        self._tokenizer: Any = None
        self._model: Any = None

    def context_limit(self) -> int | None:
        self._load()
        config = self._model.config.get_text_config()
        limits = [getattr(config, "max_position_embeddings", None), self._tokenizer.model_max_length]
        return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)

    def conversation(self, messages: Messages, reply: bool) -> list[int]:
        self._load()
        text = self._tokenizer.apply_chat_template(
            sent_as(messages), add_generation_prompt=reply, tokenize=False, **self.template_kwargs
        )
        return self.text(text)

    def text(self, text: str) -> list[int]:
        self._load()
        ids: list[int] = self._tokenizer(sound(text), add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def logprobs(self, context: Sequence[int], response: Sequence[int]) -> list[float]:
        """One for each token of the response, in nats."""
        self._load()
        torch = self._torch
        with torch.inference_mode():
            ids = torch.tensor([[*context, *response]], device=self._setting.device)
            rows = self._model(ids, logits_to_keep=len(response) + 1, use_cache=False).logits[0, :-1]
            own = rows.float().log_softmax(-1).gather(1, ids[0, len(context) :, None])
        numbers: list[float] = own[:, 0].tolist()
        return numbers

    def generate(self, context: Sequence[int], temperature: float) -> Generated:
        self._load()
        torch, ids, numbers = self._torch, list(context), []
        chance = torch.Generator().manual_seed(7)
        for _ in range(GENERATED):
            with torch.inference_mode():
                logits = self._model(torch.tensor([ids], device=self._setting.device), logits_to_keep=1, use_cache=False).logits
                row = logits[0, -1].float().log_softmax(-1).cpu()
            best = row.exp().multinomial(1, generator=chance) if temperature else row.argmax()
            ids.append(int(best))
            numbers.append(float(row[ids[-1]]))
        said = tuple(ids[len(context) :])
        return Generated(ids=said, logprobs=checked(numbers), text=self._tokenizer.decode(said))

    def guarded(self, work: Callable[[], T], size: int) -> T:
        """What the work gives, with every failure as a ScoringError. size: tokens that it reads."""
        try:
            return work()
        except ScoringError:
            raise
        except Exception as error:  # the border: torch and transformers raise what they like
            raise self._named(error, size) from error

    def _named(self, error: Exception, size: int) -> ScoringError:
        kind, name = type(error).__name__, self.source.name
        if self._model is None:
            failure = ScoringUnsupported if self.source.local else ScoringUnavailable
            return failure(f"the model {name} cannot be loaded ({kind})")
        if "OutOfMemory" in kind or isinstance(error, MemoryError):
            return ContextTooLong(f"memory ran out over {size} tokens")
        return ScoringRejected(f"the model {name} failed ({kind})")

    def _load(self) -> None:
        if self._model is None:
            self._read_weights()

    def _read_weights(self) -> None:
        self._torch, library = _quiet_libraries(threads=self._setting.threads, local=self.source.local)
        where, local = self.source.where, self.source.local
        self._tokenizer = library.AutoTokenizer.from_pretrained(where, local_files_only=local, trust_remote_code=False)
        model = library.AutoModelForCausalLM.from_pretrained(
            where, local_files_only=local, trust_remote_code=False, use_safetensors=True, dtype=self._setting.dtype
        )
        self._model = model.eval().to(self._setting.device)


def _quiet_libraries(*, threads: int, local: bool) -> tuple[Any, Any]:
    """torch and transformers, without messages and bars. They read their environment once; what the operator has set stays."""
    wanted = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1" if local else "0"}
    if "torch" not in sys.modules:
        wanted["OMP_NUM_THREADS"] = str(threads)
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    words = importlib.import_module("transformers.utils.logging")
    words.set_verbosity_error()
    words.disable_progress_bar()
    return torch, importlib.import_module("transformers")


class TransformersLogprobs(Proven):
    """See `ports.LogprobModel`. One prompt at a time; calls wait in line, and one that is given up leaves it."""

    pins = True

    def __init__(self, model: CausalModel, thread: ThreadPoolExecutor, *, max_batch: int, chunk_tokens: int) -> None:
        super().__init__(f"{KIND}:{model.source.name}")
        self._model = model
        self._thread = thread
        self._max_batch = max_batch
        self._reads = chunk_tokens
        self._template = Template(talk=())

    async def conversation(self, messages: Messages, *, reply: bool) -> list[int]:
        return await self._work(lambda: self._model.conversation(messages, reply))

    async def text(self, text: str) -> list[int]:
        return await self._work(lambda: self._model.text(text))

    async def outcomes(self, targets: Sequence[Target]) -> list[Outcome]:
        contexts = await each((messages_of(target.context) for target in targets), self._context)
        found = await each(range(len(targets)), lambda n: self._scored(targets[n], contexts[messages_of(targets[n].context)]))
        return list(found.values())

    async def generate(self, messages: Messages, *, temperature: float) -> Generated:
        context = await self._context(messages)
        return await self._work(lambda: self._model.generate(context, temperature), len(context))

    async def _prove(self) -> ScoringAbility:
        self._template = await learn_template(self)
        self._reads = min(self._reads, await self._work(lambda: self._model.context_limit() or self._reads))
        for check in (check_shape, check_batch, check_copying):
            await check(self)
        await check_generated(self)
        unit = unit_of(KIND, self._model.source.name, self._template.talk, self._model.template_kwargs)
        return ScoringAbility(
            unit=unit, max_context_tokens=self._reads - self._template.once, max_batch=self._max_batch
        )

    async def _context(self, messages: Messages) -> list[int]:
        return self._template.closed(await self.conversation(messages, reply=True))

    async def _scored(self, target: Target, context: list[int] | ScoringError) -> Scored:
        if isinstance(context, ScoringError):
            raise context
        said = await self.text(target.response) if target.response_ids is None else target.response_ids
        response = self._template.without_end(tuple(said))
        if (size := len(context) + len(response)) > self._reads:
            raise ContextTooLong(f"context and response have {size} tokens; the model reads {self._reads}")
        if not response:
            return nothing()
        numbers = await self._work(lambda: self._model.logprobs(context, response), size)
        return scored(numbers, response, prompt_tokens=size)

    async def _work(self, work: Callable[[], T], size: int = 0) -> T:
        """Runs it in the model's thread, unless nobody waits for it any more when its turn comes."""
        given_up = threading.Event()

        def wanted() -> T:
            if given_up.is_set() or self._closed:
                raise ScoringUnavailable("the log-probability model is closed, or nobody waits for this number")
            return self._model.guarded(work, size)

        if self._closed:
            raise ScoringUnavailable("the log-probability model is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, wanted)
        finally:
            given_up.set()

    async def _count(self, text: str) -> int:
        return len(await self.text(text)) + self._template.around

    async def _shut(self) -> None:
        await asyncio.to_thread(self._thread.shutdown)


async def open_transformers(
    *, model: str, threads: int = 1, device: str = "cpu", dtype: str = "auto", max_batch: int = 16,
    chunk_tokens: int = 50_000, chat_template_kwargs: Mapping[str, Any] | None = None,
) -> LogprobModel:
    """A model in the process: a folder, or a name on the hub, loaded when it is first asked.

    threads: of torch, in the whole process. dtype: of the weights. max_batch: targets in one call. chunk_tokens: of the longest
    prompt. chat_template_kwargs: those that the agent uses. Raises InvalidSettings, MissingProvider.
    """
    demand_limits(max_batch, chunk_tokens)
    if threads < 1 or dtype not in DTYPES:
        raise InvalidSettings(f"scoring's threads must be at least 1, and its dtype one of {', '.join(DTYPES)}")
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        raise MissingProvider(f"the packages torch and transformers are missing: {INSTALL}")
    source = await asyncio.to_thread(located, model, "scoring's model must be a causal model's folder or a name on the hub")
    causal = CausalModel(source, Setting(threads=threads, device=device, dtype=dtype), dict(chat_template_kwargs or {}))
    thread = ThreadPoolExecutor(1, thread_name_prefix="logprobs")
    return TransformersLogprobs(causal, thread, max_batch=max_batch, chunk_tokens=chunk_tokens)
