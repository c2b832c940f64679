"""A tiny transformer whose log-probabilities are known by construction: written by formula, no training, no download.

It predicts that what followed the current token before follows it again: layer 1 notes which token stood one position before,
layer 2 attends to the positions whose note is the own token and copies theirs; where there is none, attention rests on
`<|im_start|>`, whose value is zero. One copied token gets p > 0.99, several share it, none gives the uniform 1/vocabulary. So a
response that restates one memory becomes unlikely when that memory is left out, and hardly moves when another one is.

Awkward on purpose: the role "assistant" is several tokens, a word has another id after a space, there is no BOS, and the
template deletes the thoughts of earlier turns. The same call writes the same bytes under the same version of tokenizers.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

VOCABULARY = 1024
CONTEXT = 4096
HEAD = 64
HIDDEN = 3 * HEAD
LAYERS = 2
MLP = 32  # present because the architecture wants one; all zero
DIRECTION = 40  # dimensions of a token's direction
ROPE_BASE = 1e12  # fast frequencies tell neighbours apart, slow ones do not turn within the context

# What each part of the residual stream holds.
OWN = slice(0, DIRECTION)  # the token at this position
SINK = HEAD - 1  # set on <|im_start|> only
NOTE = slice(HEAD, HEAD + DIRECTION)  # the token before it, written by layer 1
COPY = slice(2 * HEAD, 2 * HEAD + DIRECTION)  # the prediction, written by layer 2

FAST = range(8)  # rotary pairs that layer 1 reads: the pair i is the dimensions i and i + 32
SLOW = range(11, 11 + DIRECTION // 2)  # rotary pairs that carry token directions in layer 2
STILL = HEAD // 2 - 1  # the slowest pair, left free by SLOW: the sink's

NEIGHBOUR_LOGIT = 250.0  # layer 1, the position before; every other one is at least 17 lower
MATCH_LOGIT = 60.0  # layer 2, a position whose note is this token; unlike tokens stay below 36
SINK_LOGIT = 48.0  # layer 2, the sink: between the two, whatever the length of the context
SINK_SIZE = 16.0
HEAD_LOGIT = 20.0  # output, a token copied with all of the attention
MOST_ALIKE = 0.6  # largest cosine between the directions of two tokens

ENDOFTEXT, IM_START, IM_END = 0, 1, 2
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = r"""
{%- set ns = namespace(last_user=-1) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set ns.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- set text = message.content -%}
  {%- if message.role == 'assistant' and '</think>' in text and loop.index0 < ns.last_user -%}
    {%- set text = text.split('</think>')[-1].lstrip('\n') -%}
  {%- endif -%}
  {{- '<|im_start|>' + message.role + '\n' + text + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
""".strip()

WORDS = """
name: Bob, Sue, Tom, Ann, Joe, Kim, Lee, Max, Pat, Ray, Sam, Ted, Una, Vic, Wes, Zoe, Ian, Eve, Dan, Cat
name: Gus, Hal, Ivy, Jan, Ken, Liz, Mia, Ned, Oli, Peg, Alice, Bruno, Clara, David, Emma, Felix, Grace, Henry
liking: green tea, apple pie, red wine, old books, jazz music, long walks, fast cars, blue cheese, cold beer
liking: warm bread, night trains, wild horses, small dogs, board games, hot soup, clay pots, black coffee
liking: rock climbing, deep diving, sweet corn, tall ships, fresh figs, paper planes, stone bridges
liking: silver coins, folk songs, winter swims, garden gnomes, copper wire, lemon cake
place: Lisbon, Berlin, Oslo, Madrid, Vienna, Dublin, Athens, Prague, Geneva, Kyoto, Lima, Cairo, Boston
place: Denver, Toronto, Sydney, the office, the library, the market, the station, the river, the harbour
place: the old town, the mountains, the sea, the school
trade: teacher, nurse, baker, pilot, farmer, painter, lawyer, driver, gardener, doctor, builder, singer
trade: writer, plumber, carpenter, programmer
time: yesterday, today, tomorrow, last week, next month, in January, in March, in May, in July, in September
time: in November, on Monday, on Tuesday, on Friday, on Sunday, every morning, every evening, at noon
time: at night, two years ago, three days ago
thing: house, garden, car, bicycle, camera, guitar, piano, laptop, phone, kitchen, window, table, letter
thing: ticket, passport, dog, cat, sister, brother, mother, father, daughter, son, friend, neighbour, team
thing: project, meeting, birthday, holiday
verb: bought, sold, painted, repaired, cleaned, found, lost, forgot, borrowed, returned, carried, opened
verb: closed, watched, moved, checked, finished, started, cancelled, planned, described, counted, measured
verb: followed, visited
quality: small, large, heavy, light, bright, dark, quiet, loud, cheap, expensive, new, broken, empty, full
quality: clean, dirty, soft, hard, narrow, wide, early, late, careful, honest, patient, nervous, cheerful
quality: tired, hungry, famous
"""
SENTENCES = [
    "{name} likes {liking}.",
    "{name} lives in {place} and works as a {trade}.",
    "What does {name} like? {name} told me {time}.",
    "{name} moved from {place} to {place2} {time}.",
    "I remember that {name} wanted to sell the {thing} {time}.",
    "Where does {name} live now? Near {place}, with a {thing} and a {thing2}.",
    "{name} does not like {liking}, but {name2} does.",
    "The {thing} of {name} was broken {time}, so we could not use it.",
    "{name} has been a {trade} for {number} years; before that {name} was a {trade2}.",
    "Please write to {name} about the {thing}, and ask when they will come to {place}.",
    "We met {name} and {name2} at {place} {time} and talked about {liking}.",
    "Who is {name}? A {trade} from {place}, who prefers {liking} over {liking2}.",
    "You said {name} should call {name2} because the {thing} would be ready {time}.",
    "There are {number} people in the {thing}; only {name} knows them all.",
    "{name} {verb} a {quality} {thing} {time} and {verb2} the {quality2} one.",
    "Nobody {verb} the {thing}: it was too {quality}, and {name} felt {quality2}.",
    "My {thing} is {quality}. Have you {verb} yours, or was it {name} who {verb2} it {time}?",
]


def word_lists() -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for line in WORDS.strip().splitlines():
        field, _, words = line.partition(": ")
        lists.setdefault(field, []).extend(words.split(", "))
    return lists


def training_text(count: int = 4000) -> Iterator[str]:
    """Sentences for the tokenizer, each list walked with a stride of its own; nothing is random."""
    lists = word_lists()
    for i in range(count):
        words = {"number": str(i * 7 % 97)}
        for stride, (field, choices) in zip((3, 7, 11, 13, 17, 19, 23, 29), lists.items(), strict=True):
            words[field] = choices[i * stride % len(choices)]
            words[field + "2"] = choices[(i * stride + 5) % len(choices)]
        yield SENTENCES[i % len(SENTENCES)].format(**words)


def build_tokenizer() -> Any:
    """A byte-level BPE with the pipeline that Qwen2Tokenizer builds for itself, so that every loader agrees."""
    library = importlib.import_module("tokenizers")
    pre_tokenizers, decoders, trainers = library.pre_tokenizers, library.decoders, library.trainers
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.normalizer = library.normalizers.NFC()
    split = pre_tokenizers.Split(library.Regex(QWEN_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY, "the training text gives another number of tokens"
    return tokenizer


def token_directions() -> Matrix:
    """One unit vector a token, no two with a cosine above MOST_ALIKE, in either sense of the direction."""
    draw = np.random.RandomState(0)  # the legacy generator: its stream is frozen across numpy versions
    rows: list[Matrix] = []
    while len(rows) < VOCABULARY:
        row = draw.standard_normal(DIRECTION)
        row /= np.linalg.norm(row)
        if not rows or np.abs(np.stack(rows) @ row).max() <= MOST_ALIKE:
            rows.append(row)
    return np.stack(rows)


def rope_frequencies() -> Matrix:
    angles: Matrix = np.power(ROPE_BASE, -np.arange(HEAD // 2) / (HEAD // 2))
    return angles


def build_weights() -> dict[str, Any]:
    """The whole model, tensor by tensor; what is not set here is zero, and every norm's weight is one.

    A norm multiplies a vector of length r by sqrt(HIDDEN) / r. The length is 1 before layer 1 (OWN), sqrt(2)
    before layer 2 (OWN and NOTE) and up to sqrt(3) at the end; the constants below undo exactly that.
    """
    weights = zero_weights()
    directions = token_directions()
    directions[IM_START] = 0.0
    weights["model.embed_tokens.weight"][:, OWN] = directions
    weights["model.embed_tokens.weight"][IM_START, SINK] = SINK_SIZE
    write_neighbour_head(weights, scale=math.sqrt(HIDDEN))
    write_match_head(weights, scale=math.sqrt(HIDDEN / 2))
    weights["lm_head.weight"][:, COPY] = directions * HEAD_LOGIT / math.sqrt(HIDDEN / 3)
    return {name: tensor.astype(np.float32) for name, tensor in weights.items()}


def zero_weights() -> dict[str, Matrix]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "lm_head.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(LAYERS):
        base = f"model.layers.{layer}."
        shapes[base + "input_layernorm.weight"] = (HIDDEN,)
        shapes[base + "post_attention_layernorm.weight"] = (HIDDEN,)
        shapes |= {f"{base}self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{base}self_attn.{part}_proj.bias": (HIDDEN,) for part in "qkv"}
        shapes |= {f"{base}mlp.{part}_proj.weight": (MLP, HIDDEN) for part in ("gate", "up")}
        shapes[base + "mlp.down_proj.weight"] = (HIDDEN, MLP)
    return {name: np.ones(shape) if "norm" in name else np.zeros(shape) for name, shape in shapes.items()}


def write_neighbour_head(weights: dict[str, Matrix], *, scale: float) -> None:
    """Layer 1: constant queries and keys, so that the rotary angles alone decide, with their peak one back."""
    base, half = "model.layers.0.self_attn.", HEAD // 2
    size = math.sqrt(NEIGHBOUR_LOGIT * math.sqrt(HEAD) / len(FAST))
    for pair, angle in zip(FAST, rope_frequencies(), strict=False):
        weights[base + "k_proj.bias"][pair] = size
        weights[base + "q_proj.bias"][pair] = size * math.cos(angle)
        weights[base + "q_proj.bias"][pair + half] = -size * math.sin(angle)
    identity = np.eye(DIRECTION)
    weights[base + "v_proj.weight"][:DIRECTION, OWN] = identity / scale
    weights[base + "o_proj.weight"][NOTE, :DIRECTION] = identity


def write_match_head(weights: dict[str, Matrix], *, scale: float) -> None:
    """Layer 2: the query is the own token, the key is the note, the value is the own token; and the sink."""
    base, half = "model.layers.1.self_attn.", HEAD // 2
    size = math.sqrt(MATCH_LOGIT * math.sqrt(HEAD)) / scale
    for i, dimension in enumerate([*SLOW, *(pair + half for pair in SLOW)]):
        weights[base + "q_proj.weight"][dimension, OWN.start + i] = size
        weights[base + "k_proj.weight"][dimension, NOTE.start + i] = size
    # The sink's own length is SINK_SIZE, so after the norm its feature is sqrt(HIDDEN) within 0.2 %.
    weights[base + "q_proj.bias"][STILL] = math.sqrt(HEAD)
    weights[base + "k_proj.weight"][STILL, SINK] = SINK_LOGIT / math.sqrt(HIDDEN)
    identity = np.eye(DIRECTION)
    weights[base + "v_proj.weight"][:DIRECTION, OWN] = identity / scale
    weights[base + "o_proj.weight"][COPY, :DIRECTION] = identity


def model_config() -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HIDDEN // HEAD,
        "num_key_value_heads": HIDDEN // HEAD,
        "max_position_embeddings": CONTEXT,
        "rope_theta": ROPE_BASE,  # transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},  # transformers 5
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "bos_token_id": None,
        "eos_token_id": IM_END,
        "pad_token_id": ENDOFTEXT,
        "torch_dtype": "float32",
    }


def tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": SPECIAL_TOKENS[IM_END],
        "pad_token": SPECIAL_TOKENS[ENDOFTEXT],
        "unk_token": None,
        "additional_special_tokens": [SPECIAL_TOKENS[IM_START], SPECIAL_TOKENS[IM_END]],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "chat_template": CHAT_TEMPLATE,
    }


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = json.loads(build_tokenizer().to_str())
    for token in tokenizer["added_tokens"]:
        token["special"] = "think" not in token["content"]  # thoughts are text: decoding keeps their marks
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    files: dict[str, object] = {
        "config.json": model_config(),
        "generation_config.json": {"eos_token_id": IM_END, "pad_token_id": ENDOFTEXT},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_config(),
        "vocab.json": vocabulary,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")
    save = importlib.import_module("safetensors.numpy").save
    (folder / "model.safetensors").write_bytes(save(build_weights(), metadata={"format": "pt"}))
