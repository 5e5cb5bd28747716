"""Temperatures: known ones are found, classes stay, what a card says of them is what its validation split shows."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from terralean.predict import load
from terralean.spec import IGNORE
from terralean.train import temperature
from terralean.train.material import from_folder
from terralean.train.run import run
from terralean.train.temperature import (
    BLIND,
    DIVERGED,
    NO_LABEL,
    NO_SPLIT,
    SEPARATED,
    Evidence,
    Reservoir,
    calibrate,
    fit,
    loss,
)
from terralean.weights.card import read_card, write_card


def pixels(scores, labels) -> Evidence:
    rows = torch.as_tensor(np.asarray(scores), dtype=torch.float32)
    return Evidence(scores=rows, labels=torch.as_tensor(np.asarray(labels)), firsts=np.arange(len(rows)), of=len(rows))


@pytest.mark.parametrize("known", [0.4, 1.0, 2.5, 12.0])
def test_a_known_temperature_is_found(known):
    """At odds of 3 to 1 the first class is right in 3 of 4 cases, and with logits so many times too large it still is."""
    found = fit(pixels([[known * math.log(3), 0.0]] * 4, [0, 0, 0, 1]))
    assert found.temperature == pytest.approx(known, rel=1e-4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.after == pytest.approx(entropy, rel=1e-6)
    assert found.before > found.after - 1e-9


def test_it_is_where_the_derivative_is_zero():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (3000, 5)).astype(np.float32)
    labels = torch.distributions.Categorical(logits=torch.from_numpy(scores / 1.7)).sample().numpy()

    def slope(inverse: float) -> float:
        weights = np.exp(inverse * (scores - scores.max(axis=1, keepdims=True)))
        expected = (weights * scores).sum(axis=1) / weights.sum(axis=1)
        return float((expected - scores[np.arange(len(labels)), labels]).mean())

    found = fit(pixels(scores, labels))
    assert found.temperature == pytest.approx(1 / brentq(slope, 0.05, 5.0), rel=1e-3)
    assert found.temperature == pytest.approx(1.7, rel=0.06)


def test_of_several_views_the_mean_probability_counts():
    scores = torch.tensor([[2.0, 0.0], [0.0, 2.0], [4.0, 0.0]])
    evidence = Evidence(scores=scores, labels=torch.tensor([0, 0, 1]), firsts=np.array([0, 2]), of=2)
    sure, very = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    first = (sure + (1 - sure)) / 2
    assert loss(evidence, temperature=2.0) == pytest.approx(-(math.log(first) + math.log(1 - very)) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels", "why"),
    [
        ([[3.0, 0.0], [0.0, 1.0]], [0, 1], SEPARATED),
        ([[3.0, 0.0], [0.0, 3.0]], [1, 0], BLIND),
        ([[3.0, float("nan")], [0.0, 3.0]], [1, 0], DIVERGED),
        (np.zeros((0, 2)), np.zeros(0, np.int64), NO_LABEL),
    ],
)
def test_where_no_temperature_is_best_the_reason_is_told(scores, labels, why):
    found = fit(pixels(scores, labels))
    assert (found.temperature, found.why_not) == (1.0, why)


def test_a_sample_does_not_depend_on_batches_and_holds_no_more_than_asked():
    images = [torch.arange(16 * i, 16 * i + 16).view(1, 4, 4).float() for i in range(30)]
    masks = [torch.where(torch.arange(16).view(4, 4) % 3 == 0, IGNORE, image[0].long() % 3) for image in images]

    def sample(*, seed: int, most: int) -> Evidence:
        reservoir = Reservoir(most=most, seed=seed)
        for image, mask in zip(images, masks, strict=True):
            reservoir.add(image, mask)
            assert sum(len(part[0]) for part in reservoir.parts) <= 2 * most
        return reservoir.evidence()

    found = sample(seed=3, most=40)
    assert (len(found.scores), found.of) == (40, 300)
    assert torch.equal(found.labels, found.scores[:, 0].long() % 3)
    assert len(set(found.scores[:, 0].tolist())) == 40
    assert torch.equal(found.scores, sample(seed=3, most=40).scores)
    assert not torch.equal(found.scores, sample(seed=4, most=40).scores)
    assert len(sample(seed=3, most=1000).scores) == 300
    chosen = np.concatenate([sample(seed=seed, most=40).scores[:, 0].numpy() for seed in range(60)])
    thirds = np.histogram(chosen, bins=3, range=(0, 480))[0] / len(chosen)
    assert thirds == pytest.approx([1 / 3] * 3, abs=0.035)  # four standard deviations


@pytest.fixture(scope="module")
def material(data, experiment):
    return from_folder(experiment(), data)


def test_the_card_of_a_run_has_the_temperature_of_its_weights(finished, material):
    card = read_card(finished)
    plain, tempered = (loss_of(finished, material, temperature=t) for t in (1.0, card.temperature))
    told = card.metrics["calibration"]
    assert (told["on"], told["pixels"]) == ("validation split", 48 * 48)
    assert told["nll"] == pytest.approx(plain, abs=1e-5)
    assert told["nll_calibrated"] == pytest.approx(tempered, abs=1e-5)
    assert tempered < min(plain, *(loss_of(finished, material, temperature=f * card.temperature) for f in (0.97, 1.03)))
    assert card.not_calibrated == ""


def loss_of(folder, material, *, temperature: float) -> float:
    """Of all validation pixels, by what the predictor answers."""
    predictor = load(folder, device="cpu")
    predictor.card = dataclasses.replace(predictor.card, temperature=temperature)
    likelihoods = []
    for sample in material.validation:
        answer = predictor(sample["image"][None], sample["valid"][None])[0]
        known = sample["mask"] != IGNORE
        likelihoods.append(answer.gather(0, sample["mask"].where(known, 0)[None])[0][known])
    return -torch.cat(likelihoods).log().mean().item()


def test_a_sample_is_nearly_as_good_as_all(finished, material, monkeypatch):
    monkeypatch.setattr(temperature, "PIXELS", 1200)
    predictor = load(finished, device="cpu")
    found, told = calibrate(predictor, material, batch=2, seed=0)
    assert told["pixels"] == 1200
    assert found == pytest.approx(read_card(finished).temperature, rel=0.2)
    assert found != read_card(finished).temperature


def test_a_run_from_before_gets_its_temperature_by_the_same_command(finished, data, experiment, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    card = read_card(finished)
    kept = {key: value for key, value in card.metrics.items() if key != "calibration"}
    write_card(dataclasses.replace(card, temperature=1.0, metrics=kept), out)
    assert "run its training command again" in read_card(out).not_calibrated
    weights = (out / "weights.safetensors").stat().st_mtime_ns
    assert run(experiment(), data=data, out=out, device="cpu").already_done
    assert json.loads((out / "card.json").read_text()) == json.loads((finished / "card.json").read_text())
    assert (out / "weights.safetensors").stat().st_mtime_ns == weights


def test_without_a_validation_split_the_card_says_why_there_is_none(finished, material):
    found, told = calibrate(load(finished, device="cpu"), dataclasses.replace(material, validation=None), batch=1, seed=0)
    assert (found, told) == (1.0, {"not_fitted": NO_SPLIT})
    card = dataclasses.replace(read_card(finished), temperature=found, metrics={"calibration": told})
    assert card.not_calibrated == NO_SPLIT


class Pictures(list):
    """Four images of 32 px and two views each, all with the logits 3, 0, 0; the class of the last is another."""

    def __init__(self) -> None:
        image = torch.tensor([220.0, 110.0, 120.0]).view(3, 1, 1).expand(2, 3, 32, 32)
        valid = torch.ones(2, 32, 32, dtype=torch.bool)
        super().__init__({"image": image, "valid": valid, "label": torch.tensor(label)} for label in (0, 0, 0, 1))


def test_images_are_calibrated_by_all_their_views(recogniser, material):
    pictures = dataclasses.replace(material, validation=Pictures(), one_size=False)
    found, told = calibrate(load(recogniser, device="cpu"), pictures, batch=3, seed=0)
    assert found == pytest.approx(3 / math.log(6), rel=1e-4)  # the first class then has 3/4
    assert (told["on"], told["images"]) == ("validation split", 4)
    assert told["nll_calibrated"] == pytest.approx(-(3 * math.log(3 / 4) + math.log(1 / 8)) / 4, rel=1e-5)
