"""An observation and the memories it rests on as one hit. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from consolidator.ranking import Ranked, order_of

REACH = 1.0  # how far, in deviations, a witness may stand above its statement to be shown as one with it
WELL, SHARE = 2.5, 0.75  # how well a statement answers that takes its witnesses' place: in deviations, and of the best


def fold(ranked: Sequence[Ranked]) -> list[Ranked]:
    """One hit for an observation and its evidence: the statement with its best verbatim witness.

    The hit stands where its witness stood, which the statement has lifted already: so statements that say no more than their
    evidence change nothing. Other evidence is left out, unless it outranks the statement itself. A statement takes its
    witnesses' place where it answers well, and not much worse than they do; else it is left out, and what it told of them is
    in their own scores. One that answers weakly, and whose witnesses are not among the ranked, follows the memories. But what
    a statement has moved on from never stands before it, and one that contradicts more trusted ones is told with its doubt.
    """
    memories = {r.candidate.id: r for r in ranked if r.candidate.kind == "memory"}
    bar = min(WELL, SHARE * max((r.fused for r in ranked), default=0.0))
    last = min((m.base for m in memories.values()), default=math.inf)
    taken: set[str] = set()
    folded = []
    for r in ranked:
        if r.candidate.kind == "memory":
            continue
        past = r.candidate.outdated
        found = [memories[id] for id in r.candidate.evidence | past if id in memories]
        witnesses = [w for w in found if w.candidate.id not in taken]
        one = [w for w in witnesses if w.candidate.id in past or _speaks_for(w, r, bar)]
        if found and not one and (witnesses or r.fused < bar) and not r.candidate.contested:
            continue
        best = min(one, key=order_of, default=None)
        speaks = min((w for w in one if w.candidate.id not in past), key=order_of, default=None)
        taken |= {w.candidate.id for w in witnesses if w in (best, speaks) or w.score <= r.score or w.candidate.id in past}
        r.quote = speaks.candidate.id if speaks else None
        if best:
            r = _at(r, best.base, "stands with its evidence")
        elif not found and r.fused < bar and not r.candidate.contested:
            r = _at(r, min(r.base, last), "answers weakly")
        folded.append(r)
    folded += [r for id, r in memories.items() if id not in taken]
    return sorted(folded, key=order_of)


def _speaks_for(witness: Ranked, r: Ranked, bar: float) -> bool:
    to_be_told = r.candidate.outdated or r.candidate.contested
    return witness.fused - r.fused <= REACH and (bool(to_be_told) or r.fused >= bar)


def _at(r: Ranked, base: float, why: str) -> Ranked:
    if ahead := base - r.base:
        r.terms.append((why, ahead))
        r.weigh()
    return r
