import pytest
import torch

from terralean.data.samples import from_samples
from terralean.spec import Bands, Classes
from terralean.train.share import Share


class Counting:
    """Samples whose image says their number."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"image": torch.full((1, 2, 2), float(index)), "mask": torch.full((2, 2), index % 3)}


@pytest.mark.parametrize(("length", "count"), [(1, 1), (5, 1), (5, 2), (6, 3), (1, 4), (7, 4)])
def test_shares_hold_each_labelled_sample_once_and_are_of_one_length(length, count):
    samples = from_samples(
        Counting(length), bands=Bands(names=("one",), dtype="float32"), classes=Classes.named(("a", "b", "c"))
    )
    shares = [Share(samples, rank=rank, count=count) for rank in range(count)]
    assert len({len(share) for share in shares}) == 1
    labelled = [
        int(sample["image"][0, 0, 0])
        for share in shares
        for sample in (share[i] for i in range(len(share)))
        if (sample["mask"] != 255).all()
    ]
    assert sorted(labelled) == list(range(length))
    blank = [sample for share in shares for sample in (share[i] for i in range(len(share))) if (sample["mask"] == 255).all()]
    assert len(labelled) + len(blank) == count * len(shares[0])


def test_a_share_ends():
    samples = from_samples(Counting(3), bands=Bands(names=("one",), dtype="float32"), classes=Classes.named(("a", "b", "c")))
    with pytest.raises(IndexError, match="sample 2 of 2"):
        Share(samples, rank=0, count=2)[2]
