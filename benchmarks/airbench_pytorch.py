"""airbench94 as its author trains it, written anew in PyTorch, for a processor.

arXiv 2404.00498: the loss is summed over a batch, rates and decay are given for 1,024
images and a momentum of 0.85; 9.9 epochs of whole batches. In bfloat16 with channels
last; the author has float16.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch._dynamo  # before TensorFlow: the LLVM of Triton, its part, aborts
from torch import nn
from torch.nn import functional as F
from torch_twins import airbench94

BATCH, EPOCHS, EVERY = 1024, 9.9, 5  # steps between blendings of the slow average
MOMENTUM, BIAS_RATE, BIAS_EPOCHS = 0.85, 64, 3
PER_IMAGE = 1024 * (1 + 1 / (1 - MOMENTUM))
RATE, DECAY = 11.5 / PER_IMAGE, 0.0153 * BATCH / PER_IMAGE


def prepare(images, labels, seed: int) -> tuple[Callable, Callable, int]:
    """Return what trains an epoch, what measures images, and the number of epochs.

    `images` are uint8 (N, 32, 32, 3). `measure(images, labels)` returns the part that
    is right, with one view.
    """
    torch.manual_seed(seed)
    x, y = torch.from_numpy(images) / 255.0, torch.from_numpy(labels).long()
    mean, deviation = x.mean((0, 1, 2)), x.std((0, 1, 2))

    def tensor(pixels):  # (N, 3, 32, 32)
        scaled = (torch.from_numpy(pixels) / 255.0 - mean) / deviation
        return scaled.permute(0, 3, 1, 2)

    x = tensor(images)
    model = _initialized(x[:5000])
    steps = math.ceil(EPOCHS * (len(x) // BATCH))
    norms, others = [], []
    for layer in model:
        (norms if isinstance(layer, nn.BatchNorm2d) else others).append(layer)
    groups = [
        {
            "params": [
                p for layer in part for p in layer.parameters() if p.requires_grad
            ],
            "lr": rate,
            "weight_decay": DECAY / rate,
        }
        for part, rate in ((norms, BIAS_RATE * RATE), (others, RATE))
    ]
    optimizer = torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM, nesterov=True)
    points = (0, int(0.23 * steps), steps), (0.2, 1, 0.07)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: float(np.interp(step, *points))
    )
    slow = {name: value.clone() for name, value in model.state_dict().items()}
    mirrored = torch.rand(len(x)) < 0.5
    x[mirrored] = x[mirrored].flip(-1)
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    done = 0

    def blend(share):
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    slow[name].lerp_(value, 1 - share)
                    value.copy_(slow[name])

    def epoch(number):
        nonlocal done
        model.train()
        model[0].bias.requires_grad = number < BIAS_EPOCHS
        order = torch.randperm(len(x)).split(BATCH)
        for chosen in order[: len(x) // BATCH]:
            batch = _cropped(padded[chosen])
            batch = batch.flip(-1) if number % 2 else batch
            batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(batch)
            smoothed = {"label_smoothing": 0.2, "reduction": "sum"}
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(logits.float(), y[chosen], **smoothed).backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done % EVERY == 0:
                blend(0.95**EVERY * (done / steps) ** 3)
            if done == steps:
                return blend(1.0)

    def measure(pixels, answers):
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = [model(part).argmax(1) for part in tensor(pixels).split(1000)]
        return (torch.cat(found) == torch.from_numpy(answers)).float().mean().item()

    return epoch, measure, math.ceil(EPOCHS)


def _initialized(x) -> nn.Module:
    """Return the network with whitening filters, and identities as convolutions."""
    model = airbench94().to(memory_format=torch.channels_last)
    patches = F.unfold(x, 2).transpose(1, 2).reshape(-1, 12)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
    model[0].weight.data[:] = torch.cat([filters, -filters])
    model[0].bias.data.zero_()
    for layer in model[1:]:
        if isinstance(layer, nn.Conv2d):
            nn.init.dirac_(layer.weight.data[: layer.in_channels])
    return model


def _cropped(padded):
    """Cut a window of 32x32 out of each image, at a place of its own."""
    views = padded.unfold(2, 32, 1).unfold(3, 32, 1)  # (N, 3, 5, 5, 32, 32)
    rows, columns = torch.randint(5, (2, len(padded)))
    return views[torch.arange(len(padded)), :, rows, columns]
