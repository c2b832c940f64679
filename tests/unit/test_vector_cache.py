from __future__ import annotations

import asyncio
import sqlite3
from array import array
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from consolidator.errors import EmbedderUnavailable, StoreError
from consolidator.models import Vector
from consolidator.testing.models import HashEmbedder
from consolidator_providers.vector_cache import CachedEmbedder, MemoryVectors, VectorCache, open_vectors

TEXTS = ["the disk was full", "Alice lives in Berlin", "tea, not coffee"]


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "cache" / "vectors.sqlite" if request.param == "file" else None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


@pytest.fixture
async def cached(path: Path | None) -> AsyncIterator[CachedEmbedder]:
    embedder = CachedEmbedder(HashEmbedder(), path)
    yield embedder
    await embedder.close()


async def asked(file: Path | None, texts: Sequence[str], *, rows: int | None = None) -> tuple[list[Vector], int]:
    """The vectors, and how many texts the embedder itself had to be asked for."""
    inner = HashEmbedder()
    embedder = CachedEmbedder(inner, file, rows=rows)
    vectors = await embedder.embed(texts)
    await embedder.close()
    return vectors, inner.embedded


def files_of(file: Path) -> list[Path]:
    return [path for path in file.parent.iterdir() if path.name.startswith(file.name)]


def bytes_of(file: Path) -> bytes:
    return b"".join(path.read_bytes() for path in files_of(file))


def overwrite(file: Path, data: bytes) -> None:
    file.write_bytes(data)


async def test_a_text_is_embedded_once(path: Path | None) -> None:
    inner = HashEmbedder()
    embedder = CachedEmbedder(inner, path)
    first = await embedder.embed([*TEXTS, TEXTS[0]])
    assert inner.embedded == 3
    assert await embedder.embed([TEXTS[2], "new", TEXTS[0]]) == [first[2], (await embedder.embed(["new"]))[0], first[0]]
    assert inner.embedded == 4
    await embedder.close()


async def test_answers_are_the_callers_own(cached: CachedEmbedder) -> None:
    one, same = await cached.embed([TEXTS[0], TEXTS[0]])
    one.clear()
    assert await cached.embed([TEXTS[0]]) == [same]


async def test_the_next_process_finds_the_vectors(file: Path) -> None:
    fresh, _ = await asked(file, TEXTS)
    assert await asked(file, TEXTS) == (fresh, 0)


async def test_another_embedder_finds_nothing(file: Path) -> None:
    await asked(file, TEXTS)
    other = HashEmbedder(32)
    embedder = CachedEmbedder(other, file)
    assert [len(vector) for vector in await embedder.embed(TEXTS)] == [32] * 3
    await embedder.close()


async def test_no_text_is_in_the_file(file: Path) -> None:
    await asked(file, ["Alice lives in Berlin"])
    assert b"Berlin" not in bytes_of(file)


async def test_forgotten_texts_are_embedded_anew(path: Path | None) -> None:
    inner = HashEmbedder()
    embedder = CachedEmbedder(inner, path)
    await embedder.embed(TEXTS)
    await embedder.forget([TEXTS[1], "never seen"])
    await embedder.embed(TEXTS)
    assert inner.embedded == 4
    await embedder.close()


async def test_no_byte_of_a_forgotten_vector_stays(file: Path) -> None:
    embedder = CachedEmbedder(HashEmbedder(), file)
    gone, stays = (array("f", vector).tobytes() for vector in await embedder.embed(TEXTS[:2]))
    assert all(packed in bytes_of(file) for packed in (gone, stays))
    await embedder.forget(TEXTS[:1])
    assert gone not in bytes_of(file)
    assert stays in bytes_of(file)
    await embedder.close()


class SlowEmbedder(HashEmbedder):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.resume = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.reached.set()
        await self.resume.wait()
        return await super().embed(texts)


async def test_what_is_forgotten_while_it_is_embedded_is_not_kept(path: Path | None) -> None:
    slow = SlowEmbedder()
    embedder = CachedEmbedder(slow, path)
    late = asyncio.create_task(embedder.embed(TEXTS))
    await slow.reached.wait()
    await embedder.forget([TEXTS[0]])
    slow.resume.set()
    assert len(await late) == 3
    await embedder.embed(TEXTS)
    assert slow.embedded == 4
    await embedder.embed(TEXTS)
    assert slow.embedded == 4
    await embedder.close()


async def test_a_failing_embedder_leaves_no_trace(path: Path | None) -> None:
    inner = HashEmbedder()
    embedder = CachedEmbedder(inner, path)
    inner.down = True
    with pytest.raises(EmbedderUnavailable):
        await embedder.embed(TEXTS)
    inner.down = False
    assert len(await embedder.embed(TEXTS)) == 3
    await embedder.close()


async def test_the_file_holds_the_newest_rows(file: Path) -> None:
    embedder = CachedEmbedder(inner := HashEmbedder(), file, rows=10)
    for number in range(25):
        await embedder.embed([f"note {number}"])
    await embedder.embed([f"note {number}" for number in range(15, 25)])
    assert inner.embedded == 25
    await embedder.embed(["note 0"])
    assert inner.embedded == 26
    await embedder.close()


def test_what_was_written_last_goes_with_a_process_that_dies(file: Path) -> None:
    before = VectorCache(file)
    before.write({b"kept": b"vector 1"})
    before.keep()
    before.close()
    dies = VectorCache(file)
    dies.write({b"not kept": b"vector 2"})
    dies.close()
    again = VectorCache(file)
    assert again.read([b"kept", b"not kept"]) == {b"kept": b"vector 1"}
    assert b"vector 2" not in bytes_of(file)
    again.close()


