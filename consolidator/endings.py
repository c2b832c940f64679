"""How something ended: a tool by its fields and texts, an agent by its last words. Pure; words are a hint, no proof.

All patterns but `ENDS_FAILED` are looked for in texts in small letters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from consolidator.words import sentences

Told = Mapping[str, Any]
Claim = Literal["success", "failure", "mixed", "open", "asks"]

CODES = ("exit_code", "exitCode", "exitcode", "exit_status", "returncode", "return_code", "returnCode")
STATUS = {"error": True, "failed": True, "failure": True, "timeout": True, "ok": False, "success": False, "succeeded": False}
NOTHING = frozenset({"", "none", "null", "0", "false", "no error", "no errors"})
EXIT = re.compile(
    r"^[^\w\n]{0,8}(?:\w{1,40}[: ]{1,3}){0,4}?"
    r"(?:exit[ _]?(?:code|status)|exited(?: with)?(?: (?:exit )?(?:code|status))?|return ?code)"
    r"(?: was| is)?[\s:=]{1,3}(-?\d{1,10})\b",
    re.MULTILINE,
)
OPENS_FAILED = re.compile(
    r"\s*(?:<tool_use_error>|(?:fatal|error|exception)\s?[:!\[(]|error executing|traceback \(most recent|npm err|"
    r"\S{0,40}sh: .*not found)",
)
ENDS_FAILED = re.compile(
    r"^make(?:\[\d+\])?: \*\*\* .*Error \d+|^(?:\w{1,40}\.){0,6}\w{0,60}(?:Error|Exception)(?:: .*)?\s*\Z|: command not found",
    re.MULTILINE,
)
FAILURES = re.compile(r"\b[1-9]\d* (?:tests? )?(?:failed|failures?|errors?)\b")
PASSES = re.compile(r"\b[1-9]\d* (?:tests? )?(?:passed|passing)\b|\b0 (?:failed|failures|errors)\b")
EDGE = 400  # characters at both ends of a result that say how it ended

TROUBLE = r"(?:errors?|failures?|failed|failing|fails?|issues?|problems?|exceptions?|warnings?|regressions?|crash(?:es)?)"
HARMLESS = re.compile(  # trouble that is denied, counted as none, mended, or the subject of the work
    rf"\b(?:no|zero|0|without(?: any)?|nor|never|nothing|none(?: of \w+)?)(?: (?:\w+ )?{TROUBLE})\b"
    rf"|\b{TROUBLE}[:=] ?(?:0|none)\b|\b(?:did|do|does)(?:n['’]t| not) (?:fail|crash)\b"
    rf"|\b{TROUBLE} (?:is|are|has been|have been) (?:now )?(?=gone|fixed|resolved|solved)"
    rf"|\b(?=fix|resol|solv|handl|repair|correct|catch|prevent)\w+ (?:[\w`'’-]+ ){{0,5}}{TROUBLE}\b"
    rf"|\b(?:error|exception|failure)[- ](?:handling|message|path|case|type|class|code|log)s?\b",
)
SUPPOSED = re.compile(
    r"\b(?:once|when|until|unless|if|after|before|to be|will be|should be|would be)\b[^.!?;,\n]{0,60}",
)
CANNOT = re.compile(
    r"\b(?:can['’]t|(?:could|was|were|is|are|did|does|do)n['’]t|(?:could|can|was|were|am|is|are|did|does|do) not) (?:be )?"
    r"(?:able|get|make|find|fix|fixed|reach|connect|complete|completed|finish|finished|work|working|possible|solve|resolve|"
    r"build|install|run|reproduce|succeed|pass|passing|done|ready|deploy|access|read|open|start)\b"
    r"|\bcannot\b|\bunable to\b|\bunsuccessful|\bincomplete\b|\bgave up\b|\bgiving up\b|\bstuck\b|\bblocked\b(?! out)|\baborted\b"
    r"|\bfail(?:s|ed|ing)?\b|\b[1-9]\d* (?:failures?|errors?)\b|\berrors? (?:remains?|persists?|occurred)\b|\bstill broken\b",
)
CLAIMED = re.compile(
    r"(?<!not )(?<!n't )(?<!n’t )\b(?:pass(?:es|ed)?|passing|done|completed?|success(?:ful|fully)?|succeed(?:s|ed)?|"
    r"works? (?:now|as|well)|working now|"
    r"(?:is|are) (?:now )?(?:ready|working|in place|live|gone|merged|resolved|fixed)|all (?:green|set|good)|fixed|"
    r"implemented|finished|resolved|solved|committed|pushed|merged|deployed|no errors)\b",
)
ASKS = re.compile(
    r"\?[\s\"')*_]*\Z|\b(?:shall i|should i|would you like|do you want|let me know (?:if|how|which|what|whether)|"
    r"please (?:confirm|provide|tell|share|advise|choose)|waiting for (?:you|your)|which (?:one|option))\b",
)
OPEN = re.compile(
    r"^\W*(?:(?:now|next|then|first|ok(?:ay)?|so|good|great|alright)\W+)*(?:i['’]ll|i will|let me (?!know)|let['’]s|"
    r"i['’]m going to|i am going to|running|checking|trying)\b|\b(?:still running|in progress|to be continued)\b",
)
HEAD_READ, TAIL_READ = 300, 600  # characters of an agent's last words


# a tool


def failed(told: Told, text: str) -> bool | None:
    """Whether a tool's result is a failure: by exit codes and fields of errors, else by how its text begins and ends."""
    verdict = _by_fields(told)
    if verdict is None and text.lstrip()[:1] == "{":
        verdict = _by_fields(_inner(text))
    return _by_words(text) if verdict is None else verdict


