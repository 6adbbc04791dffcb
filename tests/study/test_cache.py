"""The feature cache: whole entries or none, one writer at a time, bounded."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tapray.study.cache import FeatureCache, read

SHAPE = (6, 2, 3, 4)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", 1e9)


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float16)


def fill(cache: FeatureCache, *keys: str) -> list[str]:
    """Fills what is missing of the keys, with values of their own; returns what was."""
    with cache.filling(dict.fromkeys(keys, SHAPE)) as blanks:
        for key, path in blanks.items():
            np.save(path, values(len(key)))
    return list(blanks)


def test_an_entry_is_an_arrow_file_of_tensors_that_is_mapped(cache: FeatureCache) -> None:
    assert fill(cache, "a", "bb") == ["a", "bb"]
    found = read(cache.path("bb"))
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, values(2))
    found[:] = 0  # a copy of its own: the file stays
    np.testing.assert_array_equal(read(cache.path("bb")), values(2))
    with pa.memory_map(str(cache.path("a"))) as source:  # by Arrow alone
        batch = pa.ipc.open_file(source).get_batch(0)
        assert batch.schema.field("features").type == pa.fixed_shape_tensor(pa.float16(), SHAPE[1:])
        np.testing.assert_array_equal(batch["features"].to_numpy_ndarray(), values(1))


def test_what_is_there_is_not_made_again(cache: FeatureCache) -> None:
    fill(cache, "a")
    before = cache.path("a").stat().st_mtime_ns
    assert fill(cache, "a", "ccc") == ["ccc"]
    assert cache.path("a").stat().st_mtime_ns == before
    cache.drop(["a"])
    assert fill(cache, "a", "ccc") == ["a"]


def test_a_failure_leaves_nothing(cache: FeatureCache) -> None:
    with pytest.raises(ZeroDivisionError), cache.filling({"a": SHAPE}):
        raise ZeroDivisionError
    assert not [path for path in cache.folder.iterdir() if path.suffix != ".lock"]
    assert fill(cache, "a") == ["a"]


def test_those_used_longest_ago_are_evicted_first(cache: FeatureCache) -> None:
    fill(cache, "a", "bb", "ccc")
    size = cache.path("a").stat().st_size
    for age, key in enumerate(("bb", "a", "ccc")):  # bb the oldest
        os.utime(cache.path(key), (100 + age, 100 + age))
    mapped = read(cache.path("bb"))
    small = FeatureCache(cache.folder, 3.5 * size)
    fill(small, "dddd")
    assert sorted(path.stem for path in cache.folder.glob("*.arrow")) == ["a", "ccc", "dddd"]
    np.testing.assert_array_equal(mapped, values(2))  # whoever has it mapped keeps it
    fill(FeatureCache(cache.folder, 0), "a", "ccc")
    assert sorted(path.stem for path in cache.folder.glob("*.arrow")) == ["a", "ccc"]  # its own stay


def _slow(folder: Path, out: multiprocessing.Queue[int]) -> None:
    cache, made = FeatureCache(folder, 1e9), 0
    with cache.filling({"a": SHAPE, "bb": SHAPE}) as blanks:
        for key, path in blanks.items():
            time.sleep(0.3)
            np.save(path, values(len(key)))
            made += 1
    out.put(made)


def test_of_writers_at_once_one_writes(cache: FeatureCache) -> None:
    context = multiprocessing.get_context("fork")
    out: multiprocessing.Queue[int] = context.Queue()
    processes = [context.Process(target=_slow, args=(cache.folder, out)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert sorted(out.get(timeout=5) for _ in processes) == [0, 0, 2]
    np.testing.assert_array_equal(read(cache.path("a")), values(1))


def test_what_somebody_holds_is_not_evicted(cache: FeatureCache) -> None:
    small = FeatureCache(cache.folder, 1.0)
    with small.filling({"a": (4, 8)}):
        pass
    other = FeatureCache(cache.folder, 1.0)
    with small.held(["a"]):
        with other.filling({"b": (4, 8)}):
            pass
        assert small.path("a").exists()
        other.drop(["a", "b"])  # asked to compute all anew
        assert small.path("a").exists()
        assert not small.path("b").exists()
    with other.filling({"c": (4, 8)}):
        pass
    assert [path.stem for path in cache.folder.glob("[!.]*.arrow")] == ["c"]


def test_what_is_evicted_while_others_fill_is_not_asked_for(cache: FeatureCache) -> None:
    with cache.filling({"a": (4, 8)}):
        pass

    class Evicting(FeatureCache):
        """Another study evicts what was there a moment ago."""

        @contextmanager
        def _locked(self, name: str, kind: int) -> Iterator[None]:
            with super()._locked(name, kind):
                self.path("a").unlink(missing_ok=True)
                yield

    with Evicting(cache.folder, 1e9).filling({"a": (4, 8), "b": (4, 8)}) as blanks:
        assert set(blanks) == {"b"}  # nobody holds the lock of a


def test_what_a_killed_process_has_left_is_removed(cache: FeatureCache) -> None:
    cache.folder.mkdir(parents=True, exist_ok=True)
    for part in (".dead.npy", ".late.arrow"):
        (cache.folder / part).write_bytes(bytes(100))
    with cache.filling({"a": (4, 8)}) as blanks:
        assert blanks["a"].exists()
        with cache.filling({"b": (4, 8)}):  # another study: what is being filled stays
            assert blanks["a"].exists()
    left = {path.name for path in cache.folder.iterdir() if path.suffix in (".npy", ".arrow")}
    assert left == {"a.arrow", "b.arrow"}