def test_nothing_goes_with_a_process_that_lives(file: Path) -> None:
    lives, comes = VectorCache(file), VectorCache(file)
    lives.write({b"1": b"vector 1"})
    comes.write({b"2": b"vector 2"})
    comes.keep()
    comes.close()
    third = VectorCache(file)
    assert third.read([b"1", b"2"]) == {b"1": b"vector 1", b"2": b"vector 2"}
    third.close()
    lives.close()
    last = VectorCache(file)
    assert last.read([b"1", b"2"]) == {b"2": b"vector 2"}
    last.close()


def test_memory_keeps_what_was_used_last() -> None:
    vectors = MemoryVectors(rows=2)
    vectors.write({b"a": b"1", b"b": b"2"})
    vectors.read([b"a"])
    vectors.write({b"c": b"3"})
    assert vectors.read([b"a", b"b", b"c"]) == {b"a": b"1", b"c": b"3"}


async def test_more_texts_than_one_question_to_the_file_holds(file: Path) -> None:
    texts = [f"note {number}" for number in range(1200)]
    fresh, _ = await asked(file, texts)
    assert await asked(file, texts) == (fresh, 0)


@pytest.mark.parametrize("rubbish", [b"not a database at all" * 400, b"SQLite format 3\x00" + bytes(5000), b"\x00" * 10])
async def test_a_broken_file_is_made_anew(file: Path, rubbish: bytes) -> None:
    overwrite(file, rubbish)
    _, first = await asked(file, TEXTS)
    assert first == 3
    assert (await asked(file, TEXTS))[1] == 0


async def test_a_file_that_breaks_later_is_made_anew(file: Path) -> None:
    await asked(file, [f"note {number}" for number in range(300)])
    overwrite(file, bytes_of(file)[:8192] + b"\xff" * 40_960)
    answers = [await asked(file, TEXTS) for _ in range(3)]
    assert [len(vectors) for vectors, _ in answers] == [3, 3, 3]
    assert answers[-1][1] == 0


async def test_a_lost_file_costs_nothing_but_work(file: Path) -> None:
    embedder = CachedEmbedder(HashEmbedder(), file)
    await embedder.embed(TEXTS)
    for path in files_of(file):
        path.unlink()
    assert len(await embedder.embed(TEXTS)) == 3
    assert len(await embedder.embed(["another"])) == 1
    await embedder.close()


async def test_somebody_elses_database_is_left_alone(file: Path) -> None:
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE notes (text TEXT)")
    other.execute("INSERT INTO notes VALUES ('mine')")
    other.commit()
    vectors, embedded = await asked(file, TEXTS)
    assert (len(vectors), embedded) == (3, 3)
    embedder = CachedEmbedder(HashEmbedder(), file)
    await embedder.forget(TEXTS)
    await embedder.close()
    assert other.execute("SELECT text FROM notes").fetchall() == [("mine",)]
    other.close()


async def test_a_place_where_no_file_can_be_gives_a_cache_in_memory(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("a file, no folder")
    inner = HashEmbedder()
    embedder = CachedEmbedder(inner, tmp_path / "blocked" / "vectors.sqlite")
    await embedder.embed(TEXTS)
    await embedder.embed(TEXTS)
    assert inner.embedded == 3
    await embedder.close()


async def test_a_locked_file_is_done_without(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = CachedEmbedder(HashEmbedder(), file)
    await embedder.embed(TEXTS[:1])
    monkeypatch.setattr(VectorCache, "write", raise_locked)
    assert len(await embedder.embed(TEXTS)) == 3
    await embedder.close()


async def test_rows_that_cannot_be_removed_take_the_file_with_them(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = CachedEmbedder(HashEmbedder(), file)
    await embedder.embed(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(VectorCache, "drop", raise_locked)
        await embedder.forget(TEXTS[:1])
    assert not files_of(file)
    assert len(await embedder.embed(TEXTS)) == 3
    await embedder.close()


async def test_what_cannot_be_forgotten_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = CachedEmbedder(HashEmbedder(), file)
    await embedder.embed(TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(VectorCache, "drop", raise_locked)
        patch.setattr(Path, "unlink", raise_denied)
        with pytest.raises(StoreError, match="cannot be removed"):
            await embedder.forget(TEXTS[:1])
    await embedder.close()


def raise_locked(*_: object) -> None:
    raise sqlite3.OperationalError("database is locked")


def raise_denied(*_: object, **__: object) -> None:
    raise PermissionError


def test_digests_are_keyed_by_the_file(tmp_path: Path) -> None:
    one, other = open_vectors(tmp_path / "one"), open_vectors(tmp_path / "other")
    assert one.key != other.key
    one.close()
    again = open_vectors(tmp_path / "one")
    assert again.key == one.key
    again.close()
    other.close()


async def test_two_caches_share_a_file(file: Path) -> None:
    one, other = CachedEmbedder(HashEmbedder(), file), CachedEmbedder(inner := HashEmbedder(), file)
    await one.embed(TEXTS)
    await other.embed(TEXTS)
    assert inner.embedded == 0
    await asyncio.gather(*(cache.embed([f"note {n}"]) for n in range(20) for cache in (one, other)))
    await one.close()
    await other.close()


async def test_a_closed_cache_says_so(cached: CachedEmbedder) -> None:
    await cached.close()
    with pytest.raises(EmbedderUnavailable):
        await cached.embed(TEXTS)
    await cached.close()
