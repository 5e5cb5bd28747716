import json

import pytest

from terralean.errors import RunError
from terralean.predict import load
from terralean.weights.card import read_card, seed_folders


def test_the_folders_of_seeds_are_found_in_order_and_nothing_else(tmp_path):
    for name in ("seed10", "seed2", "seed0", "seed01", "seeds", "seedx", "tensorboard"):
        (tmp_path / name).mkdir()
    (tmp_path / "seed3").write_text("a file")
    assert seed_folders(tmp_path) == {0: tmp_path / "seed0", 2: tmp_path / "seed2", 10: tmp_path / "seed10"}
    assert list(seed_folders(tmp_path)) == [0, 2, 10]


@pytest.mark.parametrize("name", ["recipe.yaml", "card.json"])
def test_a_run_of_its_own_has_no_seeds(tmp_path, name):
    (tmp_path / "seed0").mkdir()
    (tmp_path / name).write_text("")
    assert seed_folders(tmp_path) == {}


def test_a_folder_of_seeds_is_no_model_and_says_which_it_holds(tmp_path):
    (tmp_path / "seed1").mkdir()
    (tmp_path / "seed4").mkdir()
    for read in (read_card, load):
        with pytest.raises(RunError, match=r"holds a run for each of the seeds 1, 4; name one of them, e\.g\. .*seed1$"):
            read(tmp_path)
    with pytest.raises(RunError, match=r"is not a finished run: it has no card\.json"):
        read_card(tmp_path / "seed1")


def test_a_card_of_before_there_was_a_temperature_has_1(untrained, tmp_path):
    values = json.loads((untrained / "card.json").read_text())
    assert values.pop("temperature") == 1.0
    (tmp_path / "card.json").write_text(json.dumps(values))
    assert read_card(tmp_path).temperature == 1.0


@pytest.mark.parametrize("temperature", [0, -1.5, float("nan"), float("inf")])
def test_a_temperature_that_scores_cannot_be_divided_by(untrained, tmp_path, temperature):
    values = json.loads((untrained / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(values | {"temperature": temperature}))
    with pytest.raises(RunError, match=r"card\.json: temperature: Input should be"):
        read_card(tmp_path)
