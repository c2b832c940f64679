"""Secrets that a name announces, as in `DB_PASSWORD=...`, "the password is ..." or `"apiKey": "..."`. Pure.

What a name announces is a secret only where it is credible: no placeholder, no reference to where the secret is, no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEYS = (
    "api", "access", "account", "app", "auth", "cipher", "client", "consumer", "deploy", "encryption", "hmac", "license",
    "master", "private", "secret", "service", "session", "shared", "signing", "storage", "subscription", "webhook",
)
ANCHOR = re.compile(
    "|".join(f"{word}[ _-]?key" for word in KEYS)
    + "|passw(?:or[dt]|d)|passphrase|passcode|pass|pwd|secret|token|credential|connection_?string"
)
ANCHOR_WORDS = ("pass", "key", "secret", "token", "pwd", "credential", "connection")
PASS_HEADS = re.compile(r"(?:^|[^a-z]|\\[nrt]|db|user|root|sql|admin|key|pg|ssh|ftp|smtp|store|redis)$")
OTHER_HEADS = re.compile(
    r"(?:^|[^a-z]|\\[nrt])(?:next|page|continuation|cursor|sync|pad|eos|bos|unk|sep|cls|mask|special|stop|start|end|first|last|num|max|min|n|"
    r"per|total|prompt|completion|cached|input|output|reasoning|other|no|by|cancellation)[ _-]?$"
)
FLAG = re.compile(r"(?:^|[\s\"'`(])--?[\w-]*$")
OTHER_TAILS = _words("""
    algorithm alias arn at attempt attempts attr budget callback change changed check class column cost count created date
    days description dialog duration endpoint error errors exchange exists expiration expired expires expiry field fields
    file filename folder form format generator handler hash hashed hashes header help hint id identifier ids index info
    input issuer label len length level limit link list manager max message method min minutes mode model name names
    namespace number page param parameter path pattern per placeholder policy position present prompt provider rate ref
    reference regex required reset rotation rule rules schema scope scopes screen seconds server size source start status
    store strategy strength table threshold timeout title total ttl type types uri url usage used username valid
    validation validator var variable version visible volume window windows
""")
PLACEHOLDERS = _words("""
    a abc access actual add admin all an and any api app application at auth authorization await aws azure bar base bearer
    bool boolean bot bytes change changed changeit changeme char client code config confirmed const correct credential
    credentials current data db default demo dev disabled dummy empty enabled encrypted encryption enter env environment
    example expired export fake false field file fixme foo for forgot from function generate generated get github google
    hash hashed here hidden hint id in incorrect input insert int integer invalid is key keys lambda local login long
    match max me min missing mock must my name never new nil no none not null number object of old omitted openai optional
    or pass passcode passphrase passwd password passwords passwort paste phrase pin placeholder plain please postgres
    private process prod production provided pwd random readonly real redacted refresh refused removed replace request
    require required reset return root s sample secret secrets secretstr secure see self service session set settings
    shared short should some something staging str string strong stub super supersecret tbd test testing text that the
    their this to todo token tokens true type undefined unknown unsafe unset update use user username val valid value var
    varchar variable vault via void weak what with word wrong x xx xxx xxxx y yield you your yourself
