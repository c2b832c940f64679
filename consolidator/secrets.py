"""Secrets in what is retained: found by their shape and masked before anything is embedded, stored or sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """`words` must occur (any case) before the pattern is tried; its group 1, else the whole match, is the secret."""

    name: str
    pattern: re.Pattern[str]
    words: tuple[str, ...]


def _rule(name: str, pattern: str, *words: str) -> Rule:
    return Rule(name, re.compile(pattern), words)


NAMED = "api[_ -]?key|secret[_ -]?key|access[_ -]?token|auth[_ -]?token|client[_ -]?secret"
PEM = r"[A-Z ]{0,30}PRIVATE KEY"
VALUE = r"['\"]?([^\s'\"<>{}]{6,128})['\"]?"

RULES = (
    _rule("private-key", rf"-----BEGIN {PEM}-----[\s\S]{{0,8000}}?(?:-----END {PEM}-----|\Z)", "private key"),
    _rule("aws", r"\b((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})\b", "akia", "asia", "abia", "acca"),
    _rule("aws-secret", r"(?i)aws.{0,30}?(?:secret|key)\D{0,20}?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+])", "aws"),
    _rule("github", r"\b(gh[pousr]_[A-Za-z0-9]{36,251})\b", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _rule("github-fine", r"\b(github_pat_[A-Za-z0-9_]{60,90})\b", "github_pat_"),
    _rule("gitlab", r"\b(glpat-[\w-]{20,})", "glpat-"),
    _rule("openai", r"\b(sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,200})", "sk-"),
    _rule("anthropic", r"\b(sk-ant-[A-Za-z0-9_-]{24,200})", "sk-ant-"),
    _rule("google", r"\b(AIza[\w-]{35})", "aiza"),
    _rule("slack", r"\b(xox[abeoprs]-[A-Za-z0-9-]{10,250})", "xox"),
    _rule("slack-hook", r"(https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/+]{43,60})", "hooks.slack.com"),
    _rule("stripe", r"\b((?:sk|rk)_(?:live|test)_[A-Za-z0-9]{10,99})", "sk_live", "sk_test", "rk_live", "rk_test"),
    _rule("huggingface", r"\b(hf_[A-Za-z0-9]{30,})", "hf_"),
    _rule("npm", r"\b(npm_[A-Za-z0-9]{36})\b", "npm_"),
    _rule("pypi", r"\b(pypi-AgE[\w-]{50,})", "pypi-age"),
    _rule("sendgrid", r"\b(SG\.[\w-]{16,32}\.[\w-]{30,64})", "sg."),
    _rule("telegram", r"\b(\d{8,10}:A[\w-]{34})\b", ":a"),
    _rule("consolidator", r"\b(oc_[A-Za-z0-9]{4,32}_[\w-]{40,60})", "oc_"),
    _rule("jwt", r"\b(eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})", "eyj"),
    _rule("bearer", r"(?i)\bbearer\s+([\w.~+/-]{20,}=*)", "bearer"),
    _rule("url", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:([^\s/@]{3,128})@", "://"),
    _rule("password", rf"(?i)\b(?:password|passwort|passphrase|passwd|pwd)\b\s*(?:is|ist|are|:|=)\s*{VALUE}", "pass", "pwd"),
    _rule("pin", r"(?i)\b(?:pin|pin code|cvv|cvc)\b\s*(?:is|:|=)\s*(\d{3,8})\b", "pin", "cvv", "cvc"),
    _rule("secret", rf"(?i)\b(?:{NAMED})\b\s*(?:is|:|=)\s*{VALUE}", "key", "token", "secret"),
)

NO_SECRET = re.compile(
    r"(?i)^(?:wrong|weak|strong|required|expired|incorrect|invalid|correct|changed|missing|secure|\W+|x+)\W*$"
)
DIGITS = 4  # of the keyed digest in a mask, so that the same secret is recognised and another one is not


@dataclass(frozen=True, slots=True)
class Secret:
    kind: str
    start: int
    end: int


def find(text: str) -> list[Secret]:
    """Where secrets stand, in order, without overlaps."""
    lowered = text.lower()
    found = sorted(
        (secret for rule in RULES if any(word in lowered for word in rule.words) for secret in _matches(rule, text)),
        key=lambda secret: (secret.start, -secret.end),
    )
    kept: list[Secret] = []
    for secret in found:
        if not kept or secret.start >= kept[-1].end:
            kept.append(secret)
    return kept


def _matches(rule: Rule, text: str) -> Iterator[Secret]:
    for match in rule.pattern.finditer(text):
        group = 1 if rule.pattern.groups else 0
        if not NO_SECRET.match(match.group(group)):
            yield Secret(rule.name, match.start(group), match.end(group))


def mask(text: str, found: list[Secret], digest: Callable[[str], str]) -> str:
    """The text with `[redacted:kind#1a2b]` in each secret's place."""
    for secret in reversed(found):
        mark = digest(text[secret.start : secret.end])[:DIGITS]
        text = f"{text[: secret.start]}[redacted:{secret.kind}#{mark}]{text[secret.end :]}"
    return text
