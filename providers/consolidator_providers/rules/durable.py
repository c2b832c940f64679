"""Whether a sentence states something that will still matter, by plain signals that add up. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from consolidator import words
from consolidator_providers.rules.lexicon import ADVERB, MONTH, PAST, PRESENT, WEEKDAY, listed

DURABLE = 2.0  # sum of signals from which a sentence is kept

GREETING = re.compile(
    r"(?:good (?:morning|evening|night|afternoon|luck|to (?:know|hear|see))|hi|hello|hey|morning|evening|thanks?|thank you|"
    r"bye|welcome|congrat\w*|happy (?:new|birthday|first)|see you|take care|noted|coming up|sounds|nice|lovely|awesome|great|"
    r"cool|wow|love (?:that|the|this|your|all|it|seeing|how)|totally|exactly|absolutely|agreed?|glad|"
    r"poor \w+\b(?! had)|bon|you(?:['\u2019]\w+)?|that(?:['\u2019]s| is| was| sounds)|what an?|how)\b",
    re.IGNORECASE,
)
REQUEST = re.compile(
    r"(?:put|mind|look|listen|come|sit|let['\u2019]?s|let me|don['\u2019]t|please|have some|tell|give|guess|sleep|hang|"
    r"wait|go|keep|take|shall|imagine|remember|check|try|enjoy|believe|forget|show|say|send|ignore|open|delete)\b(?! me to be\b)",
    re.IGNORECASE,
)
UNREAL = re.compile(
    r"\b(?:if|wish|would|could|unless)\b|\bi['\u2019]d (?!rather|always rather)|['\u2019]d (?:have|be)\b", re.IGNORECASE
)
RHETORIC = re.compile(
    r"\b(?:nobody would|never mind|as if|who knows|i (?:still )?can['\u2019]?t believe|i['\u2019]ll scream|that must|"
    r"had better)\b",
    re.IGNORECASE,
)
DANGLING = re.compile(r"(?:it|he|she|they|that|this|these|those|them|her|his|their|its|one|both|same)\b", re.IGNORECASE)
LEANING = re.compile(
    r"^(?:apart from|not (?:even|a|any|until)|without|\d|twice|once a|on the|"
    r"i was thinking|(?:i|we) (?:do|did|don['\u2019]t|didn['\u2019]t)\b[.,])|\bthe one with\b|\bthere[.,!]|\bthere$",
    re.IGNORECASE,
)
OBJECT = re.compile(r"\b(?:it|him|them|they|he|she|its|his|their|her|one of them|that one)\b", re.IGNORECASE)
THING = re.compile(r"\b(?i:the|a|an|my|our|your|this|that|some|no)\s+\w{3,}|\b(?!this\b|was\b|always\b|has\b|does\b)[a-z]{3,}s\b")

SIGNALS: tuple[tuple[float, re.Pattern[str]], ...] = tuple(
    (weight, re.compile(pattern, re.IGNORECASE))
    for weight, pattern in (
        (2.0, r"\b(?:love|loves|hate|hates|prefer|prefers|favou?rite|can['\u2019]?t (?:stand|bear|eat|watch|drink|sit)|"
              r"always need|allergic|allergy|terrified|"
              r"afraid of|scared of|(?:always |would |['\u2019]d )?rather|fond of|enjoy|dislike|like \w+ (?:so )?much|passionate|"
              r"keen on|(?:i|we) (?:\w+ly |just |also )?like|(?:i|we) only)\b"),
        (2.0, r"\b(?:no longer|not any ?more|any ?more|used to|gave up|given up|giving up|stopp?ed|quit|switched|moved|moving|"
              r"started|left|back (?:at|to)|from now on|instead|these days|no more|again|after all|cancelled|canceled|"
              r"fell through|not happening|never went|didn['\u2019]t happen|signed up|getting married|engaged|"
              r"divorced|born|died|promoted|retired|graduated|adopted|pregnant)\b"),
        (1.5, r"\d|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|"
              r"sixty|hundred|thousand|half)\b"),
        (1.5, rf"\b(?:{MONTH}|(?:{WEEKDAY})s?)\b"),
        (1.5, r"\b(?:every|each|daily|weekly|twice|always|never|usually|regularly|on nights|on days|"
              r"since|for years|for ages|years)\b"),
        (1.0, r"\b(?:sister|brother|mother|father|mum|mom|dad|wife|husband|partner|fianc\w+|girlfriend|boyfriend|son|"
              r"daughter|kids?|children|parents?|grand\w+|cousin|aunt|uncle|niece|nephew|friend|colleague|boss|landlady|landlord|neighbours?|neighbors?|dog|cat|pets?)\b"),
        (1.0, r"\b\d[\d.,]* (?:pounds?|euros?|dollars?|kilos?|kg|km|miles?|milligrams?|mg|a (?:month|year|week))\b|"
              r"[£$€]\d|\bfor \d"),
        (1.0, r"\bi['\u2019]m (?:on|taking|in charge|at the)\b|\btimes a (?:day|week|month|year)\b"),
        (1.0, r"\b(?:is|are|was|isn['\u2019]t|i['\u2019]m|am) (?:called|named|an?|my|our|the)\b|\bmy name\b|\bcalled [A-Z]"),
        (1.0, r"\b(?:job|career|degree|school|university|college|allergy|disease|medication|rent|salary|birthday|wedding|"
              r"married|surgery|vegan|vegetarian|vegetarians|physio|doctor|deposit|orchestra|band|team|class|course|house|flat|trip|holiday|vacation)\b"),
        (1.0, r"\b(?:last|next) (?:week|weekend|month|year|summer|spring|autumn|fall|winter)\b|"
              r"\byesterday\b|\btomorrow\b|\bago\b"),
        (1.0, r", who [a-z]+s\b"),
        (-1.0, r"\b(?:tired|freezing|kidding|joking|glad|so sorry|heartbroken|can you hear|pick you up)\b"),
        (-1.5, r"\b(?:this|that) (?:box|one|thing|song|stuff)\b|\bover there\b"),
    )
)
RELATION = next(pattern for _, pattern in SIGNALS if "sister|" in pattern.pattern)
NOBODY = words.STOP | {"i've", "i'll", "i'd", "it's", "then", "now", "once", "poor"}
PREFERENCE = SIGNALS[0][1]
CHANGE_OR_DATE = re.compile(f"{SIGNALS[1][1].pattern}|{SIGNALS[3][1].pattern}", re.IGNORECASE)
ADDRESSED = re.compile(r"\byou", re.IGNORECASE)
TAUTOLOGY = re.compile(r"(\w+) (?:is|are) \1[.!]*$", re.IGNORECASE)
STATES = re.compile(
    r"\b(?:i|we)(?:['\u2019](?:m|ve|re))?\s+(?:[a-z]+ly |still |just |also |only |never |always |already )*([a-z]+)",
    re.IGNORECASE,
)
TRIVIAL = listed(
    """
    hope thinking think guess know mean see say wish thank agree understand look hear feel bet love can could would will do
    did was am said thought
    """
)
SPECIFIC = re.compile(r"\d|\b(?:every|twice|once|never|always|two|three|four|five|six|seven|eight|nine|ten)\b", re.IGNORECASE)
SUBJECT = re.compile(
    r"(?:(?:The|My|Our|Mr|Mrs|Ms|Dr)\.? )?(?P<noun>[A-Z]?[\w'\u2019-]+)(?: [A-Z][\w'\u2019-]+)*"
    r"(?:,? (?:still|now|also|just|always|only|never|\w+ly))* (?P<verb>[a-z'\u2019]+)"
)
LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
COPULA = listed(
    """
    is are was were am has have had isn't aren't wasn't weren't hasn't it's he's she's they're i'm i've we're we've
    """
)


FIRST = frozenset({"i", "i'm", "i've", "i'll", "i'd"})
# Small words that no neighbouring language shares.
ENGLISH = words.STOP - listed("a an am as be can do has he her him his in is me no not of on or so to up us was we will")
NO_SUBJECT = words.STOP | ADVERB | listed("what who there here not nothing nobody everyone everything")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence's score, and why it is not durable where it is not."""

    score: float
    reason: str = ""
    fragment: bool = False

    @property
    def durable(self) -> bool:
        return not self.reason


