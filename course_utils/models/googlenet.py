"""GoogLeNet (Szegedy et al. 2014, "Going deeper with convolutions")."""

import torch
from torch import nn

INCEPTION = {  # table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def convolution(in_channels, channels, kernel, batch_norm, stride=1):
    """A convolution that keeps the size of the map (at stride 1), batch norm where asked for, ReLU."""
    layers = [nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(channels))
    return nn.Sequential(*layers, nn.ReLU())


def pool():
    """Max pooling that halves the map; an odd side becomes its smaller half, 7 becomes 3."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


class Inception(nn.Module):
    """Four branches side by side; (N, in_channels, S, S) to (N, c1 + c3 + c5 + c_pool, S, S).

    The first branch and the reductions of the next two, 1 x 1 convolutions of the same input, are computed as one
    (`ones`) and split: the same network, faster (benchmarks/networks.md).
    two_3x3: in the place of the 5 x 5 two 3 x 3, the first of which keeps c5_reduce channels (they see as far).
    reduce: without it, 3 x 3 and 5 x 5 see all input channels, no 1 x 1 before them.
    """

    def __init__(self, in_channels, c1, c3_reduce, c3, c5_reduce, c5, c_pool, batch_norm, two_3x3,
                 reduce=True):  # fmt: skip
        super().__init__()
        self.widths = (c1, c3_reduce, c5_reduce) if reduce else (c1,)
        self.ones = convolution(in_channels, sum(self.widths), 1, batch_norm)
        into_3, into_5 = self.widths[1:] if reduce else (in_channels, in_channels)
        self.branch3 = convolution(into_3, c3, 3, batch_norm)
        self.branch5 = convolution(into_5, c5, 5, batch_norm)
        if two_3x3:
            self.branch5 = nn.Sequential(
                convolution(into_5, c5_reduce, 3, batch_norm), convolution(c5_reduce, c5, 3, batch_norm)
            )
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), convolution(in_channels, c_pool, 1, batch_norm)
        )

    def forward(self, x):  # (N, in_channels, S, S)
        one, *reduced = self.ones(x).split(self.widths, dim=1)  # (N, c1, S, S), ...
        into_3, into_5 = reduced or (x, x)
        return torch.cat([one, self.branch3(into_3), self.branch5(into_5), self.branch_pool(x)], dim=1)


def head(in_channels, channels, hidden, num_classes, small, batch_norm):
    """An auxiliary classifier, (N, in_channels, S, S) to logits; small: from the mean of each map, not from 4 x 4."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1) if small else nn.AvgPool2d(5, stride=3),
        convolution(in_channels, channels, 1, batch_norm),
        nn.Flatten(),
        nn.Linear(channels * (1 if small else 16), hidden),
        nn.ReLU(),
        nn.Dropout(0.7),
        nn.Linear(hidden, num_classes),
    )


class GoogLeNet(nn.Module):
    """A stem, nine Inception modules, the mean of each map, one linear layer; after 4a and 4d an auxiliary head each.

    Input (N, in_channels, S, S). Output logits (N, num_classes); with heads and in training the tuple
    (logits, logits after 4a, logits after 4d). width: of INCEPTION's channels, at least 8 a branch; average: without
    it, the linear layer sees the last map, 4 x 4 of 32 x 32.
    """

    def __init__(self, stem, channels, num_classes, width, batch_norm, two_3x3, heads, dropout, small,
                 reduce=True, average=True):  # fmt: skip
        super().__init__()
        self.stem = stem  # (N, in_channels, S, S) to (N, channels, s, s)
        self.inception, self.heads = nn.ModuleDict(), nn.ModuleDict()
        for name, paper in INCEPTION.items():
            widths = [max(8, round(width * c)) for c in paper]
            self.inception[name] = Inception(channels, *widths, batch_norm, two_3x3, reduce)
            channels = widths[0] + widths[2] + widths[4] + widths[5]
            if heads and name in ("4a", "4d"):
                self.heads[name] = head(
                    channels, round(128 * width), round(1024 * width), num_classes, small, batch_norm
                )
        self.pool3, self.pool4 = pool(), pool()
        side = 1 if average else 4
        last = nn.Linear(channels * side * side, num_classes)
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Dropout(dropout), last)

    def forward(self, x):
        x = self.stem(x)  # (N, 192, 28, 28) of 224 x 224
        x = self.inception["3b"](self.inception["3a"](x))  # (N, 480, 28, 28)
        after_4a = self.inception["4a"](self.pool3(x))  # (N, 512, 14, 14)
        x = self.inception["4c"](self.inception["4b"](after_4a))  # (N, 512, 14, 14)
        after_4d = self.inception["4d"](x)  # (N, 528, 14, 14)
        x = self.inception["4e"](after_4d)  # (N, 832, 14, 14)
        x = self.inception["5b"](self.inception["5a"](self.pool4(x)))  # (N, 1024, 7, 7)
        logits = self.classifier(x)  # (N, num_classes)
        if self.training and self.heads:
            return logits, self.heads["4a"](after_4a), self.heads["4d"](after_4d)
        return logits


def paper_stem(in_channels, width, batch_norm):
    """The stem for 224 x 224; of 32 x 32 it leaves 4 x 4. With batch norm, no LRN."""
    c1, c2 = round(64 * width), round(192 * width)
    lrn = nn.Identity if batch_norm else lambda: nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
    return nn.Sequential(
        convolution(in_channels, c1, 7, batch_norm, stride=2),  # (N, 64, 112, 112)
        pool(),  # (N, 64, 56, 56)
        lrn(),
        convolution(c1, c1, 1, batch_norm),
        convolution(c1, c2, 3, batch_norm),  # (N, 192, 56, 56)
        lrn(),
        pool(),  # (N, 192, 28, 28)
    )


def googlenet(num_classes=1000, in_channels=3, heads=True, two_3x3=False):
    """The network as published, for 224 x 224: 6,998,552 parameters, with both heads 13,378,280.

    Differs from the paper: torch's first weights (the paper does not say its own).
    """
    stem = paper_stem(in_channels, 1, False)
    return GoogLeNet(stem, 192, num_classes, 1, False, two_3x3, heads, 0.4, small=False)


def small_googlenet(num_classes=100, in_channels=3, width=1 / 4, batch_norm=True, heads=False, two_3x3=False,
                    dropout=0.0, stem_224=False, reduce=True, average=True):  # fmt: skip
    """GoogLeNet's nine modules for images of 16 to 32 pixels.

    For experiments: stem_224, the paper's stem all the same; reduce, average: as in Inception and GoogLeNet.
    Differs from the paper: the stem is one 3 x 3 convolution and a pool (the paper's leaves 4 x 4 of 32 x 32);
    batch norm for LRN (2015; larger learning rates); heads see the mean of each map (one
    network takes every size); fewer channels (two cores); no dropout (fewer weights to overfit with).
    """
    channels = round(192 * width)
    stem = nn.Sequential(convolution(in_channels, channels, 3, batch_norm), pool())  # (N, channels, S/2, S/2)
    if stem_224:
        stem = paper_stem(in_channels, width, batch_norm)  # (N, channels, S/8, S/8)
    arguments = (num_classes, width, batch_norm, two_3x3, heads, dropout, True, reduce, average)
    return GoogLeNet(stem, channels, *arguments)


def with_heads(criterion, weight=0.3):
    """A criterion for the tuple that the network gives in training: the heads' losses count `weight` (section 5)."""

    def loss(outputs, y):
        logits, *heads = outputs
        return criterion(logits, y) + weight * sum(criterion(head, y) for head in heads)

    return loss
