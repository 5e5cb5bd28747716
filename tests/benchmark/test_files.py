import csv
from dataclasses import dataclass

import pytest

from terralean.benchmark.files import read_table, write_csv, write_table, write_text
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


def test_table_has_the_columns_in_their_order_and_refuses_a_further_one(tmp_path):
    rows = [{"b": 2, "a": 1}, {"a": None, "b": 3}]
    write_table(rows, tmp_path / "table.csv", columns=("a", "b"))
    assert (tmp_path / "table.csv").read_bytes() == b"a,b\n1,2\n,3\n"
    with pytest.raises(ValueError, match="'c'"):
        write_table([{"a": 1, "c": 2}], tmp_path / "table.csv", columns=("a", "b"))
    assert (tmp_path / "table.csv").read_bytes() == b"a,b\n1,2\n,3\n"


def test_table_is_read_again_and_one_that_is_not_there_has_no_rows(tmp_path):
    path = tmp_path / "table.csv"
    assert read_table(path) == []
    write_table([{"a": "ü, b", "b": None}, {"a": 0.5, "b": "two\nlines"}], path, columns=("a", "b"))
    assert read_table(path) == [{"a": "ü, b", "b": ""}, {"a": "0.5", "b": "two\nlines"}]


def test_file_that_cannot_be_written_is_named_and_nothing_stays(tmp_path):
    (tmp_path / "speed.csv").mkdir()
    with pytest.raises(OutputFailed, match=r"speed\.csv could not be written: .*; choose another path"):
        write_text(tmp_path / "speed.csv", "words")
    assert [p.name for p in tmp_path.iterdir()] == ["speed.csv"]
