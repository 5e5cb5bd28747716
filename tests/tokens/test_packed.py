import pytest
import torch

from terralean.tokens.packed import keep, pack, pad, put_back, rows_of_equal_images, take

THERE = torch.tensor([[True, False, True, True], [False, False, True, False], [True, True, True, True]])


def tokens() -> torch.Tensor:
    return torch.arange(1.0, 3 * 4 * 2 + 1).view(3, 4, 2)


def test_packed_tokens_are_those_that_are_there_one_image_after_the_other():
    packed = pack(tokens(), THERE)
    assert packed.lengths == (3, 1, 4)
    assert packed.x[:, 0].tolist() == [1, 5, 7, 13, 17, 19, 21, 23]
    assert pack(tokens(), None).lengths == (4, 4, 4)


def test_pad_undoes_pack():
    x = tokens()
    back, there = pad(*pack(x, THERE), THERE)
    assert torch.equal(back, x * THERE[..., None])
    assert there is THERE
    whole, none = pad(*pack(x, None))
    assert torch.equal(whole, x)
    assert none is None


def test_pack_undoes_pad():
    x, lengths = torch.arange(8.0)[:, None], (3, 1, 4)
    padded, there = pad(x, lengths)
    assert padded[..., 0].tolist() == [[0, 1, 2, 0], [3, 0, 0, 0], [4, 5, 6, 7]]
    again = pack(padded, there)
    assert torch.equal(again.x, x)
    assert again.lengths == lengths


def test_kept_rows_come_in_their_order():
    kept = keep(tokens(), torch.tensor([[False, True, False, True], [True, False, False, False], [False, True, True, False]]))
    assert kept.x[..., 0][0].tolist() == [3, 7]
    assert kept.x[..., 0][1, :1].tolist() == [9]
    assert kept.place[2].tolist() == [1, 2]
    assert kept.there.tolist() == [[True, True], [True, False], [True, True]]


@pytest.mark.parametrize("counts", [(2, 3, 1), (2, 2, 2), (0, 4, 1), (0, 0, 0), (4, 4, 4)])
def test_put_back_undoes_keep(counts):
    x = tokens()
    order = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).argsort(dim=1).argsort(dim=1)
    chosen = order < torch.tensor(counts)[:, None]
    kept = keep(x, chosen)
    assert kept.x.shape[1] == max(counts)
    assert torch.equal(put_back(kept.x, kept.place, kept.there, x), x)
    changed = put_back(-kept.x, kept.place, kept.there, x)
    assert torch.equal(changed, torch.where(chosen[..., None], -x, x))


def test_rows_named_twice_would_be_put_back_by_chance():
    chosen = torch.rand(5, 40, generator=torch.Generator().manual_seed(1)) < torch.linspace(0.1, 0.9, 5)[:, None]
    place = keep(torch.zeros(5, 40, 1), chosen).place
    assert all(len(set(row)) == len(row) for row in place.tolist())


def test_a_number_known_beforehand_gives_the_same_rows():
    x, chosen = tokens(), torch.tensor([[True, False, True, False]] * 3)
    plain, known = keep(x, chosen), keep(x, chosen, most=2)
    assert torch.equal(plain.x, known.x)
    assert torch.equal(plain.place, known.place)
    assert plain.there is known.there is None


def test_put_back_carries_gradients_to_both():
    x, full = torch.randn(1, 2, 3, requires_grad=True), torch.randn(1, 4, 3, requires_grad=True)
    put_back(x, torch.tensor([[1, 3]]), None, full).sum().backward()
    assert x.grad.tolist() == [[[1.0] * 3] * 2]
    assert full.grad[0, :, 0].tolist() == [1, 0, 1, 0]


def test_images_of_equal_length_are_taken_at_once():
    groups = rows_of_equal_images((2, 3, 0, 2), device=torch.device("cpu"))
    assert [group.tolist() for group in groups] == [[[0, 1], [5, 6]], [[2, 3, 4]]]


def test_take_is_by_image():
    assert take(tokens(), torch.tensor([[3], [0], [1]]))[:, 0, 0].tolist() == [7, 9, 19]
