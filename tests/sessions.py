"""The example sessions, and what cannot lie in the repository with them: a big one, planted secrets, handles of observations."""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from consolidator.models import Value

FOLDER = Path(__file__).parents[1] / "examples" / "sessions"
PATHS = tuple(sorted(path for path in FOLDER.iterdir() if re.match(r"\d{8}_", path.name)))
SESSIONS = {path.stem.split("_")[2]: path for path in PATHS}  # by their last word
GOLD = FOLDER.parent / "gold.json"
BIG, SECRETS, REPEAT = "20261109_080000_big.jsonl", "secrets", "repeat"


class Gold(Value):
    """What a good harvest finds. steps: of the session, from 0, on which it rests."""

    session: str
    text: str
    category: str
    confidence: float
    steps: tuple[int, ...]
    everywhere: bool = False


def gold() -> list[Gold]:
    return [Gold.model_validate(item) for item in json.loads(GOLD.read_text())]


# the big one: a failure at its head, then routine

FILES = 300
BEGUN = datetime(2026, 11, 9, 8, tzinfo=UTC)
READINGS = 8760


def big(path: Path, *, files: int = FILES) -> Path:
    """Writes the big session, the same bytes each time: four messages of a failure, two for each file, two at the end.

    path: a file, or a folder in which it gets its name. files: with 300, about 350 KB.
    """
    return _written(path, BIG, "".join(json.dumps(line) + "\n" for line in _stamped(_import_of(files))))


def _stamped(messages: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, message in enumerate(messages):
        yield {**message, "timestamp": (BEGUN + number * timedelta(seconds=7)).isoformat()}


def _import_of(files: int) -> Iterator[dict[str, Any]]:
    yield {"role": "user", "content": f"Import the {files} gauge files in archive/2025 with tide-cli, one after another."}
    yield _import(1, "I start with the first file.", "")
    yield _result(1, "error: line 2138: 2025-03-30T02:00 does not exist in Europe/Amsterdam\n1 rejected, nothing imported", 1)
    yield {
        "role": "assistant",
        "content": "That hour does not exist on the clock of Amsterdam, so the files are not in local time; archive/README says "
        "UTC. `tide import` reads times without a zone as local time; with --assume-utc it should take them.",
    }
    for number in range(1, files + 1):
        yield _import(number, f"File {number} of {files}.", " --assume-utc")
        yield _result(number, _imported(number), 0)
    yield {"role": "assistant", "content": f"All {files} files are imported, no reading was rejected, 0 failed."}
    yield {"role": "user", "content": "Good."}


def _import(number: int, said: str, option: str) -> dict[str, Any]:
    command = f"cd ~/src/tide-cli && ./target/release/tide import archive/2025/NL-{number:04d}.csv{option}"
    function = {"name": "bash", "arguments": json.dumps({"command": command})}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return {"role": "assistant", "content": said, "tool_calls": [call]}


def _result(number: int, output: str, code: int) -> dict[str, Any]:
    told = json.dumps({"output": output, "exit_code": code})
    return {"role": "tool", "tool_call_id": f"call_{number}", "name": "bash", "content": told}


def _imported(number: int) -> str:
    random = Random(number)
    months = (f"  2025-{month:02d}  {random.randint(672, 744)} readings, 0 rejected, 0 errors" for month in range(1, 13))
    return "\n".join([f"NL-{number:04d}: {READINGS} readings", *months, "0 failed"])


# planted secrets: made of their parts, so that none stands in this file


class Planted(NamedTuple):
    kind: str
    text: str


def with_secrets(path: Path, seed: int = 0) -> tuple[Path, list[Planted]]:
    """Writes the session of secrets with values for its placeholders; the values, a private key by its lines.

    path: a file, or a folder in which it gets the session's name. The same seed makes the same values.
    """
    random, made = Random(seed), dict[str, str]()

    def value(found: re.Match[str]) -> str:
        if found[1] not in made:
            made[found[1]] = MAKERS[found[1]](random)
        return json.dumps(made[found[1]])[1:-1]

    session = SESSIONS[SECRETS]
    filled = re.sub(r"\{\{secret:([\w-]+)\}\}", value, session.read_text())
    return _written(path, session.name, filled), [
        Planted(kind, line) for kind, text in made.items() for line in text.splitlines() if not line.startswith("-----")
    ]


SMALL, DIGITS, LETTERS = string.ascii_lowercase, string.digits, string.ascii_letters
ALL, HEX, URLSAFE = LETTERS + DIGITS, DIGITS + "abcdef", LETTERS + DIGITS + "-_"


def _of(alphabet: str, count: int) -> Callable[[Random], str]:
    return lambda random: "".join(random.choices(alphabet, k=count))


def _joined(*parts: str | Callable[[Random], str]) -> Callable[[Random], str]:
    return lambda random: "".join(part if isinstance(part, str) else part(random) for part in parts)


def _password(random: Random) -> str:
    """As people make them: two words and a number."""
    first, second = (_of(SMALL, 6)(random).title() for _ in range(2))
    return f"{first}-{second}-{random.randint(10, 99)}"


def _jwt(random: Random) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": _of(DIGITS, 10)(random), "name": "ops"})
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*texts, _of(URLSAFE, 43)(random)])


