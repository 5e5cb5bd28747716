import json
from dataclasses import replace

import pytest

from terralean.benchmark.accuracy import Accuracy, read_accuracies
from terralean.errors import ConfigError, RunError
from terralean.weights.card import Card, read_card, write_card

MODELS = ("lemevit_tiny", "swin_tiny_patch4_window7_224", "resnet18")
IMAGENET, SCENES = "published, ImageNet-1K at 224 px", "published, MillionAID at 224 px"


def classifier(card: Card, **changes) -> Card:
    """The card of a run of timm's ResNet-18."""
    return replace(card, task="classification", model="classifier", sizes={"backbone": "resnet18"}, **changes)


def test_where_nothing_is_given_it_is_what_is_published():
    found = read_accuracies([], models=MODELS)
    assert found == read_accuracies(["published"], models=MODELS)
    assert found == {"lemevit_tiny": Accuracy(79.07, IMAGENET, True), MODELS[1]: Accuracy(81.30, IMAGENET, True)}


def test_scenes_have_their_own_table():
    assert read_accuracies(["published-scenes"], models=MODELS) == {
        "lemevit_tiny": Accuracy(98.80, SCENES, True),
        MODELS[1]: Accuracy(98.42, SCENES, True),
    }


def test_what_is_given_stands_alone_unless_the_published_is_asked_for():
    given = {"resnet18": Accuracy(70.5, "given", False)}
    assert read_accuracies(["resnet18=70.5"], models=MODELS) == given


@pytest.mark.parametrize("words", [["lemevit_tiny=50", "published"], ["published", "lemevit_tiny=50"]])
def test_what_is_given_comes_before_what_is_published(words):
    found = read_accuracies(words, models=MODELS)
    assert found["lemevit_tiny"] == Accuracy(50.0, "given", False)
    assert found[MODELS[1]].published


@pytest.mark.parametrize("test", [{"OA": 0.925}, {"OA": {"value": 0.925, "low": 0.9}}])
def test_accuracy_of_a_run_is_read_from_its_card(untrained, tmp_path, test):
    told = classifier(read_card(untrained), metrics={"test": json.loads(json.dumps(test))})
    write_card(told, tmp_path)
    assert read_accuracies([f"resnet18={tmp_path}"], models=MODELS) == {"resnet18": Accuracy(92.5, str(tmp_path), False)}


def test_run_that_was_not_tested_says_how(untrained, tmp_path):
    write_card(classifier(read_card(untrained)), tmp_path)
    with pytest.raises(ConfigError, match="no accuracy on test data in its card; measure it with terralean evaluate"):
        read_accuracies([f"resnet18={tmp_path}"], models=MODELS)


def test_run_of_another_model_is_refused(untrained, tmp_path):
    write_card(classifier(read_card(untrained), metrics={"test": {"OA": 0.9}}), tmp_path)
    with pytest.raises(ConfigError, match="is a run of resnet18, not of lemevit_tiny; give its accuracy to resnet18"):
        read_accuracies([f"lemevit_tiny={tmp_path}"], models=MODELS)


def test_run_of_another_task_has_no_top_1(untrained):
    with pytest.raises(ConfigError, match="is a run of segmentation; a figure shows the top-1 accuracy of classifiers"):
        read_accuracies([f"resnet18={untrained}"], models=MODELS)


@pytest.mark.parametrize(
    ("word", "error", "message"),
    [
        ("resnet50=70", ConfigError, "'resnet50' is not measured in this run; nearest: resnet18"),
        ("resnet18", ConfigError, "must be MODEL=PERCENT, MODEL=RUN, published or published-scenes, got 'resnet18'"),
        ("resnet18=", ConfigError, "must be MODEL=PERCENT"),
        ("resnet18=0.7", ConfigError, "give percent between 1 and 100, e.g. resnet18=79.07"),
        ("resnet18=101", ConfigError, "between 1 and 100"),
        ("resnet18=nan", ConfigError, "between 1 and 100"),
        ("resnet18=nowhere", RunError, "nowhere is not there"),
    ],
)
def test_words_that_cannot_be_are_refused(word, error, message):
    with pytest.raises(error, match=message):
        read_accuracies([word], models=MODELS)


def test_models_of_which_nothing_is_known_need_one():
    with pytest.raises(ConfigError, match="no accuracy is known of resnet18; give one with --accuracy resnet18=PERCENT"):
        read_accuracies(["published"], models=["resnet18"])
