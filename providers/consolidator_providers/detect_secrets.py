"""Secrets by the rules of detect-secrets. Only its patterns are used: nothing is ever asked whether a secret is valid.

The library verifies what it finds against the providers' servers in `analyze_line` and in its scanner, unless its global
settings forbid that. Neither is called here, and no settings are touched, so any thread may call `find`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from consolidator.announced import is_literal, is_mixed
from consolidator.errors import MissingProvider
from consolidator.secrets import Secret, echoes, joined

PLUGINS = (
    "artifactory.ArtifactoryDetector", "aws.AWSKeyDetector", "azure_storage_key.AzureStorageKeyDetector",
    "basic_auth.BasicAuthDetector", "cloudant.CloudantDetector", "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector", "gitlab_token.GitLabTokenDetector", "ibm_cloud_iam.IbmCloudIamDetector",
    "ibm_cos_hmac.IbmCosHmacDetector", "jwt.JwtTokenDetector", "mailchimp.MailchimpDetector", "npm.NpmDetector",
    "openai.OpenAIDetector", "pypi_token.PypiTokenDetector", "sendgrid.SendGridDetector", "slack.SlackDetector",
    "softlayer.SoftlayerDetector", "square_oauth.SquareOAuthDetector", "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector", "twilio.TwilioKeyDetector",
)
# left out: high entropy, which takes every digest of a lock file for a secret; private keys, of which it knows the first line
# alone; public addresses, which are no secrets
BLOCK = 4_096  # characters searched at once: a search cannot be interrupted, and some patterns take its square
MOST = 16  # times that one line is searched again behind what was found
OVERLAP = 512  # that two blocks of one long line share
LINE = 768  # characters of a line in which names are looked for at once: those patterns take more than the square
QUOTED = re.compile("[\"'`]")
KEYWORDS = re.compile("api_?key|(?:auth|service|account|db|database|priv|private|client)_?key|pass|pwd|secret|contrase")


def find(text: str) -> list[Secret]:
    """Where secrets stand, in order, without overlaps. Raises MissingProvider."""
    found: list[Secret] = []
    for start, block in _blocks(text, BLOCK, OVERLAP):
        found += (Secret(s.kind, start + s.start, start + s.end) for s in _by_shape(block))
        if KEYWORDS.search(block.lower()):
            found += (Secret(s.kind, start + s.start, start + s.end) for s in _by_name(block))
    return joined(found, echoes(text, found)) if found else found


def _blocks(text: str, size: int, overlap: int) -> Iterator[tuple[int, str]]:
    """Whole lines where that can be, with where they start."""
    start = 0
    while len(text) - start > size:
        cut = text.rfind("\n", start, start + size) + 1
        end = cut or start + size
        yield start, text[start:end]
        start = cut or end - overlap
    yield start, text[start:]


def _by_shape(block: str) -> Iterator[Secret]:
    for kind, pattern, formal in _patterns():
        for match in pattern.finditer(block):
            start, end = _span(match)
            value = block[start:end].strip(" \t\r\n\"=:")
            start = block.index(value, start)
            if is_mixed(value) and is_literal(value) and (formal is None or formal(value)):
                yield Secret(kind, start, start + len(value))


def _span(match: re.Match[str]) -> tuple[int, int]:
    """The pattern's group, where that is the secret and not only its prefix."""
    groups = [match.span(number) for number in range(1, (match.lastindex or 0) + 1) if match[number]]
    return next((span for span in groups if span[1] >= match.end() - 2), match.span())


def _by_name(block: str) -> Iterator[Secret]:
    """Quoted values behind names, line by line."""
    at = 0
    for line in block.splitlines(keepends=True):
        for start, piece in _blocks(line, LINE, LINE // 3):
            if QUOTED.search(piece):
                yield from (Secret("keyword", at + start + first, at + start + last) for first, last in _quoted(piece))
        at += len(line)


def _quoted(piece: str) -> Iterator[tuple[int, int]]:
    """The library gives values without their places, and only the first of a line."""
    rest = 0
    for _ in range(MOST):
        values = set(_keywords().analyze_string(piece[rest:]))
        spans = [(start, start + len(value)) for value in values for start in [piece.index(value, rest)]]
        yield from (span for span in spans if _is_credible(piece[slice(*span)], piece))
        if not spans:
            return
        rest = max(end for _, end in spans)


def _is_credible(value: str, line: str) -> bool:
    """By the library's filters and our own: no sequence, template, reference or sentence."""
    filters = importlib.import_module("detect_secrets.filters.heuristic")
    if len(value) < 6 or any(c.isspace() for c in value) or not is_mixed(value) or not is_literal(value):
        return False
    return not (
        filters.is_sequential_string(value) or filters.is_templated_secret(value) or filters.is_prefixed_with_dollar_sign(value)
        or filters.is_likely_id_string(value, line)
    )


@cache
def _patterns() -> list[tuple[str, re.Pattern[str], Any]]:
    """Of every plugin; and what says whether a match is formally valid, where the plugin can tell without asking anybody."""
    detectors = [_detector(name) for name in PLUGINS]
    return [
        (name.partition(".")[0].replace("_", "-"), pattern, getattr(detector, "is_formally_valid", None))
        for name, detector in zip(PLUGINS, detectors, strict=True) for pattern in detector.denylist
    ]


@cache
def _keywords() -> Any:
    return _detector("keyword.KeywordDetector")


def _detector(name: str) -> Any:
    module, _, plugin = name.partition(".")
    try:
        return getattr(importlib.import_module(f"detect_secrets.plugins.{module}"), plugin)()
    except (ImportError, AttributeError) as error:
        raise MissingProvider("finding secrets needs detect-secrets 1.5: pip install 'detect-secrets>=1.5,<2'") from error
