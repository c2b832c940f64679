"""Signs that a text from a source of little trust wants to steer its reader. They catch the loud ones alone: what holds against
the quiet ones is structure (trust, scopes, caps), not words.
"""

from __future__ import annotations

import re

HIDDEN = re.compile("[\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]|[\u200b\u2060\ufeff]{2}")
STEERING = re.compile(
    r"\b(?:ignore|disregard|forget|override)\s+(?:all\s+|any\s+|your\s+|the\s+|these\s+|my\s+)*"
    r"(?:previous|prior|above|earlier|existing|system)?\s*(?:instructions?|prompts?|rules|guidelines)\b"
    r"|\b(?:delete|erase|remove|wipe|overwrite)\s+(?:all|every|any|the)\s+(?:\w+\s+)?(?:memor(?:y|ies)|observations?)\b"
    r"|^[^\S\n]*(?:system|assistant)\s*:\s|<\|?(?:im_start|system|/?instructions?)\b",
    re.IGNORECASE | re.MULTILINE,
)


def suspicion(text: str) -> str | None:
    """What is suspicious about a text, in words; None: nothing that a word list can see."""
    if HIDDEN.search(text):
        return "it holds characters that a reader does not see"
    return "it gives orders to the one who reads it" if STEERING.search(text) else None
