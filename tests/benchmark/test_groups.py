import pytest
import timm

from terralean.benchmark.groups import GROUPS, check_names, expand
from terralean.errors import UnknownName
from terralean.models import MODELS


@pytest.mark.parametrize("group", GROUPS)
def test_every_model_of_a_group_can_be_built(group):
    check_names(GROUPS[group])
    assert len(set(GROUPS[group])) == len(GROUPS[group])


def test_no_group_hides_a_model():
    assert not GROUPS.keys() & {*MODELS, *timm.list_models()}


def test_peers_are_those_of_the_paper_that_are_not_ours():
    assert GROUPS["imagenet-peers"] == (
        *("pvt_v2_b1", "mobilevitv2_100", "efficientformerv2_s1", "swin_tiny_patch4_window7_224", "pvt_v2_b2"),
        *("biformer_tiny", "swin_small_patch4_window7_224", "swin_base_patch4_window7_224", "pvt_v2_b4"),
        *("crossvit_base_240", "biformer_base"),
    )
    assert GROUPS["scene-peers"] == ("swin_tiny_patch4_window7_224", "vitae_v2_s")


def test_groups_are_replaced_in_place_and_nobody_is_named_twice():
    assert expand(["resnet18", "scene-peers", "lemevit_tiny", "lemevit", "resnet18"]) == (
        *("resnet18", "swin_tiny_patch4_window7_224", "vitae_v2_s", "lemevit_tiny", "lemevit_small", "lemevit_base"),
    )


def test_a_folder_is_no_model(tmp_path):
    with pytest.raises(UnknownName, match="is a folder, not the name of a model; a run is measured on images, with --on SCENE"):
        expand([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "nearest"), [("lemevit_tinny", "lemevit_tiny"), ("imagenet_peers", "imagenet-peers"), ("??", "lemevit, imagenet")]
)
def test_unknown_names_get_the_nearest(name, nearest):
    with pytest.raises(
        UnknownName, match=f"no model '{name.replace('?', '.')}' here or in timm, and no group; nearest: {nearest}"
    ):
        expand(["lemevit", name])