def judge(sentence: str, *, answer: bool = False) -> Verdict:
    """Judge a sentence without its lead-in. `answer`: it answers a question, so that a fragment can be a statement."""
    if reason := _excluded(sentence, answer):
        return Verdict(0.0, reason)
    score = sum(weight for weight, pattern in SIGNALS if pattern.search(sentence)) + _subject_score(sentence)
    if not _english(sentence):
        score += _foreign_score(sentence)
    elif answer and (named(sentence) or SPECIFIC.search(sentence)):
        score += 1.0
    elif not answer and not has_verb(sentence):
        return Verdict(score, "a fragment", fragment=score >= DURABLE)
    return Verdict(score) if score >= DURABLE else Verdict(score, "small talk, or nothing that lasts")


def _excluded(sentence: str, answer: bool) -> str:
    if "⟦⟧" in sentence:
        return "quotes somebody else's words"
    if sentence.rstrip("\"'”\u2019)! ").endswith(("?", "？")) or "?" in sentence or "？" in sentence:
        return "a question"
    if REQUEST.match(sentence) and (not PREFERENCE.search(sentence) or ADDRESSED.search(sentence)):
        return "a request"
    if GREETING.match(sentence):
        return "a greeting or a reaction"
    if (UNREAL.search(sentence) and not PREFERENCE.search(sentence)) or RHETORIC.search(sentence) or TAUTOLOGY.match(sentence):
        return "a wish, a condition or a figure of speech"
    if len(words.WORD.findall(sentence)) < (2 if answer else 3) and len(sentence) < 10:
        return "too short to state anything"
    return ""


