"""A cell's file that is not what was written: always found, never read as something else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kramers_grok.core.exceptions import DamagedFileError
from kramers_grok.studies.files.netcdf import read_netcdf, verify, write_netcdf
from kramers_grok.studies.files.store import Store

DATA = xr.Dataset(
    {"exit_time": ("replica", np.linspace(0.0, 9.0, 300)), "escaped": ("replica", np.arange(300) % 2 == 0)},
    coords={"lr": 0.1, "engine": "sgd"},
    attrs={"status": "finished", "notes": ["one", "two"]},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("damage") / "out", {"seed": 0}, name="demo")


@pytest.fixture(scope="module")
def content(store: Store) -> bytes:
    store.write("whole", {}, DATA)
    return store.path("whole", {}).read_bytes()


def found(store: Store, content: bytes) -> bool:
    """Whether a cell with this content is put aside; if it is not, it holds the true data."""
    path = store.path("a", {})
    path.write_bytes(content)
    try:
        data = store.read("a", {})
    except DamagedFileError as error:
        damage = error
    else:
        xr.testing.assert_identical(data, DATA)
        path.unlink()
        return False
    assert not path.exists()
    assert damage.kept is not None
    assert damage.kept.read_bytes() == content
    damage.kept.unlink()
    return True


def test_the_whole_file_is_read(store: Store, content: bytes) -> None:
    assert not found(store, content)


def test_a_file_cut_at_any_length_is_found(store: Store, content: bytes) -> None:
    ends = range(len(content) - 150, len(content))  # through the footer, byte by byte
    lengths = sorted({0, 1, 7, 8, 9, 48, 96, 512, 2048, *range(0, len(content), len(content) // 60), *ends})
    assert all(found(store, content[:length]) for length in lengths)


def test_a_bit_turned_over_anywhere_is_found(store: Store, content: bytes) -> None:
    @example(position=0, bit=0)
    @example(position=len(content) - 1, bit=0)
    @example(position=len(content) - 73, bit=3)  # the footer's first byte
    @example(position=len(content) - 60, bit=5)  # in the digest
    @settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(position=st.integers(0, len(content) - 1), bit=st.integers(0, 7))
    def turned(position: int, bit: int) -> None:
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        assert found(store, bytes(changed))

    turned()


def test_lost_blocks_and_alien_ends_are_found(store: Store, content: bytes) -> None:
    for start in range(0, len(content), 4096):  # a disk's block that came back as zeros, the last one with the footer
        block = content[start : start + 4096]
        if any(block):
            assert found(store, content[:start] + bytes(len(block)) + content[start + 4096 :])
    assert found(store, content + b"more")
    assert found(store, content + content)
    assert found(store, b"")
    assert found(store, bytes(len(content)))
    assert found(store, os.fsencode("not netCDF at all\n") * 100)


def test_without_the_checksum_a_turned_bit_would_be_read_as_data(store: Store, content: bytes, tmp_path: Path) -> None:
    """Why there is a checksum: HDF5 itself does not see a bit turned over among the numbers."""
    place = content.index(np.float64(DATA.exit_time[250]).tobytes())
    changed = bytearray(content)
    changed[place + 6] ^= 1
    (tmp_path / "bare.nc").write_bytes(changed[:-73])
    wrong = read_netcdf(tmp_path / "bare.nc")
    assert float(wrong.exit_time[250]) != float(DATA.exit_time[250])
    assert found(store, bytes(changed))


def test_exports_are_checked_too(tmp_path: Path) -> None:
    tree = xr.DataTree.from_dict({"/": DATA, "/sgd": DATA})
    path = tmp_path / "study.nc"
    write_netcdf(tree, path)
    assert verify(path)
    xr.testing.assert_identical(read_netcdf(path), tree)
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DamagedFileError, match=r"not what its checksum says(.|\n)*Delete it") as caught:
        read_netcdf(path)
    assert caught.value.path == path
    assert path.exists()  # only a store puts files aside: an export may be all there is


def test_a_directory_that_cannot_be_changed_keeps_its_damaged_file(
    store: Store, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.path("a", {})
    path.write_bytes(content[:-100])

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(DamagedFileError, match="Delete it"):
        store.read("a", {})
    assert path.exists()
    path.unlink()


def test_a_passing_trouble_is_not_taken_for_damage(
    store: Store, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little memory, or too many open files: the cell is sound and stays where it is."""
    path = store.path("a", {})
    path.write_bytes(content)
    for error in (MemoryError(), OSError(24, "Too many open files"), PermissionError(13, "Permission denied")):

        def trouble(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(xr, "open_dataset", trouble)
            with pytest.raises(type(error)):
                store.read("a", {})
        assert path.exists()
    xr.testing.assert_identical(store.read("a", {}), DATA)
    path.unlink()
    shutil.rmtree(store.directory / "damaged", ignore_errors=True)