""")
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
VARIED = re.compile(r"(?=.*\d)(?=.*[A-Za-z]).{8,}", re.DOTALL)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
REFERENCE = re.compile(
    r"[$%@!#&]?[({\[<]|[$%][A-Za-z_]|![A-Z]\w|\*|\.\.|…|[-_.]+$|\\|(?:https?|file|arn|op|vault|ref\+\w+|env|keyring|ssm)[:/]|"
    r"(?i:x{3,}|process\.env|os\.|env\.|import\.meta|secrets?\.|settings\.|config\.|self\.|this\.|args\.|options\.|var\.|local\.)"
)
CALL = re.compile(r"[A-Za-z_][\w.]*(?:\?\.)?[(\[]")
CHAIN = re.compile(r"[A-Za-z_]\w*(?:(?:\??\.|->|::)[A-Za-z_]\w*)+$")
IDENTIFIER = re.compile(r"[A-Za-z_]+\d{0,2}[?!]?$")
PATH = re.compile(r"(?:~|\.{0,2})/(?:[\w.-]+/)*[a-z]{3,}[\w.-]*(?:/[\w.-]*)*$|[A-Za-z]:\\")
INFLECTED = re.compile(r"[a-z]{2}(?:ed|ing|able|ible|ous|ful|less|ive|ly|ent|ant)$")
CLAUSE_END = re.compile(r"[.!?,;)]*(?:\s*$|\s*\n|[.!?,;]\s)")
BLANK = re.compile(r"[ \t]*(?:\n|$)")
AFTER = re.compile(
    r"""
    (?P<tail>[\w-]{0,40})
    (?P<close>(?:\\{0,3}["'`]\]?|\])\??)?
    (?P<sep>
        [ \t]{0,8}(?::[ \t]?[A-Za-z][\w.\[\]|\ ]{0,30}?[ \t](?==[ \t]))?(?:=>|:=|[=!]==?|=|:)(?:[ \t]|\\t){0,8}
        | (?:[ ](?:for|of|to|on)[ ][\w .@/-]{1,40}?)?[ ](?P<spoken>is|ist|are|was|lautet)[ ]?:?[ ]
        | ,?[ \t]{1,4}
    )
    (?:[rbuf@$]{0,2}(?P<open>\\{0,3}["'`])(?P<quoted>(?:[^\n"'`\\]{1,4096}+|(?!(?P=open))[^\n])++)(?P=open)
      |["'`]?(?P<bare>(?:[^\s"'`;&<>,\\]{1,4096}+|[,;&](?!\s|$|[ ]?[\w.]{1,30}(?:[ ]\w{1,30})?[ ]?[=:])|\\(?![nrt\\"']))++))
    """,
    re.VERBOSE,
)
SHORTEST = 6  # characters of a secret
REACH = 4096  # characters behind a name that are looked at: no secret in a session is longer
PLAIN = 256  # characters of what may be a path or a placeholder
LONG = 16  # characters of one that is told from words by its letters alone


def announced(text: str, lowered: str) -> Iterator[tuple[str, int, int]]:
    """Kind, start and end of each; `lowered` is the text in lower case, as long as it."""
    if not any(word in lowered for word in ANCHOR_WORDS):
        return
    for anchor in ANCHOR.finditer(lowered):
        after = AFTER.match(text, anchor.end(), anchor.end() + REACH)
        if after and _announces(text, lowered, anchor.start(), anchor.end(), after["tail"]):
            kind = "password" if anchor[0].startswith(("pass", "pwd")) else "secret"
            kind = "passphrase" if anchor[0] == "passphrase" else kind
            if span := _value(text, anchor.start(), kind, after):
                yield kind, *span


def _announces(text: str, lowered: str, start: int, end: int, tail: str) -> bool:
    """Whether it is the name of a secret: not `tokenizer`, `max_tokens`, `password_hash` or `bypass`."""
    head, name = lowered[max(0, start - 16) : start], text[start:end]
    if lowered.startswith(("pass", "pwd"), start) and not lowered.startswith("passw", start):
        if not PASS_HEADS.search(head) and not (name[0].isupper() and text[start - 1].islower()):
            return False
    elif lowered.endswith(("token", "key"), start, end) and OTHER_HEADS.search(head):
        return False
    rest = tail[1:] if tail[:1] in ("s", "S") and not tail[1:2].isalpha() else tail
    if rest[:1].isalpha() and rest[:1].isupper() == name[-1].isupper():
        return False  # another word
    return not OTHER_TAILS & {word.lower() for word in WORDS.findall(rest)} and not rest.endswith("-")


def _value(text: str, start: int, kind: str, after: re.Match[str]) -> tuple[int, int] | None:
    """Where the value stands, if it is credible as a secret of this kind."""
    group = "bare" if after["quoted"] is None else "quoted"
    value = after[group].rstrip("\\" if group == "quoted" else ",.;:)]}!?\\")
    span = (after.start(group), after.start(group) + len(value))
    if len(value) < SHORTEST or _is_none(value, kind):
        return None
    if not after["sep"].strip(" \t,"):
        fits = _fits_apart(text, start, group, value, after)
    elif after["spoken"]:
        fits = _fits_spoken(text, kind, value, span[1])
    else:
        fits = _fits_quoted(kind, value) if group == "quoted" else _fits_bare(text, start, kind, value, after)
    return span if fits else None


def _fits_apart(text: str, start: int, group: str, value: str, after: re.Match[str]) -> bool:
    """Only a blank or a comma stands between: `--token abc`, or the pair ("X-Api-Key", "abc")."""
    if "," in after["sep"]:
        pair = after["close"] is not None and group == "quoted"
        return pair and (_is_random(value) or (text[start - 1] == "-" and VARIED.match(value) is not None))
    if not FLAG.search(text[max(0, start - 40) : start]):
        return False
    return group == "quoted" or not (_is_code(value) or IDENTIFIER.match(value))


def _fits_spoken(text: str, kind: str, value: str, end: int) -> bool:
    """Said in a sentence: a plain word is taken for a password only where the clause ends with it."""
    if kind == "secret":
        return VARIED.match(value) is not None
    if _is_code(value) or INFLECTED.search(value):
        return False
    return not value.isalpha() or CLAUSE_END.match(text, end) is not None


def _fits_quoted(kind: str, value: str) -> bool:
    if any(c.isspace() for c in value):
        return kind == "passphrase" and value.islower() and len(value.split()) > 3
    if _is_code(value) and not is_mixed(value):
        return False
    return kind != "secret" or VARIED.match(value) is not None or _is_random(value)


def _fits_bare(text: str, start: int, kind: str, value: str, after: re.Match[str]) -> bool:
    """Without quotes a value may be a variable: a word is a value only in an environment file or, after a colon, alone."""
    env = after["sep"] == "=" and text[start].isupper() and not text.startswith((",", ")"), after.end("bare"))
    if not any(c.isalpha() for c in value):  # a count stands behind `pass`
        return value.isdigit() and kind != "secret" and (env or after.start() - start > len("pass"))
    if _is_code(value) and not (env and is_mixed(value)):
        return False
    if IDENTIFIER.match(value):
        if kind == "secret":
            return env and _is_random(value)
        alone = (":" in after["sep"] or (after["sep"] == "=" and value.isalpha())) and _is_alone(text, start, after.end("bare"))
        return env or (alone and not INFLECTED.search(value))
    return kind != "secret" or (VARIED.match(value) is not None and (env or _is_random(value)))


def _is_alone(text: str, start: int, end: int) -> bool:
    """On its line, with its name."""
    before = text[text.rfind("\n", 0, start) + 1 : start]
    return len(before) < 40 and not re.search(r"[^\s\w.'\"+-]", before) and BLANK.match(text, end) is not None


def is_placeholder(value: str, kind: str = "secret") -> bool:
    """`YOUR_API_KEY`, `changeme`; but a word with digits behind it is what people take for a password."""
    pieces = [piece.lower() for piece in WORDS.findall(value)]
    digits = 4 if kind == "secret" else 0
    if len(value) < 2.5 * len(pieces):
        return False
    return all(p in PLACEHOLDERS or (p.isdigit() and len(p) <= digits) or len(set(p)) == 1 for p in pieces)


def _is_code(value: str) -> bool:
    """A call, or a chain of names."""
    named = CHAIN.match(value) and (not is_mixed(value) or any(len(p) > 3 and p.isalpha() for p in WORDS.findall(value)))
    return bool(CALL.match(value) or named)


def _is_random(value: str) -> bool:
    """Not made of words: its pieces are short, or few are long."""
    if not VARIED.match(value) and (len(value) < LONG or value in (value.lower(), value.upper())):
        return False
    pieces = WORDS.findall(value)
    return len(value) <= 3.5 * len(pieces) or 2 * sum(len(p) for p in pieces if len(p) > 3 and p.isalpha()) < len(value)


def _is_none(value: str, kind: str) -> bool:
    """A reference, a path or a placeholder."""
    if len(value) > PLAIN:
        return REFERENCE.match(value) is not None
    return bool(REFERENCE.match(value) or PATH.match(value)) or is_placeholder(value, kind)


def is_literal(value: str) -> bool:
    """Neither a reference to where the secret is, nor a placeholder."""
    return not _is_none(value, "password")


def is_mixed(value: str) -> bool:
    """Letters and digits: no word, and no number."""
    return any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
