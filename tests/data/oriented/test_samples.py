import numpy as np
import pytest
import torch

from terralean.data.oriented.record import Record
from terralean.data.oriented.samples import check_objects, objects_of
from terralean.errors import BandMismatch, DatasetError, LabelError
from terralean.spec import Bands, Classes

BANDS, CLASSES = Bands(names=("red", "green", "blue")), Classes.named(["ship", "plane"])
CORNERS = [[1.0, 2, 9, 2, 9, 8, 1, 8], [20.0, 2, 29, 2, 29, 8, 20, 8]]


def given(**changes):
    image = torch.arange(3 * 16 * 32, dtype=torch.uint8).reshape(3, 16, 32)
    return {"image": image, "bbox": torch.tensor(CORNERS), "labels": torch.tensor([1, 0])} | changes


def check(**changes):
    return check_objects(given(**changes), bands=BANDS, classes=CLASSES, name="sample 7")


def test_torchgeo_s_dictionary_becomes_a_sample():
    out = check()
    assert {key: value.dtype for key, value in out.items()} == {
        "image": torch.float32,
        "valid": torch.bool,
        "bbox": torch.float32,
        "labels": torch.int64,
        "difficult": torch.bool,
    }
    assert out["bbox"].tolist() == CORNERS and out["valid"].all() and not out["difficult"].any()
    assert torch.equal(check(bbox=torch.tensor(CORNERS).reshape(2, 4, 2))["bbox"], out["bbox"])
    assert check(difficult=torch.tensor([0, 1]))["difficult"].tolist() == [False, True]


def test_an_image_without_objects():
    out = check(bbox=torch.zeros(0), labels=torch.zeros(0))
    assert out["bbox"].shape == (0, 8) and out["labels"].shape == (0,)


def test_pixels_that_are_not_finite_are_not_valid():
    image = given()["image"].float()
    image[1, 3, 4] = torch.nan
    out = check(image=image)
    assert not out["valid"][3, 4] and out["valid"].sum() == 16 * 32 - 1 and not out["image"][:, 3, 4].any()
    assert check(valid=torch.zeros(16, 32))["image"].abs().sum() == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image": torch.zeros(4, 16, 32)}, BandMismatch, r"image is \(4, 16, 32\); expected \(3, height, width\)"),
        ({"bbox": torch.zeros(2, 4)}, DatasetError, r"bbox is \(2, 4\); expected \(n, 8\)"),
        ({"bbox": torch.full((2, 8), torch.inf)}, LabelError, "bbox has numbers that are not finite"),
        ({"labels": torch.tensor([1])}, DatasetError, "2 boxes and 1 labels"),
        ({"labels": torch.tensor([1, 2])}, LabelError, r"labels are 1 to 2; the classes are 0 to 1 \(ship, plane\)"),
    ],
)
def test_what_does_not_fit_is_named(changes, error, message):
    with pytest.raises(error, match=f"sample 7: {message}"):
        check(**changes)


def test_a_dictionary_without_boxes_says_what_it_holds():
    with pytest.raises(DatasetError, match="sample 7 has no 'bbox', it holds image; expected a dictionary with image, bbox"):
        check_objects({"image": given()["image"]}, bands=BANDS, classes=CLASSES, name="sample 7")


def test_a_record_as_part_of_a_sample():
    record = Record(image="a", polygons=np.array(CORNERS), labels=np.array([1, 0]), difficult=np.array([0, 2], dtype=np.uint8))
    out = objects_of(record)
    assert out["bbox"].tolist() == CORNERS and out["labels"].tolist() == [1, 0] and out["difficult"].tolist() == [False, True]
