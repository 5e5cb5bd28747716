import csv
from dataclasses import dataclass

import pytest

from terralean.benchmark.files import write_csv, write_text
from terralean.errors import OutputFailed


@dataclass(frozen=True, kw_only=True)
class Line:
    name: str
    value: float | None = None


def test_file_holds_every_field_of_every_row(tmp_path):
    path = tmp_path / "new" / "folder" / "speed.csv"
    write_csv([Line(name="a, b", value=12.5), Line(name="c")], path, kind=Line)
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"name": "a, b", "value": "12.5"}, {"name": "c", "value": ""}]
    assert [p.name for p in path.parent.iterdir()] == ["speed.csv"]


def test_no_rows_leave_a_header(tmp_path):
    write_csv([], tmp_path / "empty.csv", kind=Line)
    assert (tmp_path / "empty.csv").read_text() == "name,value\n"


def test_file_that_cannot_be_written_is_named_and_nothing_stays(tmp_path):
    (tmp_path / "speed.csv").mkdir()
    with pytest.raises(OutputFailed, match=r"speed\.csv could not be written: .*; choose another path"):
        write_text(tmp_path / "speed.csv", "words")
    assert [p.name for p in tmp_path.iterdir()] == ["speed.csv"]
