"""Tables are read as spreadsheets write them, or the reason is said."""

import pytest

from terralean.data.table import read_table
from terralean.errors import DatasetError


def test_byte_order_mark_windows_line_ends_quotes_and_short_rows(tmp_path):
    path = tmp_path / "index.csv"
    path.write_bytes('\ufeffpath,label\r\n"a, b.tif",Wälder\r\nc.tif\r\n\r\n'.encode())
    columns, rows = read_table(path)
    assert columns == ["path", "label"]
    assert rows == [{"path": "a, b.tif", "label": "Wälder"}, {"path": "c.tif", "label": ""}]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("path,label\na.tif,Wälder\n".encode("latin-1"), r"is no text in UTF-8 \(.*\); save it as CSV in UTF-8"),
        (b"", "is empty; its first line names the columns"),
        (b"path;label\na.tif;field\n", "is separated by semicolons; save it with commas"),
        (b"path\tlabel\na.tif\tfield\n", "is separated by tabs"),
        (b"path,label\na.tif,field\nb.tif,crop, annual\n", "has 2 columns, and more cells in row 3; put what has a comma"),
        (b"path,label\n" + b"a" * 200_000 + b",field\n", "is no CSV: field larger than field limit"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, content, expected):
    path = tmp_path / "index.csv"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=expected):
        read_table(path)