def _private_key(random: Random) -> str:
    rule, kind = "-" * 5, "OPENSSH PRIVATE " + "KEY"
    lines = [_of(ALL + "+/", 64)(random) for _ in range(6)]
    return "\n".join([f"{rule}BEGIN {kind}{rule}", *lines, f"{rule}END {kind}{rule}"])


MAKERS: dict[str, Callable[[Random], str]] = {
    "anthropic": _joined("sk-", "ant-", "api03-", _of(URLSAFE, 80), "AA"),
    "aws": _joined("AK", "IA", _of(string.ascii_uppercase + "234567", 16)),
    "aws-secret": _of(ALL + "/+", 40),
    "bearer": _of(URLSAFE, 43),
    "gauge": _of(HEX, 40),
    "gauge-old": _of(HEX, 40),
    "github": _joined("gh", "p_", _of(ALL, 36)),
    "gitlab": _joined("gl", "pat-", _of(ALL, 20)),
    "google": _joined("AI", "za", _of(URLSAFE, 35)),
    "huggingface": _joined("h", "f_", _of(ALL, 34)),
    "jwt": _jwt,
    "npm": _joined("np", "m_", _of(ALL, 36)),
    "openai": _joined("sk-", "proj-", _of(ALL, 48)),
    "password": _password,
    "pin": _of(DIGITS, 8),
    "private-key": _private_key,
    "sendgrid": _joined("S", "G.", _of(URLSAFE, 22), ".", _of(URLSAFE, 43)),
    "slack": _joined("xo", "xb-", _of(DIGITS, 12), "-", _of(DIGITS, 12), "-", _of(ALL, 24)),
    "slack-hook": _joined(
        "https://hooks.slack", ".com/services/T", _of(DIGITS, 10), "/B", _of(DIGITS, 10), "/", _of(ALL, 24)
    ),
    "stripe": _joined("sk_", "live_", _of(ALL, 24)),
    "telegram": _joined(_of("123456789", 9), ":A", "A", _of(URLSAFE, 33)),
    "url": _of(ALL, 16),
    "url-token": _of(ALL, 24),
}


# handles of a briefing


def with_handles(path: Path, ids: Sequence[str]) -> Path:
    """Writes the later session with a briefing of the observations with these ids, by the first 8 of their digits.

    path: a file, or a folder in which it gets the session's name. ids: four, in the order of the briefing's lines.
    """
    session = SESSIONS[REPEAT]
    filled = re.sub(r"\{\{handle:(\d)\}\}", lambda found: ids[int(found[1]) - 1][:8], session.read_text())
    return _written(path, session.name, filled)


def _written(path: Path, name: str, text: str) -> Path:
    target = path / name if path.is_dir() else path
    target.write_text(text)
    return target
