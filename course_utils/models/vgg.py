"""VGG (Simonyan & Zisserman 2014, "Very deep convolutional networks for large-scale image recognition")."""

from itertools import pairwise

from torch import nn

VGG_LAYERS = {  # table 1: channels of each 3 x 3 convolution, M: max pooling
    "A": (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "B": (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    "D": (64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3, "M"),
    "E": (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
    "B5": (64, "M", 128, "M", 256, "M", 512, "M", 512, "M"),  # one 5 x 5 for each pair of B (section 4.1)
}


class VGG(nn.Module):
    """3 x 3 convolutions in five stages, a max pool after each, then linear layers.

    Input (N, in_channels, S, S), output logits (N, num_classes). layers: a row of VGG_LAYERS; width: of its
    channels; head: widths of the hidden linear layers, dropout after each; pool: the last one, which leaves
    side x side values a map.
    Names as in torchvision, whose files load as they are.
    """

    def __init__(self, layers, num_classes, in_channels, width, batch_norm, head, dropout, pool, side):
        super().__init__()
        if layers not in VGG_LAYERS:
            raise ValueError(f"layers is {layers!r}; expected one of {', '.join(VGG_LAYERS)}.")
        features, kernel = [], 5 if layers == "B5" else 3
        for channels in VGG_LAYERS[layers][:-1]:  # the last M is `pool`
            if channels == "M":
                features.append(nn.MaxPool2d(2))
                continue
            channels = round(width * channels)
            features.append(nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2))
            if batch_norm:
                features.append(nn.BatchNorm2d(channels))
            features.append(nn.ReLU())
            in_channels = channels
        self.features = nn.Sequential(*features)
        self.pool = pool
        widths = [in_channels * side * side, *head]
        classifier = []
        for before, after in pairwise(widths):
            classifier += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.classifier = nn.Sequential(*classifier, nn.Linear(widths[-1], num_classes))

    def forward(self, x):  # (N, in_channels, S, S)
        x = self.features(x)  # (N, C, S/16, S/16)
        x = self.pool(x)  # (N, C, side, side)
        return self.classifier(x.flatten(1))  # (N, num_classes)


def vgg(layers="D", num_classes=1000, in_channels=3, batch_norm=False, dropout=0.5):
    """The network as published, for 224 x 224. A, B, D, E: VGG-11, 13, 16, 19; D has 138,357,544 parameters.

    Differs from the paper: torch's first weights (the paper starts the deep ones from a trained A: one training
    less); batch_norm (2015) as an option, as in torchvision: deep ones learn without that start.
    """
    pool = nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(7))  # the second does nothing at 224 pixels
    return VGG(layers, num_classes, in_channels, 1, batch_norm, (4096, 4096), dropout, pool, side=7)


def small_vgg(layers="A", num_classes=100, in_channels=3, width=3 / 8, batch_norm=True, head=(), dropout=0.5):
    """VGG's convolutions for images of 16 to 32 pixels; layers "A" has VGG-11's eight.

    Differs from the paper: the last pool leaves one value a map, so that one network takes every size, and one
    linear layer follows (head=(); a fifteenth of the parameters that two hidden layers of 4,096 make of it); batch
    norm (2015; larger learning rates); fewer channels (two cores).
    """
    pool = nn.AdaptiveMaxPool2d(1)
    return VGG(layers, num_classes, in_channels, width, batch_norm, head, dropout, pool, side=1)
