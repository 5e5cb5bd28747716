import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from terralean.benchmark import candidates
from terralean.benchmark.candidates import Subject, relative_error
from terralean.benchmark.config import Size
from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import SizeError

CPU = torch.device("cpu")


def subject(name: str = "test_resnet", *, side: int | tuple[int, int] = 32, seed: int = 0, bands: int = 3) -> Subject:
    size = Size(side, side) if isinstance(side, int) else Size(*side)
    return Subject(name, size, bands=bands, classes=7, seed=seed, device=CPU)


def image(side: int = 32, bands: int = 3) -> torch.Tensor:
    return torch.randn(2, bands, side, side, generator=torch.Generator().manual_seed(1))


def scores(of: Subject, x: torch.Tensor, *, mode: str = "eager", precision: str = "fp32") -> torch.Tensor:
    return of.call(x, work="inference", mode=mode, precision=precision).answer()


def test_subject_is_the_model_of_its_name_and_size():
    of = subject("test_vit", side=(32, 64), bands=5)
    model = timm.create_model("test_vit", in_chans=5, num_classes=7, img_size=(32, 64))
    assert (of.parameters, of.macs) == (parameters(model), count_macs_at(model, (1, 5, 32, 64)))
    assert of.note is None


def test_seed_fixes_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    answers = [scores(subject(seed=seed), image()) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("mode", ["eager", "channels-last", "folded", "folded+channels-last"])
def test_every_treatment_gives_the_plain_answer(mode, precision):
    of = subject()
    error = relative_error(
        scores(of, image(), mode=mode, precision=precision), scores(of, image()), work="inference", precision=precision
    )
    assert error < (1e-5 if precision == "fp32" else 0.05)


def test_treatments_leave_the_plain_model_alone():
    of = subject()
    before = copy.deepcopy(of.model.state_dict())
    for mode in ("folded", "channels-last", "folded+channels-last"):
        for precision in ("fp32", "bf16"):
            scores(of, image(), mode=mode, precision=precision)
    after = of.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].stride() == after[name].stride() for name in before)


def test_folding_is_told_and_makes_the_model_smaller():
    of = subject()
    plain, folded = (of.call(image(), work="inference", mode=mode, precision="fp32") for mode in ("eager", "folded"))
    assert plain.norms is None
    assert (folded.norms.folded, folded.norms.left) == (15, 0)
    assert folded.held_bytes < plain.held_bytes == sum(t.numel() * t.element_size() for t in of.model.state_dict().values())


def test_half_precision_holds_half_the_bytes():
    of = subject("test_vit")
    held = {p: of.call(image(), work="inference", mode="eager", precision=p).held_bytes for p in ("fp32", "bf16")}
    assert held["fp32"] == 2 * held["bf16"] == 4 * of.parameters


def test_norms_do_something_so_that_wrong_folding_is_seen():
    """With norms as they are when new, leaving them out would change an answer by 5e-6."""
    of = subject()
    wrong = copy.deepcopy(of.model)
    for name, part in list(wrong.named_modules()):
        if isinstance(part, nn.BatchNorm2d):
            wrong.set_submodule(name, nn.Identity())
    with torch.inference_mode(), pytest.raises(ValueError, match="its output differs from that of the plain float32 model"):
        relative_error(wrong(image()), scores(of, image()), work="inference", precision="bf16")


def test_fast_but_wrong_is_refused():
    answer = scores(subject(), image())
    assert relative_error(answer, answer, work="inference", precision="fp32") == 0.0
    assert relative_error(1.05 * answer, answer, work="inference", precision="bf16") == pytest.approx(0.05, rel=1e-3)
    with pytest.raises(ValueError, match=r"differs from that of the plain float32 model by 0\.05"):
        relative_error(1.05 * answer, answer, work="inference", precision="fp32")
    with pytest.raises(ValueError, match="by nan"):
        relative_error(answer * float("nan"), answer, work="inference", precision="bf16")
    with pytest.raises(ValueError, match=r"its gradients differ .* by 3,"):
        relative_error(4 * answer, answer, work="training", precision="bf16")
    assert relative_error(answer, 0 * answer, work="inference", precision="fp32") is None


# Training


def by_hand(of: Subject, x: torch.Tensor, *, steps: int) -> torch.Tensor:
    """Gradients after so many steps of AdamW, nothing dropped."""
    model = copy.deepcopy(of.model).train()
    for part in model.modules():
        for name in ("drop_prob", "p"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    target = torch.randint(7, (len(x),), generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.AdamW(model.parameters(), lr=candidates.LEARNING_RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(x), target).backward()
        optimiser.step()
    optimiser.zero_grad()
    F.cross_entropy(model(x), target).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# Swin drops paths unless it is told not to.
@pytest.mark.parametrize(
    ("name", "steps"), [("test_vit", 0), ("test_vit", 2), ("test_resnet", 2), ("swin_tiny_patch4_window7_224", 0)]
)
def test_training_is_steps_of_adamw_on_cross_entropy(name, steps):
    of, x = subject(name, side=64), image(64)
    call = of.call(x, work="training", mode="eager", precision="fp32")
    for _ in range(steps):
        call.run()
    torch.testing.assert_close(call.answer(), by_hand(of, x, steps=steps), rtol=2e-2, atol=2e-4)


def test_training_holds_weights_and_two_moments():
    of = subject("test_vit")
    call = of.call(image(), work="training", mode="channels-last", precision="bf16")
    assert call.held_bytes == 3 * 4 * of.parameters
    assert call.answer().dtype == torch.float32


def test_training_of_one_candidate_does_not_change_another():
    of = subject()
    expected = of.expected(image(), work="training")
    of.call(image(), work="training", mode="eager", precision="fp32").run()
    assert torch.equal(of.expected(image(), work="training"), expected)


def test_training_a_segmenter_puts_a_loss_on_every_output():
    of = Subject("lemevit_tiny_upernet", Size(32, 32), bands=3, classes=4, seed=0, device=CPU)
    gradients = of.call(image(), work="training", mode="eager", precision="fp32").answer()
    assert len(gradients) == of.parameters  # of the auxiliary head, too


# Sizes


def test_model_that_resizes_images_itself_says_so():
    of = subject("crossvit_9_240", side=64)
    assert of.note == "it resizes images to 240 px itself"
    assert subject("crossvit_9_240", side=240).note is None


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (240, "does not take images of 240 px; of 224 and 256 px it does"),
        ((64, 80), "does not take images of 64x80 px; of 64 and 64x96 px it does"),
    ],
)
def test_size_that_is_refused_comes_with_sizes_that_fit(side, words):
    with pytest.raises(SizeError, match=f"efficientformerv2_s0 {words}"):
        subject("efficientformerv2_s0", side=side)


def test_model_that_cannot_be_built_gives_its_own_reason():
    with pytest.raises(Exception, match="backbone"):
        subject("upernet")
