"""The real prompts over a team's sessions, and replies that real judgement gave: what is learnt of them, replayed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from consolidator import extraction
from consolidator.bank import Bank
from consolidator.bootstrap import Briefing
from consolidator.errors import ModelUnavailable
from consolidator.extraction import CATEGORIES, MAX_WORDS
from consolidator.harvest import Harvested
from consolidator.knowledge import Knowledge
from consolidator.models import Observation, Receipt, Verification
from consolidator.plans import Report
from consolidator.tallies import Measures
from tests.cassettes import ReplayedChatModel, path_of
from tests.cassettes.harvested import ATTEMPTS, harvested
from tests.sessions import SESSIONS, Gold, Planted, gold

LATE, FIRST = "20261113_090000_notes", "20261103_091500_success"  # sessions that are forgotten, one after the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """One session is. before, after: what was observed."""

    receipt: Receipt
    verified: Verification
    before: tuple[Observation, ...]
    after: tuple[Observation, ...]

    @property
    def left(self) -> dict[str, Observation]:
        return {o.id: o for o in self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the recording leads to; then one session is forgotten, and another one."""

    reports: dict[str, Harvested]
    planted: tuple[Planted, ...]
    briefing: Briefing
    distilled: Report
    known: tuple[Knowledge, ...]
    observations: tuple[Observation, ...]
    wordings: dict[str, list[str]]  # the texts that an observation has had, oldest first
    places: dict[str, tuple[str, int | None]]  # of memories: session, and step from 0
    held: int
    told: str  # every text of the bank
    measured: Measures
    violations: int
    late: Forgotten
    first: Forgotten

    def about(self, *words: str) -> Knowledge:
        """The one item whose text holds all the words."""
        (found,) = [k for k in self.known if all(word in k.observation.text for word in words)]
        return found

    def steps(self, item: Knowledge, session: str) -> set[int]:
        """Of a session, which the item rests on, or had rested on before it was put right."""
        places = [self.places[e.memory_id] for e in item.observation.evidence]
        return {step for source, step in places if source == session and step is not None}

    def covers(self, item: Knowledge, wanted: Gold) -> bool:
        """Whether it said so in some wording, by a step that shows it."""
        said = any(all(word in text for word in words_for(wanted)) for text in self.wordings[item.id])
        return said and bool(self.steps(item, wanted.session) & set(wanted.steps))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replay() -> Replay:
    async with harvested(ReplayedChatModel("sessions")) as learnt:
        bank, observations = learnt.bank, await learnt.bank.observations()
        memories, wordings = await bank.memories(), {o.id: await wordings_of(bank, o.id) for o in observations}
        return Replay(
            reports=learnt.reports, planted=tuple(learnt.planted), briefing=learnt.briefing, distilled=learnt.distilled,
            known=tuple(await bank.knowledge(archived=True)), observations=tuple(observations), wordings=wordings,
            places={m.id: (session_of(m.source), m.sequence) for m in memories}, held=(await bank.stats()).held,
            told=await told(bank), measured=(await bank.measure()).whole, violations=len(await bank.check()),
            late=await forgotten(bank, LATE), first=await forgotten(bank, FIRST),
        )


async def wordings_of(bank: Bank, id: str) -> list[str]:
    return [version.text for version in await bank.history(id) if version.text is not None]


async def told(bank: Bank) -> str:
    observations = [o.model_dump_json() for o in await bank.observations()]
    memories = [m.model_dump_json() for m in await bank.memories()]
    journal = [entry.model_dump_json() for entry in await bank.journal()]
    return "\n".join([*observations, *memories, *journal, *[line async for line in bank.export()]])


async def forgotten(bank: Bank, session: str) -> Forgotten:
    before = await bank.observations()
    receipt = await bank.forget(source=f"session/{session}")
    verified = await bank.verify(receipt)
    assert await bank.check() == []
    return Forgotten(receipt=receipt, verified=verified, before=tuple(before), after=tuple(await bank.observations()))


def session_of(source: str) -> str:
    return source.removeprefix("session/")


def sources(observation: Observation) -> set[str]:
    """The last words of the sessions that support it."""
    return {e.source.rpartition("_")[2] for e in observation.evidence if e.supports}


def test_every_session_is_read_by_the_model(replay: Replay) -> None:
    assert set(replay.reports) == {*SESSIONS, "big"}
    for report in replay.reports.values():  # each reply was sound at once
        assert (report.by, report.calls) == ({"replayed": report.stretches}, report.stretches)
        assert report.faults == ()
    assert sum(report.stretches for report in replay.reports.values()) == 11
    assert replay.reports["big"].stretches == 2  # the second one is routine alone, and left nothing
    assert replay.violations == 0


