"""Secrets in what is retained, found by shape or by name, and masked before anything is embedded, stored or sent. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from consolidator.announced import UUID, announced, is_literal, is_mixed


@dataclass(frozen=True, slots=True)
class Secret:
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rule:
    """`words` must occur (any case) before the pattern is tried; its group 1, else the whole match, is the secret, unless
    `check` says no.
    """

    name: str
    pattern: re.Pattern[str]
    words: tuple[str, ...]
    check: Callable[[str], bool] | None = None


def _rule(name: str, pattern: str, *words: str, check: Callable[[str], bool] | None = None) -> Rule:
    return Rule(name, re.compile(pattern), words, check)


def _prefixed(name: str, tail: str, *prefixes: str) -> Rule:
    """Tokens that say whose they are."""
    heads = "|".join(map(re.escape, prefixes))
    heads = f"(?:{heads})" if prefixes[1:] else heads
    return Rule(name, re.compile(heads + tail), tuple(prefix.lower() for prefix in prefixes))


def _is_key_block(value: str) -> bool:
    """Not code that only speaks of a private key's first line."""
    return not re.search("[\"'`()]", value) or bool(re.search(r"[A-Za-z0-9+/=]{40}", value))


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value[: len(value) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _is_user_and_password(value: str) -> bool:
    return re.fullmatch(rb"[^:\s]+:[ -~]*", _decoded(value)) is not None


def _is_encoded_key(value: str) -> bool:
    return b"PRIVATE KEY" in _decoded(value[:88])


def _is_mixed_case(value: str) -> bool:
    """No digest in hexadecimal digits."""
    return value not in (value.lower(), value.upper())


def _is_mixed_literal(value: str) -> bool:
    return is_mixed(value) and is_literal(value)


def _is_no_slug(value: str) -> bool:
    """Not short words between dashes, such as a style sheet's names."""
    return any(len(piece) >= 16 for piece in re.split("[-_]", value))


PEM = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?"
BODY = r"(?:[^A-Za-z0-9+/=]{0,12}(?:\d{1,6}[^A-Za-z0-9+/=]{1,4})?(?:(?:Proc-Type|DEK-Info)[^\n\\]{1,60}|[A-Za-z0-9+/=]{16,}))"

FORMS = (
    _rule(
        "private-key",
        rf"-----BEGIN {PEM}-----(?:(?:[^-]|-(?!----BEGIN)){{0,16000}}?-----END {PEM}-----"
        rf"|{BODY}{{1,400}}[^A-Za-z0-9+/=]{{0,6}}[A-Za-z0-9+/=]*)",
        "private key", check=_is_key_block,
    ),
    _rule("private-key", r"PuTTY-User-Key-File-\d(?:[^P]|P(?!uTTY-U)){0,8000}?Private-MAC: ?[0-9a-f]+", "putty-user-key"),
    _rule("private-key", r"(LS0tLS1CRUdJTi[A-Za-z0-9+/=]{60,})", "ls0tls1crudjti", check=_is_encoded_key),
    _rule("url", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@'\"]{0,64}:([^\s/@'\"]{3,256})@", "://", check=is_literal),
    _rule("bearer", r"(?i)\bbearer\s+([\w.~+/-]{20,}=*)", "bearer", check=is_mixed),
    _rule(
        "authorization",
        r"(?i)\bauthorization\\?[\"'`]?\s{0,3}[:=,]\s{0,3}\\?[\"'`]?(?:(?:bearer|basic|token|apikey|api-key|key|bot)\s+)?"
        r"([\w.~+/=:-]{8,})", "authorization", check=is_mixed,
    ),
    _rule("basic", r"(?i)\bbasic\s+([A-Za-z0-9+/]{8,}={0,2})", "basic ", check=_is_user_and_password),
    _rule("basic", r"(?i)\"?_?auth\"?\s{0,3}[:=]\s{0,3}\"?([A-Za-z0-9+/]{8,}={0,2})", "auth", check=_is_user_and_password),
    _rule(
        "basic", r"(?:\bcurl\b[^\n]{0,200}?\s(?:-u|--user)[ =]?)[\"']?[\w.@+-]{1,64}:([^\s\"':$]{4,128})",
        "curl", check=is_literal,
    ),
    _rule(
        "cookie",
        r"(?i)\b(?:phpsessid|jsessionid|connect\.sid|asp\.net_sessionid|laravel_session|_?csrf_?token|xsrf-token|remember_token|"
        r"session(?:id|_id|_token)?|sid|auth)=([\w.%~+/=:-]{10,})(?:;|[\"'\s]|$)", "cookie", "sess", "connect.sid",
        check=lambda value: is_mixed(value) and not UUID.fullmatch(value),
    ),
    _rule("netrc", r"\blogin\s+\S{1,64}\s+password\s+(\S{4,128})", "login", check=is_literal),
    _rule("pgpass", r"(?m)^[\w.*-]+:(?:\d{4,5}|\*):[\w*-]+:[\w*-]+:(\S{4,128})$", ":5432:", ":5433:", ":*:", check=is_literal),
    _rule("mysql", r"\bmysql(?:dump|admin)?\b[^\n]{0,120}?\s-p([^\s\"'$-][^\s\"'$]{5,64})", "mysql", check=is_mixed),
    _rule("sshpass", r"\bsshpass\s+-p\s*[\"']?([^\s\"'$]{4,64})", "sshpass", check=is_literal),
    _rule("identified", r"(?i)\b(?:identified by|password)\s+'([^'\s]{4,128})'", "identified by", "password '", check=is_literal),
    _rule(
        "identified", r"(?i)(?:identified by|password)\s+\"([^\"\s]{6,256})\"", "identified by", "password \"",
        check=_is_mixed_literal,
    ),
    _rule(
        "compared", r"(?i)[\"']([^\"'\s]{6,256})[\"']\s{0,3}[!=]==?\s{0,3}[\w.]{0,40}(?:password|passwd|secret|token)",
        "==", "!=", check=_is_mixed_literal,
    ),
    _rule(
        "xml", r"(?i)<(?:\w+:)?(?:password|passwd|secret|api_?key|token|client_?secret)>([^<\s]{6,256})</", "</",
        check=is_literal,
    ),
    _rule(
        "xml", r"(?i)(?:key|name)=\"[\w.:]*(?:password|secret|apikey|token)\"\s+value=\"([^\"\s]{6,256})\"", "value=",
        check=is_literal,
    ),
    _rule("pin", r"(?i)\b(?:pin|pin code|cvv|cvc)\b\s*(?:is|:|=)\s*(\d{3,8})\b", "pin", "cvv", "cvc"),
    _rule(
        "aws-secret", r"(?i)aws.{0,30}?(?:secret|key)[^\d\n]{0,20}?(?<![A-Za-z0-9/+])([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        "aws", check=_is_mixed_case,
    ),
)

SHAPES = (  # without a blank, and never within a longer word
    _rule("aws", r"((?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})\b", "akia", "asia", "abia", "acca"),
    _prefixed("github", r"[A-Za-z0-9]{36,251}\b", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _prefixed("github-fine", r"[A-Za-z0-9_]{60,90}\b", "github_pat_"),
    _prefixed(
        "gitlab", r"[\w-]{20,2000}", "glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "glcbt-", "glptt-", "glimt-", "glagent-",
        "gloas-", "GR1348941",
    ),
    _prefixed("atlassian", r"[\w=-]{20,2000}", "ATATT3xFfG", "ATCTT3xFfG", "ATBB"),
    _prefixed("anthropic", r"[\w-]{24,200}", "sk-ant-"),
    _rule("openai", r"sk-(?=[\w-]{0,60}\d)[A-Za-z0-9_-]{20,200}", "sk-", check=_is_no_slug),
    _prefixed("xai", r"[A-Za-z0-9]{40,2000}", "xai-"),
    _prefixed("google", r"[\w-]{35}", "AIza"),
    _prefixed("google-oauth", r"[\w.-]{24,2000}", "GOCSPX-", "ya29.", "1//0"),
    _prefixed("slack", r"[A-Za-z0-9-]{10,250}", *(f"xox{kind}-" for kind in "abeoprs"), "xoxe.xoxp-", "xapp-"),
    _rule("slack-hook", r"(https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/+_]{40,80})", "hooks.slack.com"),
    _rule("discord-hook", r"(https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/\d{15,20}/[\w-]{40,2000})", "/api/webhooks/"),
    _rule("teams-hook", r"(https://[\w.-]+\.webhook\.office\.com/webhookb2/[\w@/-]{60,2000})", "webhook.office.com"),
    _rule("discord", r"([MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,45})(?![\w.-])", "."),
    _prefixed("stripe", r"[A-Za-z0-9]{10,247}", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"),
    _prefixed("huggingface", r"[A-Za-z0-9]{30,2000}", "hf_", "api_org_"),
    _prefixed("replicate", r"[A-Za-z0-9]{37,40}\b", "r8_"),
    _prefixed("groq", r"[A-Za-z0-9]{40,2000}", "gsk_"),
    _prefixed("perplexity", r"[A-Za-z0-9]{40,2000}", "pplx-"),
    _prefixed("nvidia", r"[\w-]{50,2000}", "nvapi-"),
    _prefixed("tavily", r"[\w-]{24,2000}", "tvly-"),
    _prefixed("langsmith", r"[a-f0-9]{32}_[a-f0-9]{10}", "lsv2_pt_", "lsv2_sk_"),
    _prefixed("elevenlabs", r"[a-f0-9]{48}\b", "sk_"),
    _prefixed("npm", r"[A-Za-z0-9]{36}\b", "npm_"),
    _prefixed("pypi", r"[\w-]{50,2000}", "pypi-AgE"),
    _prefixed("rubygems", r"[a-f0-9]{48}\b", "rubygems_"),
    _prefixed("docker", r"[\w-]{27,2000}", "dckr_pat_", "dckr_oat_"),
    _rule("sendgrid", r"(SG\.[\w-]{16,32}\.[\w-]{30,64})", "sg."),
    _rule("telegram", r"(\d{8,10}:A[\w-]{34})(?![\w-])", ":a"),
    _rule("twilio", r"(SK[0-9a-f]{32})\b", "sk"),
    _rule("mailgun", r"(key-[0-9a-f]{32})\b", "key-"),
    _rule("mailchimp", r"([0-9a-f]{32}-us\d{1,2})\b", "-us"),
    _prefixed("digitalocean", r"[a-f0-9]{64}\b", "dop_v1_", "doo_v1_", "dor_v1_"),
    _prefixed("shopify", r"[a-fA-F0-9]{32}\b", "shpat_", "shpca_", "shppa_", "shpss_"),
    _prefixed("linear", r"[A-Za-z0-9]{32,2000}", "lin_api_", "lin_oauth_"),
    _prefixed("notion", r"[A-Za-z0-9]{40,2000}", "ntn_", "secret_"),
    _prefixed("vault", r"[\w-]{24,2000}", "hvs.", "hvb.", "hvr."),
    _rule("terraform", r"([A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,2000})", ".atlasv1."),
    _prefixed("age", r"[A-Z0-9]{58}\b", "AGE-SECRET-KEY-1"),
    _prefixed("grafana", r"[\w=-]{32,2000}", "glsa_", "glc_"),
    _prefixed("databricks", r"[a-f0-9]{32}(?:-\d)?\b", "dapi"),
    _prefixed("sentry", r"[\w+/=-]{40,2000}", "sntrys_", "sntryu_"),
    _prefixed("new-relic", r"[A-Z0-9]{27}\b", "NRAK-"),
    _prefixed("postman", r"[a-f0-9]{24}-[a-f0-9]{34}", "PMAK-"),
    _prefixed("supabase", r"[\w-]{30,2000}", "sbp_", "sb_secret_"),
    _prefixed("planetscale", r"[\w.=-]{32,64}", "pscale_tkn_", "pscale_pw_", "pscale_oauth_"),
    _prefixed("doppler", r"[A-Za-z0-9]{40,2000}", "dp.pt.", "dp.st.", "dp.ct."),
    _prefixed("pulumi", r"[a-f0-9]{40}\b", "pul-"),
    _prefixed("figma", r"[\w-]{36,2000}", "figd_"),
    _prefixed("tailscale", r"[A-Za-z0-9]{4,2000}-[A-Za-z0-9]{16,2000}", "tskey-auth-", "tskey-api-", "tskey-client-"),
    _prefixed("sonar", r"[a-f0-9]{40}\b", "sqp_", "squ_", "sqa_"),
    _prefixed("square", r"[\w-]{22,43}", "sq0csp-", "sq0atp-", "EAAAE"),
    _rule("airtable", r"(pat[A-Za-z0-9]{14}\.[a-f0-9]{64})\b", "pat"),
    _prefixed("fly", r"[\w+/=,-]{60,2000}", "fm1_", "fm2_", "fo1_"),
    _prefixed("artifactory", r"[A-Za-z0-9]{60,2000}", "AKCp"),
    _rule("artifactory", r"(AP[0-9A-F][A-Za-z0-9]{18,70})(?![A-Za-z0-9/+=_-])", "ap", check=is_mixed),
    _prefixed("resend", r"[A-Za-z0-9]{8}_[A-Za-z0-9]{20,2000}", "re_"),
    _prefixed("cloudflare", r"[a-f0-9]{24}-[a-f0-9]{100,2000}", "v1.0-"),
    _rule("azure", r"(?i)(?:AccountKey|SharedAccessKey|SharedSecret)=([A-Za-z0-9+/]{40,2000}={0,2})", "accountkey=", "sharedacc"),
    _rule("azure-sas", r"[?&]sig=([A-Za-z0-9%+/_-]{40,2000}={0,2})", "sig="),
    _rule("azure-client", r"([\w~.-]{3}\dQ~[\w~.-]{31,34})(?![\w~-])", "q~"),
    _prefixed("consolidator", r"[A-Za-z0-9]{4,32}_[\w-]{40,60}", "oc_"),
    _rule("jwt", r"(eyJ[\w-]{10,2000}+\.eyJ[\w-]{10,2000}+\.[\w-]{10,2000})", "eyj"),
    _rule("jwt", r"(eyJ[\w-]{10,2000}+(?:\.[\w-]{0,600}+){1}(?:\.[\w-]{10,2000}+){3})", "eyj"),
)

EDGE = re.compile(r"(?:\\[nrt]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|%[0-9A-Fa-f]{2}|[0-9;]m)$")
LONG = 20  # characters without a blank: no shape is shorter
ECHO = 12  # a found secret of so many characters is looked for in the rest of the text
DIGITS = 4  # of the keyed digest in a mask, so that the same secret is recognised and another one is not


def find(text: str) -> list[Secret]:
    """Where secrets stand, in order, without overlaps."""
    lowered = _lowered(text)
    found = [secret for rule in FORMS if any(word in lowered for word in rule.words) for secret in _shaped(rule, text)]
    if any(len(word) >= LONG for word in text.split()):
        rules = [rule for rule in SHAPES if any(word in lowered for word in rule.words)]
        found = [*(secret for rule in rules for secret in _shaped(rule, text, edge=True)), *found]
    found += [Secret(kind, start, end) for kind, start, end in announced(text, lowered)]
    return joined(found, echoes(text, found)) if found else found


def joined(*findings: Iterable[Secret]) -> list[Secret]:
    """Those of several detectors, in order; where they overlap they are one, of the kind that begins first and is longest."""
    kept: list[Secret] = []
    for secret in sorted((s for found in findings for s in found), key=lambda secret: (secret.start, -secret.end)):
        if kept and secret.start < kept[-1].end:
            kept[-1] = Secret(kept[-1].kind, kept[-1].start, max(kept[-1].end, secret.end))
        else:
            kept.append(secret)
    return kept


def is_telling(value: str) -> bool:
    """Whether a secret's value is recognised without what announced it."""
    return len(value) >= ECHO and (is_mixed(value) or _is_mixed_case(value))


def echoes(text: str, found: Iterable[Secret]) -> Iterator[Secret]:
    """Where the values of found secrets stand again, without what announced them. Short ones and words are left alone."""
    values = {text[secret.start : secret.end]: secret.kind for secret in found}
    for value, kind in values.items():
        if is_telling(value):
            start = text.find(value)
            while start >= 0:
                yield Secret(kind, start, start + len(value))
                start = text.find(value, start + len(value))


def _is_inside(text: str, start: int) -> bool:
    """Within a longer word; an escaped character, a percent sign's digits and a terminal's colour are none."""
    return text[start - 1 : start].isalnum() and not EDGE.search(text[max(0, start - 6) : start])


def mask(text: str, found: list[Secret], digest: Callable[[str], str]) -> str:
    """The text with `[redacted:kind#1a2b]` in each secret's place."""
    for secret in reversed(found):
        mark = digest(text[secret.start : secret.end])[:DIGITS]
        text = f"{text[: secret.start]}[redacted:{secret.kind}#{mark}]{text[secret.end :]}"
    return text


def _lowered(text: str) -> str:
    """As long as the text: one letter of Turkish is two in lower case."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else "".join(c.lower() if c.isascii() else c for c in text)


def _shaped(rule: Rule, text: str, edge: bool = False) -> Iterator[Secret]:
    group = 1 if rule.pattern.groups else 0
    for match in rule.pattern.finditer(text):
        if (rule.check is None or rule.check(match[group])) and not (edge and _is_inside(text, match.start())):
            yield Secret(rule.name, match.start(group), match.end(group))
