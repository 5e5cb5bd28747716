"""Files that trainers write hold more than tensors, and may hold anything."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from terralean.errors import WeightsDoNotFit
from terralean.weights.pickled import read_pickled

TENSORS = {"weight": torch.arange(6.0).view(2, 3)}


class Course:
    """As mmengine keeps one of the losses."""

    def __init__(self) -> None:
        self.values = np.arange(3.0)


class Touching:
    """Writes a file where it is unpickled as usual."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize(
    "beside",
    [argparse.Namespace(lr=0.1, model="lemevit_tiny"), np.float64(71.5), Course(), Path("imagenet")],
    ids=lambda one: type(one).__name__,
)
def test_tensors_are_read_whatever_a_trainer_wrote_beside_them(tmp_path, beside):
    torch.save({"state_dict": TENSORS, "epoch": 3, "beside": beside}, tmp_path / "file.pth")
    found = read_pickled(tmp_path / "file.pth")
    assert torch.equal(found["state_dict"]["weight"], TENSORS["weight"])
    assert found["epoch"] == 3


def test_nothing_in_the_file_is_run(tmp_path):
    torch.save({"state_dict": TENSORS, "beside": Touching(tmp_path / "touched")}, tmp_path / "file.pth")
    assert torch.equal(read_pickled(tmp_path / "file.pth")["state_dict"]["weight"], TENSORS["weight"])
    assert not (tmp_path / "touched").exists()


def test_a_file_cut_short_is_refused(tmp_path):
    torch.save({"state_dict": TENSORS}, tmp_path / "file.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "file.pth").read_bytes()[:200])
    with pytest.raises(WeightsDoNotFit, match="cannot be read as a checkpoint of tensors"):
        read_pickled(tmp_path / "cut.pth")