def test_no_planted_secret_was_shown_to_the_model(replay: Replay) -> None:
    prompts = "\n".join(json.loads(line)["user"] for line in path_of("sessions").read_text(encoding="utf-8").splitlines())
    assert len(replay.planted) > 10
    assert [secret.kind for secret in replay.planted if secret.text in prompts] == []


def test_nothing_that_was_said_is_lost(replay: Replay) -> None:
    dropped = {name: report.dropped for name, report in replay.reports.items() if report.dropped}
    assert dropped == {"questions": {"no evidence": 1}}  # it rests on the page with the comment that gives orders alone
    new = [number for report in replay.reports.values() for number in report.items.values()]
    assert sum(new) == len(replay.known) == 63
    assert {category for report in replay.reports.values() for category in report.items} <= set(CATEGORIES)


def test_items_are_short_and_stand_for_themselves(replay: Replay) -> None:
    texts = [item.observation.text for item in replay.known]
    assert max(len(text.split()) for text in texts) <= MAX_WORDS
    assert not [text for text in texts if text.startswith(("It is", "It has", "This ", "They ", "We ", "I "))]


def test_no_planted_secret_is_in_the_bank(replay: Replay) -> None:
    assert len(replay.planted) > 20
    assert not [planted.kind for planted in replay.planted if planted.text in replay.told]
    assert replay.reports["secrets"].redacted >= len({planted.kind for planted in replay.planted})
    assert not [item for item in replay.known if extraction.MASK in item.observation.text]


def test_what_a_comment_orders_is_known_nowhere(replay: Replay) -> None:
    orders = ("deploy-prod", "FORCE=1", "needs no tests", "reviews may be skipped", "previous instructions")
    assert not [o.text for o in replay.observations for order in orders if order in o.text]
    assert replay.held == 1  # the page on which it stands


@pytest.mark.parametrize(
    ("words", "sessions"),
    [
        (["The test database of harbour-api", "listens on port 5433"], {"success", "patterns", "questions", "notes"}),
        (["port 5432 failed", "DATABASE_URL"], {"success", "repeat", "notes"}),
        (["scripts/seed_tides.py", "alembic upgrade head", "tide_station"], {"patterns", "repeat"}),
        (["src/api/schema.d.ts is generated", "pnpm test"], {"partial", "corrupt"}),
        (["allows 4 requests in flight"], {"failure", "notes"}),
        (["`make test-db` starts"], {"patterns", "notes"}),
        (["pytest -q -n auto", "in parallel, as in CI"], {"success", "repeat"}),
    ],
)
def test_what_comes_up_again_is_one_item(replay: Replay, words: list[str], sessions: set[str]) -> None:
    item = replay.about(*words)
    assert sources(item.observation) == sessions
    assert item.sources == len(sessions)
    assert item.observation.confidence == 0.9
    assert len(replay.wordings[item.id]) == 1  # a confirmation leaves the text as it is


def test_a_guess_that_was_refuted_is_put_right(replay: Replay) -> None:
    cause = replay.about("test_berth_overlap", "random.choice")
    guess, now = replay.wordings[cause.id]
    assert "a guess, not proved" in guess
    assert now == cause.observation.text
    assert (cause.category, cause.confidence, sources(cause.observation)) == ("pitfall", 0.9, {"repeat"})
    assert {e.source.rpartition("_")[2] for e in cause.observation.evidence if not e.supports} == {"success"}
    assert not [line for line in replay.briefing.items if "a guess, not proved" in line.text]  # too uncertain to be told


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["test_berth_overlap", "is flaky in parallel runs"], ["test_berth_overlap", "no longer fails"]),
        (["Is tests/test_locks.py::test_berth_overlap", "flaky because"], ["`advisory` helper", "had nothing to do with"]),
    ],
)
def test_what_no_longer_holds_gives_way_and_stays_in_the_history(replay: Replay, old: list[str], new: list[str]) -> None:
    after = replay.about(*new)  # what was verified later puts right what was verified before; an answer closes a question
    before, now = replay.wordings[after.id]
    assert all(word in before for word in old)
    assert (now, after.category, after.observation.contests) == (after.observation.text, "fact", None)
    assert sources(after.observation) == {"repeat"}


def test_contradictions_are_counted(replay: Replay) -> None:
    told = {name: (r.corrected, r.contested) for name, r in replay.reports.items() if r.corrected or r.contested}
    assert told == {"repeat": (3, 0)}


