import csv

import pytest
import torch

from terralean import recipes
from terralean.models import create
from terralean.predict import load
from terralean.spec import Normalisation
from terralean.train.module import SegmentationModule
from terralean.train.run import run
from terralean.weights.card import read_card

RIVALS = {"unet_resnet18": 14_325_218, "unetformer_resnet18": 11_721_246, "factseg_resnet50": 33_441_667}


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_has_the_data_and_the_schedule_of_lemevit(name):
    rival, ours = recipes.read(name), recipes.read("lemevit_tiny_light")
    assert (rival.data, rival.train, rival.tiling, rival.seed) == (ours.data, ours.train, ours.tiling, ours.seed)
    assert rival.model.name == name


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_trains_and_answers_like_any_model(name, experiment, data, tmp_path):
    changes = (*experiment.changes, "train.steps=2")
    run(recipes.read(name, changes=changes), data=data, out=tmp_path / "run", device="cpu")
    card = read_card(tmp_path / "run")
    assert (card.model, card.training.steps) == (name, 2)
    assert card.cost["parameters"] == RIVALS[name]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["train_loss"]) < 20
    probabilities = load(tmp_path / "run", device="cpu")(torch.zeros(1, 2, 33, 40), torch.ones(1, 33, 40, dtype=torch.bool))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 33, 40))


def test_the_loss_asks_for_the_background_of_the_model(experiment):
    losses = []
    for background in (0, 1):
        torch.manual_seed(0)
        model = create("factseg_resnet50", bands=2, classes=2, background=background, joint=False)
        normalisation = Normalisation(mean=(0.0, 0.0), std=(1.0, 1.0))
        module = SegmentationModule(
            model, experiment().train, normalisation=normalisation, shrink=1, class_pixels=[1, 1], seed=0
        ).train()
        output = {"scores": torch.zeros(1, 2, 4, 4), "foreground": torch.full((1, 1, 4, 4), 3.0)}
        losses.append(float(module.loss(output, torch.zeros(1, 4, 4, dtype=torch.int64))))
    assert losses[0] - losses[1] == pytest.approx(3.0)  # log-odds of 3 for foreground, where all is class 0
