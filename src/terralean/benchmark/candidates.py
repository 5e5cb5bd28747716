"""What is measured: a model by its name, in one mode and precision, ready to be called and checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from terralean.benchmark.config import COMPILED, DTYPES, EAGER, Size, Work, Workload, treatments
from terralean.cost.macs import Macs, count_macs, count_macs_at, parameters
from terralean.errors import SizeError, TerraleanError
from terralean.layers.watched_folding import Folded, fold
from terralean.models import MODELS, create

# Largest relative error against the plain float32 model. On CUDA "fp32" convolutions may run in TF32, hence not 1e-5. In half
# precision a batch norm over two or three values can turn a gradient around, so that only what is no number or grows is wrong.
TOLERANCES: dict[tuple[Work, str], float] = {
    **{("inference", "fp32"): 1e-2, ("inference", "bf16"): 1e-1, ("inference", "fp16"): 1e-1},
    **{("training", "fp32"): 1e-2, ("training", "bf16"): 2.0, ("training", "fp16"): 2.0},
}
# What other people's models and compilers raise when they cannot do what is asked. One model must not cost the others' hours.
FOREIGN = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError),
    *(ImportError, TerraleanError),
)
LEARNING_RATE = 1e-4  # of the steps that are timed; time does not depend on it, and at this rate nothing overflows
PROBE_PX = 32  # sizes that might fit are multiples of it
DROPS = (DropPath, nn.Dropout, nn.Dropout1d, nn.Dropout2d)


class Candidate(NamedTuple):
    """One thing to time."""

    model: str
    workload: Workload
    mode: str
    precision: str

    @property
    def label(self) -> str:
        """Its name among all candidates."""
        return f"{self.model} {self.workload.batch} x {self.workload.size} px {self.mode} {self.precision}"


class Call(NamedTuple):
    """What is timed."""

    run: Callable[[], object]
    answer: Callable[[], Tensor]  # what is compared with the plain model: scores, or gradients of the first step
    held_bytes: int  # weights, when training also AdamW's moments
    macs: Macs  # of one image forward, as it runs: a model's own fold may multiply less
    norms: Folded | None = None  # where norms were folded


class Subject:
    """A model with random weights at one size of image, on its device: eager, float32, in eval mode."""

    def __init__(self, name: str, size: Size, *, bands: int, classes: int, seed: int, device: torch.device) -> None:
        shape = (1, bands, *size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, self.macs, self.note = _that_takes(name, shape, classes=classes)
            _unsettle(model)
        self.name, self.shape = name, shape
        self.parameters = parameters(model)
        self.model = model.eval().to(device)
        self._bases: dict[tuple[bool, str], Folded] = {}

    def call(self, image: Tensor, *, work: Work, mode: str, precision: str) -> Call:
        """A forward pass, or a step of training, over a batch of images (B, C, H, W), float32, on the device."""
        if work == "training":
            return _training_call(self.model, image, self.macs, mode=mode, precision=precision)
        done = treatments(mode)
        base = self._base(folded="folded" in done, precision=precision)
        layout = torch.channels_last if "channels-last" in done else torch.contiguous_format
        model = _compiled(_sharing(base.model, layout=layout), mode)
        image = image.to(DTYPES[precision]).contiguous(memory_format=layout)

        def run() -> Tensor:
            with torch.inference_mode():
                return model(image)

        folded = base if "folded" in done else None
        macs = self.macs if folded is None else self.folded_macs
        return Call(run, lambda: _scores(run()), _bytes(model), macs, folded)

    def expected(self, image: Tensor, *, work: Work) -> Tensor:
        """The plain model's scores, or its gradients in the first step of training."""
        return self.call(image, work=work, mode=EAGER, precision="fp32").answer()

    @cached_property
    def folded_macs(self) -> Macs:
        """Of one image forward through the folded model."""
        return _macs(self._base(folded=True, precision="fp32").model, self.shape)

    def _base(self, *, folded: bool, precision: str) -> Folded:
        """One copy of the weights for all modes that can share them."""
        if (folded, precision) not in self._bases:
            self._bases[folded, precision] = self._cast(folded=folded, precision=precision)
        return self._bases[folded, precision]

    def _cast(self, *, folded: bool, precision: str) -> Folded:
        if precision != "fp32":
            whole = self._base(folded=folded, precision="fp32")
            return whole._replace(model=_sharing(whole.model, dtype=DTYPES[precision]))
        if not folded:
            return Folded(self.model, folded=0, left=0)
        return fold(_sharing(self.model), self.shape)


