"""Plain rows: what comes back, checksums, and what is left of a file whose writer was killed."""

import zlib

import numpy as np
import pytest

from terralean.raster.rows import RowFile


def values(bands=3, height=7, width=5, dtype="uint16"):
    return np.arange(bands * height * width, dtype=dtype).reshape(bands, height, width)


def file(path, *, dtype="uint16"):
    return RowFile(path, width=5, bands=3, dtype=dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_rows_come_back_however_they_were_added(tmp_path, dtype):
    array = values(dtype=dtype)
    rows = file(tmp_path / "rows", dtype=dtype)
    for part in (slice(0, 3), slice(3, 3), slice(3, 7)):
        rows.append(array[:, part])
    assert rows.height == 7
    np.testing.assert_array_equal(rows.read(0, 7), array)
    np.testing.assert_array_equal(rows.read(2, 3), array[:, 2:5])
    assert (tmp_path / "rows").read_bytes() == array.swapaxes(0, 1).tobytes()


def test_a_checksum_is_that_of_the_bytes_of_rows(tmp_path):
    rows, array = file(tmp_path / "rows"), values()
    first = rows.append(array[:, :4])
    second = rows.append(array[:, 4:])
    assert (rows.checksum(0, 4), rows.checksum(4, 3), rows.checksum(0, 0)) == (first, second, 0)
    assert first == zlib.crc32(array[:, :4].swapaxes(0, 1).tobytes())
    assert rows.checksum(4, 4) is None  # there are seven


def test_another_program_goes_on_after_the_last_whole_row(tmp_path):
    rows = file(tmp_path / "rows")
    rows.append(values())
    rows.close()
    with (tmp_path / "rows").open("ab") as torn:
        torn.write(b"half a row")
    again = file(tmp_path / "rows")
    assert again.height == 7
    again.cut(6)
    again.append(values()[:, :1])
    np.testing.assert_array_equal(again.read(0, 9), np.concatenate([values()[:, :6], values()[:, :1]], axis=1))


def test_rows_of_another_shape_are_a_bug_of_ours(tmp_path):
    rows = file(tmp_path / "rows")
    for wrong in (values(width=4), values(bands=2), values(dtype="uint8")):
        with pytest.raises(AssertionError):
            rows.append(wrong)
