"""What two processes compute on halves of a batch, beside what each computes on the whole of it; see test_together.py.

torchrun --nproc-per-node 2 shares.py FOLDER writes the answers of process N to FOLDER/N.pt.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from terralean.errors import ConfigError, LabelError, TerraleanError
from terralean.models import create
from terralean.tasks.segmentation import LossConfig, SegmentationLoss
from terralean.tasks.together import sum_over_processes
from terralean.train.group import joined
from terralean.train.norm import synchronise
from terralean.train.processes import Processes

CPU = torch.device("cpu")
NORMS = {
    "1d": (nn.BatchNorm1d(3), (6, 3)),
    "2d": (nn.BatchNorm2d(3), (6, 3, 4, 5)),
    "3d": (nn.BatchNorm3d(3), (6, 3, 2, 3, 2)),
    "with activation": (BatchNormAct2d(3, inplace=False), (6, 3, 4, 5)),
    "mean of all batches": (nn.BatchNorm2d(3, momentum=None), (6, 3, 4, 5)),
    "without weights": (nn.BatchNorm2d(3, affine=False), (6, 3, 4, 5)),
    "without statistics": (nn.BatchNorm2d(3, track_running_stats=False), (6, 3, 4, 5)),
    "of large values": (nn.BatchNorm2d(3), (6, 3, 4, 5)),
}


def norm(name, rank):
    """Output, gradients and buffers after two batches: of a half as it is and of the whole as it should be."""
    module, shape = NORMS[name]
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    shift = 1000.0 if name == "of large values" else 0.0
    batches = [torch.randn(shape) * torch.tensor([1.0, 3.0, 0.1]).view(-1, *[1] * (len(shape) - 2)) + shift for _ in range(2)]
    weight = torch.randn(shape)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    want = _pass(module, batches, weight, slice(rank, None, 2))
    module.load_state_dict(state)
    shared = synchronise(nn.Sequential(module), device=CPU)
    assert list(shared.state_dict()) == [f"0.{key}" for key in state]
    assert type(shared[0]) is not type(module)
    found = _pass(shared, [batch[rank::2] for batch in batches], weight[rank::2], slice(None))
    found["parameters"] = [sum_over_processes(gradient) for gradient in found["parameters"]]
    return {"want": want, "found": found}


def _pass(module, batches, weight, part):
    module.train()
    module.zero_grad()
    module(batches[0])
    x = batches[1].clone().requires_grad_()
    y = module(x)
    (y * weight).sum().backward()
    buffers = [buffer.clone() for buffer in module.buffers()]
    evaluated = module.eval()(batches[0][part])
    gradients = [parameter.grad.clone() for parameter in module.parameters()]
    return {
        "y": y[part].detach(),
        "x": x.grad[part],
        "parameters": gradients,
        "buffers": buffers,
        "evaluated": evaluated.detach(),
    }


def loss(rank):
    """The loss and the scores' gradient; one half of the batch has fewer labels and lacks a class."""
    torch.manual_seed(2)
    mask = torch.randint(0, 3, (4, 6, 6))
    mask[1::2][mask[1::2] == 2] = 255
    output = {name: torch.randn(4, 3, 6, 6) for name in ("scores", "auxiliary")} | {"foreground": torch.randn(4, 1, 6, 6)}
    compare = SegmentationLoss(LossConfig(label_smoothing=0.1), class_pixels=[5, 3, 1], background=0)
    whole = {name: value.clone().requires_grad_() for name, value in output.items()}
    half = {name: value[rank::2].clone().requires_grad_() for name, value in output.items()}
    found = compare(half, mask[rank::2])
    found.backward()
    own = compare.eval()(half, mask[rank::2])
    want = compare(whole, mask)  # in evaluation the loss is that of the batch at hand
    want.backward()
    return {
        "want": (want.detach(), {name: value.grad[rank::2] for name, value in whole.items()}),
        # As DistributedDataParallel takes the mean over processes.
        "found": (found.detach(), {name: value.grad / 2 for name, value in half.items()}),
        "own": own.detach(),
    }


def model(rank):
    """Gradients of a whole model: norm of the difference over the norm, of all parameters together."""
    torch.manual_seed(3)
    image, mask = torch.randn(4, 3, 64, 64), torch.randint(0, 4, (4, 64, 64))
    mask[2:, :40] = 255
    compare = SegmentationLoss(LossConfig(), class_pixels=[4, 3, 2, 1])
    whole = create("lemevit_tiny_light", bands=3, classes=4)
    half = create("lemevit_tiny_light", bands=3, classes=4)
    half.load_state_dict(whole.state_dict())
    half = DistributedDataParallel(synchronise(half, device=CPU))
    compare(half(image[rank::2]), mask[rank::2]).backward()
    compare.eval()(whole(image), mask).backward()
    found, want = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (half, whole))
    buffers = [torch.cat([b.flatten().double() for b in m.buffers()]) for m in (half, whole)]
    return {
        "gradients": float((found - want).norm() / want.norm()),
        "buffers": float((buffers[0] - buffers[1]).norm() / buffers[1].norm()),
    }


def word(group, rank):
    """What each process hears of the others."""

    def mistake(of, text):
        if rank in of:
            raise ConfigError(text)
        return rank * 10

    return {
        "names": group.names,
        "every": group.every(lambda: mistake((), "")),
        "first": group.first(lambda: {"said by": rank}),
        "same": group.compare({"lr": 0.1, "seed": 3}),
        "one failed": _error(lambda: group.every(lambda: mistake((1,), "no such folder"))),
        "all failed": _error(lambda: group.every(lambda: mistake((0, 1), "no such folder"))),
        "first failed": _error(lambda: group.first(lambda: mistake((0,), "disk full"))),
        "differ": _error(lambda: group.compare({"lr": 0.1, "seed": rank})),
        "differ much": _error(lambda: group.compare({f"setting {i}": rank for i in range(9)})),
        # Last, as it ends what they do together: process 1 fails, process 0 waits for it in vain.
        "broken": _error(lambda: _train(group, rank)),
    }


def _train(group, rank):
    with group.telling():
        if rank == 1:
            raise LabelError("mask holds 77")
        while not group.store.check(["failed"]):
            pass
        raise RuntimeError("Connection closed by peer")


def _error(action):
    try:
        action()
    except TerraleanError as error:
        return type(error).__name__, str(error)
    return None


def main(folder):
    rank = int(os.environ["RANK"])
    with joined(Processes(device=CPU, count=2, rank=rank, here=2, launcher="torchrun")) as group:
        answers = {
            "norm": {name: norm(name, rank) for name in NORMS},
            "loss": loss(rank),
            "model": model(rank),
            "word": word(group, rank),
        }
        torch.save(answers, Path(folder, f"{rank}.pt"))
    assert not dist.is_initialized()


main(sys.argv[1])
