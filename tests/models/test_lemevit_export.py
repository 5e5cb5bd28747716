"""The token count enters the attention's scale: it must not be frozen at the size a program was made with."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from weights import fill, image

TOY = LeMeViTConfig(depths=(1, 1, 1, 1, 1), dims=(64, 64, 64, 64, 64), classes=5)
SEVERAL_IMAGES = [(5, 3, 75, 131), (2, 3, 160, 96), (4, 3, 33, 40)]
ONE_IMAGE = [(1, 3, 128, 192)]


def model(build: type[nn.Module]) -> nn.Module:
    made = build(TOY).eval()
    made.load_state_dict(fill(made.state_dict()))
    return made


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def assert_equal_at(shapes: list[tuple[int, ...]], program: nn.Module, eager: nn.Module) -> None:
    for shape in shapes:
        for ours, expected in zip(_maps(program(picture(*shape))), _maps(eager(picture(*shape))), strict=True):
            assert (ours - expected).norm() <= 1e-5 * expected.norm()


def _maps(found: Tensor | list[Tensor]) -> list[Tensor]:
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_exported_program_takes_any_batch_and_any_size_above_32_px(build):
    eager = model(build)
    sides = Dim("batch", min=1), Dim("height", min=33), Dim("width", min=33)
    shapes = {"image": {0: sides[0], 2: sides[1], 3: sides[2]}}
    with torch.no_grad():
        program = torch.export.export(eager, (picture(2, 3, 64, 96),), dynamic_shapes=shapes).module()
        assert_equal_at([*SEVERAL_IMAGES, *ONE_IMAGE], program, eager)


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_traced_program_takes_any_batch_and_any_size(build):
    eager = model(build)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of the list that a pyramid is
        program = torch.jit.trace(eager, picture(2, 3, 64, 96))
        assert_equal_at([*SEVERAL_IMAGES, *ONE_IMAGE], program, eager)
        torch.testing.assert_close(_maps(program(picture(1, 3, 5, 3))), _maps(eager(picture(1, 3, 5, 3))))


@pytest.mark.slow
@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_compiled_program_takes_any_size(build):
    eager = model(build)
    with torch.no_grad():
        # Not with one image, nor with as many as bands: torch.compile starts anew for sizes of one and of constants.
        assert_equal_at(SEVERAL_IMAGES, torch.compile(eager, dynamic=True), eager)
