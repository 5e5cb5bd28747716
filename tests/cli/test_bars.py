"""Progress: what is said of a map, and how often where it goes to a file."""

import pytest

from terralean.cli.bars import MappingLines, mapping_bar, mapping_words
from terralean.mapping.progress import Progress


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(scene="a", done=12.345, total=450, unit="km2"), "12.3 of 450 km2"),
        (Progress(scene="a", done=0.5, total=2, unit="km2", resumed=0.25), "0.5 of 2 km2, 0.25 from before"),
        (Progress(scene="a", done=1e6, total=4e6, unit="px", index=1, scenes=5), "1,000,000 of 4,000,000 px (scene 2 of 5)"),
        (Progress(scene="a", done=3, total=8, unit="km2", index=1, scenes=5, together=2), "3 of 8 km2 (scene 2 to 3 of 5)"),
    ],
)
def test_words_tell_how_much_of_how_much(progress, words):
    assert mapping_words(progress) == words


def test_a_log_file_gets_a_line_every_half_minute(capfd):
    times = iter([0.0, 29.0, 31.0, 31.0, 60.0, 61.0, 61.0])
    tell = MappingLines(clock=lambda: next(times))
    for done in (1.0, 2.0, 3.0, 4.0):
        tell(Progress(scene="a", done=done, total=16.0, unit="km2"))
    assert capfd.readouterr().err == "2 of 16 km2, 12%\n4 of 16 km2, 25%\n"


def test_without_a_terminal_there_is_no_bar(capfd):
    with mapping_bar() as tell:
        assert isinstance(tell, MappingLines)
        tell(Progress(scene="a", done=1.0, total=16.0, unit="km2"))
    assert capfd.readouterr().err == ""