def _subject_score(sentence: str) -> float:
    score = 1.0 if named(sentence) else 0.0
    verb = STATES.search(sentence)
    if (verb and _tells(verb[1].lower())) or opens_with_subject(sentence):
        score += 1.0
    elif has_verb(sentence) and score:
        score += 0.5
    return score


def _someone(text: str) -> bool:
    return any(word[0].isupper() and word.casefold() not in NOBODY for word in words.WORD.findall(text))


def starts_in_the_air(sentence: str) -> bool:
    """Whether its very beginning leans on what was said before, or it asks for something about "it"."""
    return bool(DANGLING.match(sentence) or LEANING.match(sentence) or (REQUEST.match(sentence) and OBJECT.search(sentence)))


def _tells(verb: str) -> bool:
    return verb not in TRIVIAL and (verb in PRESENT or verb in PAST or verb.endswith(("ed", "ing")))


def opens_with_subject(sentence: str) -> bool:
    """Whether it begins with a name or a noun of its own and a verb: "Idris is", "Anna Keller still sits"."""
    opened = SUBJECT.match(sentence)
    if not opened or DANGLING.match(sentence):
        return False
    noun = opened["noun"].casefold()
    return noun not in NO_SUBJECT and not noun.endswith("ly") and has_verb(f"x {opened['verb']}")


def named(sentence: str) -> bool:
    """Whether it names somebody or something: a capital inside that is not "I"."""
    return any(name.casefold().replace("\u2019", "'") not in FIRST for name in words.names(sentence))


def has_verb(sentence: str) -> bool:
    tokens = re.findall(r"[a-z'\u2019]+", sentence.lower())
    return any(_verb(token.replace("\u2019", "'")) for token in tokens if token not in ADVERB)


def _verb(token: str) -> bool:
    """Whether it can be a verb: a finite form that the lists know, or a regular past."""
    bases = {token, token.removesuffix("s"), token.removesuffix("es"), token.removesuffix("ies") + "y"}
    return token in COPULA or token in PAST or bool(bases & PRESENT) or (token.endswith("ed") and len(token) > 4)


def dangling(sentence: str) -> bool:
    """Whether it leans on something said before: a pronoun without a noun before it, or a fragment without a verb."""
    if DANGLING.match(sentence) or LEANING.search(sentence) or not has_verb(sentence):
        return True
    found = OBJECT.search(sentence)
    if not found:
        return False
    before = sentence[: found.start()]
    if found[0].lower() in ("him", "he", "she", "her", "his"):
        return not RELATION.search(before) and not _someone(before)
    return not THING.search(RELATION.sub("", before))


def _english(sentence: str) -> bool:
    tokens = words.WORD.findall(sentence.casefold())
    return (len(tokens) < 4 and sentence.isascii()) or any(token in ENGLISH for token in tokens) or has_verb(sentence)


def _foreign_score(sentence: str) -> float:
    """Another language: names and numbers are all that is understood, so a longer sentence counts as a statement."""
    latin = bool(LATIN.search(sentence))
    return 1.0 if latin and len(sentence.split()) >= 4 else 2.0 if not latin and len(sentence) >= 10 else 0.0