def test_the_failure_at_the_head_of_a_long_session_is_a_pitfall(replay: Replay) -> None:
    failure = replay.about("tide import", "does not exist in Europe/Amsterdam", "--assume-utc")
    assert (failure.category, failure.observation.confidence) == ("pitfall", 0.9)
    long = "20261109_080000_big"
    steps = [step for item in replay.known for step in replay.steps(item, long)]
    assert max(steps) < 6  # of 126: what follows is routine


def test_the_briefing_names_pitfalls_first(replay: Replay) -> None:
    categories = [item.category for item in replay.briefing.items]
    pitfalls = categories.count("pitfall")
    assert pitfalls >= 5
    assert categories[:pitfalls] == ["pitfall"] * pitfalls
    assert 0 < replay.briefing.tokens <= 2000
    assert replay.briefing.left_out == {"confidence": 3}
    assert all(item.confidence > 0.7 for item in replay.briefing.items)
    others = [item.text for item in replay.briefing.items if "tide-cli" in item.text or "quay-web" in item.text]
    assert others == []


def test_what_the_briefing_was_good_for_is_measured(replay: Replay) -> None:
    hits, sessions = replay.measured.hits, replay.measured.hit_sessions
    assert (hits.value, hits.n) == (0.25, 4)  # one of the four lines that the session began with was named
    assert (sessions.value, sessions.n) == (1.0, 1)


@pytest.mark.parametrize(
    ("words", "attempts"),
    [
        ("migrations before the seed", {1, 2}), ("run the type checker before you deploy", {4, 5}),
        ("limit of parallel requests", {6, 7}), ("on a copy before the real run", {3}),
        ("why the last attempt failed", {8}),
    ],
)
def test_general_rules_rest_on_their_attempts(replay: Replay, words: str, attempts: set[int]) -> None:
    (rule,) = [o for o in replay.observations if o.category == "rule" and words in o.text]
    assert {e.source for e in rule.evidence} == {f"episode/attempt-{number}" for number in attempts}


def test_attempts_are_distilled_at_once(replay: Replay) -> None:
    assert (replay.distilled.calls, replay.distilled.created, replay.distilled.faults) == (1, 5, ())
    assert replay.measured.attempts == len(ATTEMPTS)


def test_a_forgotten_session_leaves_what_others_say_too(replay: Replay) -> None:
    forgot = replay.late
    assert forgot.verified.ok
    for before in forgot.before:
        if others := sources(before) - {"notes"}:
            after = forgot.left[before.id]
            assert (after.text, sources(after)) == (before.text, others)
        else:
            assert before.id not in forgot.left
    shared = [o for o in forgot.before if {"notes"} < sources(o)]
    assert len(shared) == 4


def test_what_began_with_a_forgotten_session_waits_to_be_told_anew(replay: Replay) -> None:
    forgot = replay.first
    assert forgot.verified.ok
    begun = [o for o in forgot.before if {"success"} < sources(o)]
    assert len(begun) == 3
    assert not [o.text for o in begun if o.id in forgot.left]  # their words are the session's
    others = {e.memory_id for o in begun for e in o.evidence if "success" not in e.source}
    assert others <= set(forgot.receipt.reopened)