def relative_error(found: Tensor, expected: Tensor, *, work: Work, precision: str) -> float | None:
    """Norm of the difference over the norm of what is expected; None where that is zero. ValueError if too large."""
    norm = expected.norm()
    if norm == 0:
        return None
    error = float((found.float() - expected).norm() / norm)
    if not error <= TOLERANCES[work, precision]:
        what = "its output differs" if work == "inference" else "its gradients differ"
        raise ValueError(f"{what} from that of the plain float32 model by {error:.2g}, relative")
    return error


def _that_takes(name: str, shape: tuple[int, ...], *, classes: int) -> tuple[nn.Module, Macs, str | None]:
    """The model, built for this shape of image where it is built for one; its MACs; and what one should know."""
    refusals = []
    for options in _options(name, shape):
        try:
            model = _build(name, bands=shape[1], classes=classes, options=options)
            macs = _macs(model, shape)
        except FOREIGN as error:
            refusals.append(error)
            continue
        return model, macs, _note(model, macs, shape) if refusals else None
    raise _refusal(name, shape, classes=classes, error=refusals[0])


def _options(name: str, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Ways of building it. Where timm knows that it is for one size, for this one, else for its own: it may take others."""
    told = None if name in MODELS else timm.get_pretrained_cfg(name)
    return [{"img_size": shape[2:]}, {}] if told is not None and told.fixed_input_size else [{}]


def _build(name: str, *, bands: int, classes: int, options: dict[str, Any]) -> nn.Module:
    if name in MODELS:
        return create(name, bands=bands, classes=classes)
    return timm.create_model(name, in_chans=bands, num_classes=classes, **options)


def _macs(model: nn.Module, shape: tuple[int, ...]) -> Macs:
    try:
        return count_macs_at(model, shape)
    except NotImplementedError:  # an operator that works on real tensors only
        return count_macs(model, torch.zeros(shape))


def _note(model: nn.Module, macs: Macs, shape: tuple[int, ...]) -> str | None:
    """Of a model that could only be built at its own size: whether it brings every image to that size."""
    own = Size(*model.default_cfg["input_size"][1:])  # type: ignore[index]  # timm's dictionary
    same = macs == _macs(model, (*shape[:2], *own))
    return f"it resizes images to {own} px itself" if same else f"it is built for {own} px"


def _refusal(name: str, shape: tuple[int, ...], *, classes: int, error: Exception) -> Exception:
    """A readable one where a size near this one would do; else the model's own."""
    size = Size(*shape[2:])
    fitting = [str(near) for near in _near(size) if _fits(name, (*shape[:2], *near), classes=classes)]
    if not fitting:
        return error
    return SizeError(f"{name} does not take images of {size} px; of {' and '.join(fitting)} px it does ({first_line(error)})")


def _near(size: Size) -> list[Size]:
    """Up to two sizes, below and above, whose sides are multiples of what most networks divide by."""
    below = Size(*(side // PROBE_PX * PROBE_PX for side in size))
    above = Size(*(-(-side // PROBE_PX) * PROBE_PX for side in size))
    return [near for near in dict.fromkeys((below, above)) if min(near) > 0 and near != size]


def _fits(name: str, shape: tuple[int, ...], *, classes: int) -> bool:
    try:
        with torch.device("meta"):
            model = _build(name, bands=shape[1], classes=classes, options=_options(name, shape)[0])
        count_macs_at(model, shape)
    except FOREIGN:
        return False
    return True


def first_line(error: Exception) -> str:
    """Of what an error says, with its kind."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"[:300]


def _unsettle(model: nn.Module) -> None:
    """Batch norms as after training: new ones do nothing, so that folding them wrongly would not be seen."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            nn.init.normal_(part.running_mean, std=0.1)
            nn.init.uniform_(cast(Tensor, part.running_var), 0.5, 1.5)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.1)


def _sharing(
    model: nn.Module, *, dtype: torch.dtype | None = None, layout: torch.memory_format = torch.contiguous_format
) -> nn.Module:
    """A copy in another precision or layout; tensors that stay as they are, are the same and not copies."""
    memo: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        changed = tensor.detach().to(dtype) if dtype is not None and tensor.is_floating_point() else tensor.detach()
        changed = changed.contiguous(memory_format=layout) if tensor.ndim == 4 else changed  # noqa: PLR2004 - NCHW
        same = changed.dtype == tensor.dtype and changed.data_ptr() == tensor.data_ptr()
        memo[id(tensor)] = tensor if same else (nn.Parameter(changed) if isinstance(tensor, nn.Parameter) else changed)
    return copy.deepcopy(model, memo)


def _compiled(model: nn.Module, mode: str) -> nn.Module:
    for treatment in treatments(mode):
        if treatment in COMPILED:
            model.compile(dynamic=False, options={"freezing": True} if treatment == "frozen" else None)
    return model


def _training_call(plain: nn.Module, image: Tensor, macs: Macs, *, mode: str, precision: str) -> Call:
    """Steps of AdamW on weights of its own: cross-entropy in mixed precision, nothing dropped, so that all is computed."""
    layout = torch.channels_last if "channels-last" in treatments(mode) else torch.contiguous_format
    model = copy.deepcopy(plain).train().to(memory_format=layout)
    _drop_nothing(model)
    target = _target(plain, image)
    image = image.contiguous(memory_format=layout)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    scaler = torch.amp.GradScaler(image.device.type, enabled=precision == "fp16")
    _compiled(model, mode)

    def backward(scale: Callable[[Tensor], Tensor]) -> None:
        with torch.autocast(image.device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
            losses = [F.cross_entropy(scores.float(), target) for scores in _outputs(model(image))]
        scale(torch.stack(losses).sum()).backward()

    def step() -> None:
        backward(scaler.scale)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)

    def gradients() -> Tensor:
        backward(lambda loss: loss)
        found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        optimiser.zero_grad(set_to_none=True)
        return found

    learned = sum(p.numel() * p.element_size() for p in model.parameters())
    return Call(step, gradients, _bytes(model) + 2 * learned, macs)


def _target(plain: nn.Module, image: Tensor) -> Tensor:
    """Classes to learn, drawn for every score vector that the model gives."""
    with torch.no_grad():
        scores = _scores(plain(image))
    shape = (scores.shape[0], *scores.shape[2:])
    return torch.randint(scores.shape[1], shape, generator=torch.Generator().manual_seed(0)).to(image.device)


def _drop_nothing(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, DropPath):
            part.drop_prob = 0.0
        elif isinstance(part, DROPS):
            part.p = 0.0


def _outputs(found: Tensor | dict[str, Tensor] | tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Every output that a loss is put on: of a network with auxiliary heads there are several."""
    if isinstance(found, Tensor):
        yield found
    else:
        yield from found.values() if isinstance(found, dict) else found


def _scores(found: object) -> Tensor:
    if not isinstance(found, Tensor):
        raise TypeError(f"it gives a {type(found).__name__}, not a tensor of scores")
    return found


def _bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in chain(model.parameters(), model.buffers()))
