"""Runs that adapt a finished run in place of training all weights."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from terralean import recipes
from terralean.adapt.lora import CycleConfig, LoRAConfig, adapters, add_adapters, is_named, strength_at
from terralean.cost.macs import parameters
from terralean.errors import ConfigError, MissingFile
from terralean.predict import load
from terralean.train.adaptation import Strength
from terralean.train.run import run
from terralean.weights.adapter import load_adapter
from terralean.weights.card import Adapted, read_card
from terralean.weights.checkpoint import load_checkpoint, read_tensors
from weights import image

SETTINGS = ("adapt.rank=2", "adapt.targets=[attn.qkv1, mlp]", "adapt.schedule.cycles=1", "adapt.schedule.floor=0.5")


@pytest.fixture(scope="module")
def adapted(finished, data, experiment, tmp_path_factory):
    """The finished run, adapted to its own data for six steps; do not change it."""
    out = tmp_path_factory.mktemp("runs") / "adapted"
    run(experiment(f"adapt.from={finished}", *SETTINGS), data=data, out=out, device="cpu")
    return out


def test_its_weights_are_plain_and_of_what_was_frozen_nothing_moved(adapted, finished):
    before, after = (read_tensors(folder / "weights.safetensors") for folder in (finished, adapted))
    assert {name: tensor.shape for name, tensor in after.items()} == {name: tensor.shape for name, tensor in before.items()}
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    body, head = ({name for name in moved if name.startswith(part)} for part in ("backbone.", "head."))
    adapted_layers = {name for name in before if is_named(name, ["attn.qkv1", "mlp"]) and name.endswith(".weight")}
    assert body == {name for name in adapted_layers if name.startswith("backbone.")}
    assert head | body == moved
    assert {name for name in before if name.startswith("head.") and name.endswith(".weight")} <= head


def test_its_adapters_alone_make_it_of_the_run_it_started_from(adapted, finished):
    base, _ = load_checkpoint(finished)
    load_adapter(base, adapted / "adapter")
    x = torch.from_numpy(image(0, (1, 2, 32, 32)))
    model, _ = load_checkpoint(adapted)
    with torch.inference_mode():
        torch.testing.assert_close(base.eval()(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_card_says_so(adapted, finished):
    card, model = read_card(adapted), load_checkpoint(adapted)[0]
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and is_named(name, ["qkv1", "mlp"])]
    layers = [name for name in layers if name.startswith("backbone.")]
    low_rank = sum(2 * (part.in_features + part.out_features) for part in map(model.get_submodule, layers))
    assert card.adapted == Adapted(
        start=str(finished),
        rank=2,
        alpha=4.0,
        layers=len(layers),
        learned=low_rank + parameters(model.head),
        of=parameters(model) + low_rank,
    )
    assert card.cost == read_card(finished).cost
    assert read_card(finished).adapted is None


def test_it_predicts_as_any_run(adapted):
    predictor = load(adapted, device="cpu")
    probabilities = predictor(torch.zeros(1, 2, 32, 32), torch.ones(1, 32, 32, dtype=torch.bool))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 32, 32))


def test_its_recipe_reads_back_and_the_same_command_finds_it_done(adapted, finished, data, experiment):
    written = yaml.safe_load((adapted / "recipe.yaml").read_text())["adapt"]
    assert written["from"] == str(finished)
    assert "start" not in written
    same = experiment(f"adapt.from={finished}", *SETTINGS)
    assert recipes.read(str(adapted / "recipe.yaml")) == same
    assert run(same, data=data, out=adapted, device="cpu").already_done


def test_broken_off_and_gone_on_it_is_the_same(adapted, finished, data, experiment, tmp_path):
    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    again = experiment(f"adapt.from={finished}", *SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run(again, data=data, out=tmp_path / "run", device="cpu", tell=stop)
    run(again, data=data, out=tmp_path / "run", device="cpu")
    ours, theirs = (read_tensors(folder / "weights.safetensors") for folder in (tmp_path / "run", adapted))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_strength_is_set_by_the_step():
    model = nn.Sequential(nn.Linear(4, 4))
    add_adapters(model, LoRAConfig(targets=("0",)))
    config = CycleConfig(cycles=1, floor=0.2)
    told, (_, layer) = Strength(config, steps=5), next(adapters(model))
    for step in range(5):
        told.on_train_batch_start(SimpleNamespace(global_step=step), SimpleNamespace(model=model), None, 0)
        assert layer.strength.item() == pytest.approx(strength_at(step, steps=5, config=config))


def test_the_schedule_changes_what_is_learned(adapted, finished, data, experiment, tmp_path):
    plain = experiment(f"adapt.from={finished}", *SETTINGS[:2])
    run(plain, data=data, out=tmp_path / "run", device="cpu")
    name = "backbone.stages.3.0.mlp.0.weight"
    ours, theirs = (read_tensors(folder / "weights.safetensors")[name] for folder in (tmp_path / "run", adapted))
    assert not torch.equal(ours, theirs)


@pytest.mark.parametrize("recipe", ["lemevit_tiny_light", "ucm82_lemevit_tiny"])
def test_any_kind_of_experiment_has_the_section(recipe):
    found = recipes.read(recipe, changes=["adapt.from=RUN", "adapt.parts=[query, value]", "adapt.alpha=3"]).adapt
    assert asdict(found) == {
        "rank": 8,
        "alpha": 3.0,
        "targets": ("attn", "mlp"),
        "parts": ("query", "value"),
        "train": ("head",),
        "dropout": 0.0,
        "schedule": None,
        "start": "RUN",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["adapt.rank=2"], r"adapt: has no from; set adapt\.from to the run folder"),
        (["adapt.start=RUN"], r"no setting adapt\.start; nearest: adapt\.from"),
        (["adapt.from=RUN", "adapt.ranks=2"], r"no setting adapt\.ranks; nearest: adapt\.rank"),
        (["adapt.from=RUN", "adapt.parts=[keys]"], r"adapt\.parts\.0: Input should be 'query', 'key' or 'value', got 'keys'"),
        (["adapt.from=RUN", "adapt.schedule.floor=2"], r"adapt\.schedule\.floor must be 0 to 1, got 2"),
        (["adapt.from=RUN", "model.weights=OTHER"], r"adapt\.from RUN and model\.weights OTHER both say"),
    ],
)
def test_sections_that_cannot_be(changes, words):
    for recipe in ("lemevit_tiny_light", "ucm82_lemevit_tiny"):
        with pytest.raises(ConfigError, match=words):
            recipes.read(recipe, changes=changes)


def test_a_forest_is_not_adapted():
    with pytest.raises(ConfigError, match="adapt: of no meaning for a forest"):
        recipes.read("random_forest", changes=["adapt.from=RUN"])


def test_a_start_that_is_not_there_leaves_no_run_behind(data, experiment, tmp_path):
    with pytest.raises(MissingFile, match="no checkpoint at"):
        run(experiment(f"adapt.from={tmp_path / 'none'}"), data=data, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