def _inner(text: str) -> Told:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _by_fields(told: Told) -> bool | None:
    """True where one field tells of a failure, False where one tells of none."""
    known = False
    more = told.get("metadata")
    for fields in (told, more) if isinstance(more, dict) else (told,):
        for key, reads in FIELDS.items():
            if key in fields and (verdict := reads(fields[key])) is not None:
                if verdict:
                    return True
                known = True
    return False if known else None


def _code(code: object) -> bool | None:
    if isinstance(code, int) and not isinstance(code, bool):
        return code != 0
    return int(code) != 0 if isinstance(code, str) and re.fullmatch(r"\s*-?\d{1,10}\s*", code, re.ASCII) else None


def _flag(told: object) -> bool | None:
    return told if isinstance(told, bool) else None


def _success(told: object) -> bool | None:
    return not told if isinstance(told, bool) else None


def _status(told: object) -> bool | None:
    return STATUS.get(told.lower()) if isinstance(told, str) else None


def _says_something(error: object) -> bool:
    if isinstance(error, str):
        return error.strip().lower() not in NOTHING
    return bool(error)


FIELDS: dict[str, Callable[[object], bool | None]] = {
    **dict.fromkeys(CODES, _code), **dict.fromkeys(("is_error", "isError", "interrupted"), _flag),
    **dict.fromkeys(("success", "ok"), _success), **dict.fromkeys(("error", "errors"), _says_something), "status": _status,
}


def _by_words(text: str) -> bool | None:
    first, last = text[:EDGE].lower(), text[-EDGE:].lower()
    codes = [int(found[1]) for edge in (first, last) for found in EXIT.finditer(edge)]
    if codes:
        return codes[-1] != 0
    if OPENS_FAILED.match(first) or ENDS_FAILED.search(text[-EDGE:]) or FAILURES.search(last):
        return True
    return False if PASSES.search(last) else None


# an agent


def claim(text: str) -> Claim | None:
    """What an agent's last words say of its work; the later words weigh more. None: nothing."""
    read = (text if len(text) <= HEAD_READ + TAIL_READ else f"{text[:HEAD_READ]}\n{text[-TAIL_READ:]}").lower()
    last = (sentences(read.strip()) or [""])[-1]
    left, denied = HARMLESS.subn(" ", SUPPOSED.sub(" ", read))
    verdict = _verdict(left, denied=bool(denied))
    if OPEN.search(last):
        return "open"
    return "asks" if verdict is None and ASKS.search(last) else verdict


def _verdict(read: str, *, denied: bool) -> Claim | None:
    bad = max((found.end() for found in CANNOT.finditer(read)), default=0)
    good = max((found.end() for found in CLAIMED.finditer(read)), default=0)
    if bad:
        return "failure" if not good else "success" if good > bad else "mixed"
    return "success" if good or denied else None
