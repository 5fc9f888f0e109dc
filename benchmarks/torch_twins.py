"""PyTorch's twins of five networks of the zoo, written as its users write them."""

import itertools

import torch
from torch import nn


def build(name: str) -> nn.Module:
    """Return the twin of `zoo.build(name)`, which ends in logits.

    Raises:
        ValueError: the network has no twin here.
    """
    twins = {
        "lecture_cnn": lecture_cnn,
        "dense_mlp": dense_mlp,
        "nin": nin,
        "resnet20": ResNet20,
        "airbench94": airbench94,
    }
    if name not in twins:
        raise ValueError(f"{name} has no twin; those that have: {', '.join(twins)}")
    return twins[name]()


def lecture_cnn() -> nn.Module:
    """Three times convolution and pooling, filters of 5x5, then a dense layer."""
    layers: list[nn.Module] = []
    for inputs, filters in ((3, 32), (32, 16), (16, 32)):
        layers += [
            nn.Conv2d(inputs, filters, 5, padding=2, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10, bias=False))


def dense_mlp() -> nn.Module:
    """3072-8192-1024-512-10 without offsets."""
    sizes = (3072, 8192, 1024, 512)
    layers: list[nn.Module] = [nn.Flatten()]
    for size, units in itertools.pairwise(sizes):
        layers += [nn.Linear(size, units, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(512, 10, bias=False))


def nin() -> nn.Module:
    """Network in Network: three blocks of a convolution and two of 1x1."""
    layers: list[nn.Module] = []
    inputs = 3
    for block in (
        ((5, 192), (1, 160), (1, 96)),
        ((5, 192), (1, 192), (1, 192)),
        ((3, 192), (1, 192), (1, 10)),
    ):
        if layers:
            layers += [nn.MaxPool2d(3, 2, padding=1), nn.Dropout(0.5)]
        for size, filters in block:
            layers += [nn.Conv2d(inputs, filters, size, padding="same"), nn.ReLU()]
            inputs = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class _Block(nn.Module):
    def __init__(self, inputs: int, filters: int):
        super().__init__()
        self.stride = filters // inputs
        self.added = filters - inputs
        self.conv1 = nn.Conv2d(
            inputs, filters, 3, stride=self.stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.added:
            x = x[:, :, :: self.stride, :: self.stride]
            x = nn.functional.pad(x, (0, 0, 0, 0, 0, self.added))
        return torch.relu(x + y)


class ResNet20(nn.Module):
    """Three stages of three blocks; the shortcuts of option A have no weights."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        ]
        inputs = 16
        for filters in (16, 32, 64):
            for _ in range(3):
                layers.append(_Block(inputs, filters))
                inputs = filters
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.body(x))


def airbench94() -> nn.Module:
    """Frozen 2x2 filters, three blocks of two convolutions, as the author's code has.

    Batch normalisations have offsets and no scales; the features are divided by 9.
    """
    whitening = nn.Conv2d(3, 24, 2)
    whitening.weight.requires_grad = False
    layers: list[nn.Module] = [whitening, nn.GELU()]
    inputs = 24
    for filters in (64, 256, 256):
        for part in ((nn.MaxPool2d(2),), ()):
            norm = nn.BatchNorm2d(filters, eps=1e-12, momentum=0.4)
            norm.weight.requires_grad = False
            layers += [
                nn.Conv2d(inputs, filters, 3, padding=1, bias=False),
                *part,
                norm,
                nn.GELU(),
            ]
            inputs = filters
    return nn.Sequential(
        *layers, nn.MaxPool2d(3), nn.Flatten(), _Ninth(), nn.Linear(256, 10, bias=False)
    )


class _Ninth(nn.Module):
    def forward(self, x):
        return x / 9
