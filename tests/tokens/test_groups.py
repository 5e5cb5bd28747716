import torch

from terralean.tokens.groups import Groups, after, alone, copy_back, copy_back_alike, flat_index, merge, merge_alike


def test_a_group_is_the_mean_of_its_members_by_their_sizes():
    x, size = torch.tensor([[1.0, 10.0], [4.0, 40.0], [7.0, 70.0]]), torch.tensor([1.0, 2.0, 5.0])
    merged, sizes = merge(x, torch.tensor([1, 1, 0]), size=size, total=2)
    torch.testing.assert_close(merged, torch.tensor([[7.0, 70.0], [3.0, 30.0]]))
    assert sizes.tolist() == [5, 3]


def test_what_all_members_stand_for_is_kept():
    torch.manual_seed(0)
    x, size = torch.randn(50, 3, dtype=torch.float64).float(), torch.rand(50) + 0.5
    merged, sizes = merge(x, torch.arange(50) % 7, size=size, total=7)
    torch.testing.assert_close((merged * sizes[:, None]).sum(dim=0), (x * size[:, None]).sum(dim=0))
    torch.testing.assert_close(sizes.sum(), size.sum())


def test_images_with_different_numbers_of_groups_do_not_mix():
    x = torch.arange(12.0).view(2, 6, 1)
    groups = Groups(torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 0, 0]]), torch.tensor([2, 4]))
    index = flat_index(groups)
    merged, sizes = merge(x.flatten(0, 1), index, size=torch.ones(12), total=6)
    assert merged.flatten().tolist() == [1, 4, (6 + 10 + 11) / 3, 7, 8, 9]
    assert sizes.tolist() == [3, 3, 3, 1, 1, 1]
    assert copy_back(merged, index).flatten().tolist() == [1, 1, 1, 4, 4, 4, 9, 7, 8, 9, 9, 9]


def test_tokens_alone_stay_as_they_are():
    x = torch.randn(2, 5, 3)
    groups = alone(2, 5, device=x.device)
    merged, sizes = merge_alike(x, groups, size=torch.ones(2, 5), count=int(groups.counts[0]))
    assert torch.equal(merged, x)
    assert torch.equal(sizes, torch.ones(2, 5))
    assert torch.equal(copy_back_alike(merged, groups), x)


def test_two_groupings_make_one():
    assert after(torch.tensor([0, 2, 1, 2]), torch.tensor([1, 0, 1])).tolist() == [1, 1, 0, 1]


def test_half_precision_is_summed_in_full():
    """In bfloat16 a sum of 1000 ones stays at 256."""
    merged, _ = merge(
        torch.ones(1000, 1, dtype=torch.bfloat16), torch.zeros(1000, dtype=torch.int64), size=torch.ones(1000), total=1
    )
    assert merged.item() == 1
    assert merged.dtype == torch.bfloat16


def test_gradients_reach_every_member():
    x = torch.randn(4, 2, requires_grad=True)
    merge(x, torch.tensor([0, 1, 0, 0]), size=torch.ones(4), total=2)[0].sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[1 / 3] * 2, [1.0] * 2, [1 / 3] * 2, [1 / 3] * 2]))
