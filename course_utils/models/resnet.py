"""ResNet (He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition")."""

import torch.nn.functional as F
from torch import nn


def conv3x3(in_channels, channels, stride=1):
    """A 3 x 3 convolution without bias: batch norm follows and has one."""
    return nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)


class PadChannels(nn.Module):
    """Shortcut A: every `stride`-th pixel, and zeros for the channels that are missing. No parameters."""

    def __init__(self, stride, missing):
        super().__init__()
        self.stride, self.missing = stride, missing

    def forward(self, x):  # (N, C, H, W)
        x = x[:, :, :: self.stride, :: self.stride]  # (N, C, H/stride, W/stride)
        return F.pad(x, (0, 0, 0, 0, 0, self.missing))  # (N, C + missing, H/stride, W/stride)


def make_shortcut(kind, in_channels, channels, stride):
    """What is added to a block's output: the identity where shapes agree, else A (zeros) or B (projection)."""
    if kind not in ("A", "B", False):
        raise ValueError(
            f"shortcut is {kind!r}; expected 'A' (zeros), 'B' (projection) or False (a plain network)."
        )
    if not kind:
        return None
    if stride == 1 and in_channels == channels:
        return nn.Identity()
    if kind == "A":
        return PadChannels(stride, channels - in_channels)
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (section 3.2); (N, in_channels, H, W) to (N, channels, H/s, W/s)."""

    expansion = 1

    def __init__(self, in_channels, channels, stride, shortcut):
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = make_shortcut(shortcut, in_channels, channels, stride)

    def forward(self, x):  # (N, in_channels, H, W)
        out = F.relu(self.bn1(self.conv1(x)))  # (N, channels, H/stride, W/stride)
        out = self.bn2(self.conv2(out))  # (N, channels, H/stride, W/stride)
        return F.relu(out if self.downsample is None else out + self.downsample(x))


class Bottleneck(nn.Module):
    """1 x 1 to fewer channels, 3 x 3, 1 x 1 to four times as many, and a shortcut (section 4.1).

    Differs from the paper: the stride is on the 3 x 3 (as in torchvision), not on the first 1 x 1, which would
    not look at three pixels of four.
    """

    expansion = 4

    def __init__(self, in_channels, channels, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.downsample = make_shortcut(shortcut, in_channels, 4 * channels, stride)

    def forward(self, x):  # (N, in_channels, H, W)
        out = F.relu(self.bn1(self.conv1(x)))  # (N, channels, H, W)
        out = F.relu(self.bn2(self.conv2(out)))  # (N, channels, H/stride, W/stride)
        out = self.bn3(self.conv3(out))  # (N, 4 * channels, H/stride, W/stride)
        return F.relu(out if self.downsample is None else out + self.downsample(x))


def stage(block, blocks, in_channels, channels, stride, shortcut):
    """`blocks` blocks one after another; the first has the stride and changes the channels."""
    first = block(in_channels, channels, stride, shortcut)
    out = channels * block.expansion
    return nn.Sequential(first, *(block(out, channels, 1, shortcut) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """A stem, three or four stages of blocks, the mean of each map, one linear layer; names as in torchvision.

    Input (N, in_channels, S, S), output logits (N, num_classes). blocks, channels: of each stage; every stage but
    the first halves the map. stem_224: 7 x 7 with stride 2 and a max pool, else one 3 x 3.
    """

    def __init__(self, block, blocks, channels, num_classes, in_channels, shortcut, stem_224):
        super().__init__()
        c1, c2, c3, *c4 = channels
        if stem_224:
            self.conv1 = nn.Conv2d(in_channels, c1, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = conv3x3(in_channels, c1)
        self.bn1 = nn.BatchNorm2d(c1)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem_224 else nn.Identity()
        wider = block.expansion
        self.layer1 = stage(block, blocks[0], c1, c1, 1, shortcut)
        self.layer2 = stage(block, blocks[1], c1 * wider, c2, 2, shortcut)
        self.layer3 = stage(block, blocks[2], c2 * wider, c3, 2, shortcut)
        self.layer4 = stage(block, blocks[3], c3 * wider, *c4, 2, shortcut) if c4 else nn.Identity()
        self.fc = nn.Linear(channels[-1] * wider, num_classes)

    def forward(self, x):  # ResNet-18 of 224 x 224         ResNet-20 of 32 x 32
        x = F.relu(self.bn1(self.conv1(x)))  # (N, 64, 112, 112)     (N, 16, 32, 32)
        x = self.maxpool(x)  # (N, 64, 56, 56)       none
        x = self.layer1(x)  # (N, 64, 56, 56)       (N, 16, 32, 32)
        x = self.layer2(x)  # (N, 128, 28, 28)      (N, 32, 16, 16)
        x = self.layer3(x)  # (N, 256, 14, 14)      (N, 64, 8, 8)
        x = self.layer4(x)  # (N, 512, 7, 7)        none
        return self.fc(x.mean((2, 3)))  # (N, num_classes)


RESNET_LAYERS = {  # table 1: the block, and how many in each stage
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


def resnet(depth=18, num_classes=1000, in_channels=3, shortcut="B"):
    """The network for 224 x 224 (table 1) of depth 18, 34 or 50: 11,689,512, 21,797,672, 25,557,032 parameters.

    Input (N, in_channels, 224, 224), output logits (N, num_classes).
    Differs from the paper: torch's first weights (He's are larger); shortcut B at every depth, as in torchvision (the
    paper's table 2 has A for 18 and 34).
    """
    if depth not in RESNET_LAYERS:
        raise ValueError(f"depth is {depth}; expected one of {', '.join(map(str, RESNET_LAYERS))}.")
    return ResNet(
        *RESNET_LAYERS[depth], (64, 128, 256, 512), num_classes, in_channels, shortcut, stem_224=True
    )


def small_resnet(depth=20, num_classes=100, in_channels=3, width=1, shortcut="A", stem_224=False):
    """The paper's network for 32 x 32 (section 4.2), depth 6n + 2: 20 has 269,722 parameters with 10 classes.

    Input (N, in_channels, S, S), S from 4, output logits (N, num_classes). width: of its 16, 32, 64 channels;
    shortcut: "A", the paper's here, "B", or False for the plain network; stem_224: the stem for 224 x 224 all the same.
    Differs from the paper: torch's first weights. He's are sqrt(6) times as wide: the same outputs behind batch norm,
    and steps that count less.
    """
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"depth is {depth}; expected 6n + 2: 8, 14, 20, 32, 44, 56.")
    channels = [round(width * c) for c in (16, 32, 64)]
    return ResNet(BasicBlock, (n, n, n), channels, num_classes, in_channels, shortcut, stem_224)
