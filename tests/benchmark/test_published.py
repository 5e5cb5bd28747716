import pytest

from terralean.benchmark import published
from terralean.benchmark.published import (
    CDD,
    DOTA,
    IMAGENET,
    INFERENCE,
    MACS,
    MILLION_AID,
    PARAMETERS,
    POTSDAM,
    TRAINING,
    accuracies,
    lookup,
    table_3,
    table_4,
    table_5,
    table_6,
)


def test_tables_are_whole():
    """Rows times columns, less the dashes."""
    assert len(list(table_3())) == 18 * 4
    assert len(list(table_4())) == 5 * 8 + 2
    assert len(list(table_5())) == 5 * (3 + 4 + 3) - 2 * 3
    assert len(list(table_6())) == 4 * 3


def test_every_row_has_a_number_of_each_kind_in_a_sensible_range():
    ranges = {"M": (4, 110), "G": (0.6, 340), "%": (70, 100), "GB": (1, 12), "images/s": (400, 5400)}
    for one in [*table_3(), *table_4(), *table_5(), *table_6()]:
        low, high = ranges[one.quantity.unit]
        assert low < one.value < high, one


def test_claims_of_the_paper_follow_from_the_tables():
    """1.85 times Swin-T and BiFormer-B, 1.96 times ViTAEv2-S, and 1.55 times it when training."""

    def speed(table, row, quantity):
        return next(p.value for p in table() if (p.row, p.quantity) == (row, quantity))

    assert speed(table_3, "LeMeViT-Tiny", INFERENCE) / speed(table_3, "Swin-T", INFERENCE) == pytest.approx(1.85, abs=0.005)
    assert speed(table_3, "LeMeViT-Base", INFERENCE) / speed(table_3, "BiFormer-B", INFERENCE) == pytest.approx(1.85, abs=0.01)
    assert speed(table_4, "LeMeViT-Small", INFERENCE) / speed(table_4, "ViTAEv2-S", INFERENCE) == pytest.approx(1.96, abs=0.005)
    assert speed(table_4, "LeMeViT-Small", TRAINING) / speed(table_4, "ViTAEv2-S", TRAINING) == pytest.approx(1.55, abs=0.005)


def test_lookup_prefers_imagenet_and_falls_back_to_scenes():
    assert lookup("lemevit_tiny", INFERENCE).text == "5317"
    assert lookup("vitae_v2_s", INFERENCE).text == "1848"
    assert lookup("lemevit_tiny", TRAINING).text == "1389"
    assert lookup("resnet18", INFERENCE) is None


def test_accuracies_are_those_of_the_data_set_and_of_the_same_training():
    assert accuracies(IMAGENET)["lemevit_base"] == 84.35
    assert accuracies(MILLION_AID)["swin_tiny_patch4_window7_224"] == 98.42  # not the row of 300 epochs
    assert None not in accuracies(IMAGENET)


def test_digits_are_kept_as_printed():
    one = next(p for p in table_3() if p.row == "PVTv2-b1" and p.quantity == published.TOP1)
    assert (one.text, one.value, one.decimals) == ("78.70", 78.7, 2)


def test_dashes_are_no_numbers():
    swin = {(p.setting, p.quantity) for p in table_5() if p.row == "Swin-T"}
    assert {(setting, MACS) for setting in (DOTA, POTSDAM, CDD)} <= swin
    assert not {(setting, PARAMETERS) for setting in (DOTA, POTSDAM, CDD)} & swin