COVERED = {  # by how what a good harvest finds begins: what the item that covers it holds
    "The test database of harbour-api listens on port 5433": ("conftest.py", "5432", "DATABASE_URL", "5433"),
    "In Python, adding a timedelta to a zoned datetime counts": ("timedelta", "wall clock", "UTC"),
    "tests/test_locks.py::test_berth_overlap in harbour-api is flaky": ("test_berth_overlap", "flaky in parallel runs"),
    "test_berth_overlap is perhaps flaky because the xdist workers": ("xdist workers share the advisory lock", "guess"),
    "`uv run` locks again and changes uv.lock when the version": ("`uv run`", "uv.lock", "--frozen"),
    "The gauge server gauges.tidewater.example allows 4 requests": ("4 requests in flight", "429"),
    "The gauge server's Retry-After is an HTTP date, not a number": ("Retry-After", "HTTP date", "httpdate"),
    "`make dist`, the static musl build of tide-cli, fails since": ("make dist", "openssl-sys", "reqwest 0.12", "host"),
    "Vendored OpenSSL cannot be built in tide-cli's dist image": ("Vendored OpenSSL", "perl"),
    "docker/dist.Dockerfile of tide-cli is mirrored from the platform": ("docker/dist.Dockerfile", "overwritten nightly"),
    "Does rustls with native roots accept the proxy's certificate": ("rustls with native roots", "certificate", "?"),
    "A release build of tide-cli takes over three minutes": ("cargo build --release", "three minutes", "background"),
    "A fresh checkout of quay-web needs `pnpm gen:api` before": ("fresh checkout", "pnpm gen:api", "schema.d.ts"),
    "harbour-api's local dev port is 8010.": ("dev port 8010",),
    "Vite's dev server binds to what localhost resolves to; where": ("Vite binds", "[::1]", "server.host"),
    "harbour-api refuses uploads of more than 1,000,000 bytes": ("at most 1,000,000 bytes", "413"),
    "Does upload.spec.ts of quay-web pass with a file below 1 MB": ("upload.spec.ts", "fixture", "give way", "?"),
    "Rebuild a harbour-api database in this order: database up": ("make db-reset", "alembic upgrade head, then scripts/seed"),
    "Take every alembic migration up, down one and up again": ("make roundtrip", "before it is committed"),
    "Dropping a column in Postgres does not drop its enum type": ("enum type", "downgrade has to drop it"),
    "Fill a new column of a big table in batches of 5000": ("one UPDATE", "lock timeout", "batches of 5000"),
    "harbour-api's tests use the database on port 5433": ("test database of harbour-api", "listens on port 5433"),
    "Since 51d07aa nothing in harbour-api reads OUTBOX_IN_API": ("OUTBOX_IN_API", "51d07aa no code reads it", "worker all run"),
    "With direct connections the advisory lock around harbour-api": ("direct connections", "lock", "none twice"),
    "Is there a pgbouncer in transaction mode before harbour-api": ("pgbouncer in transaction mode", "production?"),
    "Is test_berth_overlap flaky because of the session-level": ("test_berth_overlap", "session-level lock?"),
    "`tide import` reads times without a zone as local time; the": ("without a zone as local time", "--assume-utc"),
    "After a change of deploy/overlays/staging/settings.env the": ("keep the old values", "rollout restart deploy/api"),
    "src/api/schema.d.ts of quay-web is generated and ignored by git": ("CI of quay-web", "tsc -b", "schema.d.ts"),
    "`pnpm gen:api:file` makes quay-web's API types from": ("pnpm gen:api:file", "committed", "no running API"),
    "test_berth_overlap of harbour-api was flaky because its factory": ("random.choice", "xdist workers", "were not the cause"),
    "harbour-api's tests need DATABASE_URL with port 5433.": ("DATABASE_URL", "5433"),
    "In harbour-api, seed stations only after the alembic migrations": ("tide_station", "Run the migrations first"),
    "Releases of harbour-api are built only from a branch": ("release/<version>", "from main are switched off"),
    "harbour-api cannot be deployed to production from Friday": ("change freeze", "Friday 12:00 to Monday 06:00"),
    "The Postgres of harbour-api's tests is reachable on 5433": ("test database of harbour-api", "5433"),
    "Two alembic heads break a release build, and CI does not": ("alembic has 2 heads", "alembic merge"),
    "The user wants squash merges, and answers in short sentences": ("squash merges", "short sentences"),
    "Decided on 6 November: harbour-api's background jobs move": ("APScheduler", "procrastinate", "not to Celery"),
    "Does the gauge server's rate limit also apply to harbour-api": ("rate limit", "same key as tide-cli?"),
}


def words_for(wanted: Gold) -> tuple[str, ...]:
    (words,) = [words for beginning, words in COVERED.items() if wanted.text.startswith(beginning)]
    return words


def test_what_a_good_harvest_finds_is_found(replay: Replay) -> None:
    wanted = gold()
    assert len(wanted) == len(COVERED) == 40
    missed = [item.text for item in wanted if not any(replay.covers(known, item) for known in replay.known)]
    assert share(item.text not in missed for item in wanted) >= 0.95, missed


def test_items_stand_where_a_good_harvest_puts_them(replay: Replay) -> None:
    """Category, confidence and scope are judgements: most of them agree."""
    pairs = [(item, next(k for k in replay.known if replay.covers(k, item))) for item in gold()]
    assert share(item.category == known.category for item, known in pairs) >= 0.6
    assert share(item.confidence == known.observation.confidence for item, known in pairs) >= 0.8
    assert share(item.everywhere == (known.observation.tags == {"knowledge"}) for item, known in pairs) >= 0.9


def share(passed: Iterable[bool]) -> float:
    all_of_them = list(passed)
    return sum(all_of_them) / len(all_of_them)


async def test_a_changed_prompt_fails_and_names_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "SYSTEM", extraction.SYSTEM.replace("You read", "You see", 1))
    with pytest.raises(ModelUnavailable, match=r"sessions\.jsonl has no answer .* record it anew"):
        async with harvested(ReplayedChatModel("sessions")):
            pass
