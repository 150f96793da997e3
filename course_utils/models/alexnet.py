"""AlexNet (Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural networks")."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import nn


def alexnet(num_classes=1000, in_channels=3):
    """The network as published: 60,965,224 parameters, 724,406,816 multiply-adds for 3 x 227 x 227.

    Input (N, in_channels, 227, 227), output logits (N, num_classes). Two groups, one for each of two GPUs:
    the second, fourth and fifth convolution see half of the maps. torch divides LRN's alpha by the window's
    size, as the authors' released code does: 5e-4 follows the printed formula, 1e-4 would follow that code.
    The paper says 224 pixels; its count of 55 x 55 maps needs 227 without padding.
    Differs from the paper: torch's initialization (the paper: deviation 0.01, biases of 1 in five layers);
    dropout scales in training, so that evaluation does nothing (the paper halves there).
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_channels, 96, 11, stride=4),  # (N, 96, 55, 55)
            relu1=nn.ReLU(),
            norm1=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            pool1=nn.MaxPool2d(3, stride=2),  # (N, 96, 27, 27)
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=2),  # (N, 256, 27, 27)
            relu2=nn.ReLU(),
            norm2=nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            pool2=nn.MaxPool2d(3, stride=2),  # (N, 256, 13, 13)
            conv3=nn.Conv2d(256, 384, 3, padding=1),  # (N, 384, 13, 13)
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=2),  # (N, 384, 13, 13)
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=2),  # (N, 256, 13, 13)
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, stride=2),  # (N, 256, 6, 6)
            flatten=nn.Flatten(),  # (N, 9216)
            fc6=nn.Linear(256 * 6 * 6, 4096),  # (N, 4096)
            relu6=nn.ReLU(),
            drop6=nn.Dropout(0.5),
            fc7=nn.Linear(4096, 4096),  # (N, 4096)
            relu7=nn.ReLU(),
            drop7=nn.Dropout(0.5),
            fc8=nn.Linear(4096, num_classes),  # (N, num_classes)
        )
    )


class PoolTo3(nn.Module):
    """Max pooling of a square map to 3 x 3: one kernel and stride for all windows.

    nn.AdaptiveMaxPool2d(3) differs between devices where 3 does not divide the side (pytorch issue 190064).
    """

    def forward(self, x):  # (N, C, S, S), S >= 3
        side = x.shape[-1]
        return F.max_pool2d(x, side - 2 * (side // 3), stride=side // 3)  # (N, C, 3, 3)


def convolution(in_channels, channels, kernel, batch_norm, lrn, activation):
    """A convolution that keeps the size of the map, with its normalization and activation."""
    layers = [nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=not batch_norm)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(channels))
    layers.append(activation())
    if lrn:
        layers.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2))
    return nn.Sequential(*layers)


def small_alexnet(num_classes=100, in_channels=3, width=1 / 2, hidden=512, batch_norm=True, lrn=False,
                  overlapping=True, dropout=0.1, activation=nn.ReLU):  # fmt: skip
    """AlexNet's five convolutions and three linear layers for images of 20 to 32 pixels.

    Input (N, in_channels, S, S), S from 20, output logits (N, num_classes). width: of the paper's channels;
    hidden: of both hidden linear layers; lrn: after the first two convolutions; overlapping: the first two
    pools of 3 with stride 2, else of 2; activation: a module class, nn.ReLU or nn.Tanh.
    Differs from the paper: a 5 x 5 stem of stride 1 (11 x 11 with stride 4 leaves 6 x 6 of 32 x 32); pools
    padded by 1 and the last one to 3 x 3, so that one network takes every size; batch norm, not LRN (larger
    learning rates); one group (the groups were for two GPUs); fewer channels, hidden units and less dropout
    (50,000 images and two cores).
    """
    c1, c2, c3, c4, c5 = (round(width * channels) for channels in (96, 256, 384, 384, 256))

    def pool():
        return nn.MaxPool2d(3, stride=2, padding=1) if overlapping else nn.MaxPool2d(2)

    return nn.Sequential(
        OrderedDict(
            conv1=convolution(in_channels, c1, 5, batch_norm, lrn, activation),  # (N, c1, S, S)
            pool1=pool(),  # (N, c1, S/2, S/2)
            conv2=convolution(c1, c2, 5, batch_norm, lrn, activation),  # (N, c2, S/2, S/2)
            pool2=pool(),  # (N, c2, S/4, S/4)
            conv3=convolution(c2, c3, 3, batch_norm, False, activation),  # (N, c3, S/4, S/4)
            conv4=convolution(c3, c4, 3, batch_norm, False, activation),  # (N, c4, S/4, S/4)
            conv5=convolution(c4, c5, 3, batch_norm, False, activation),  # (N, c5, S/4, S/4)
            pool5=PoolTo3(),  # (N, c5, 3, 3)
            flatten=nn.Flatten(),  # (N, 9 * c5)
            fc6=nn.Linear(9 * c5, hidden),  # (N, hidden)
            act6=activation(),  # (N, hidden)
            drop6=nn.Dropout(dropout),
            fc7=nn.Linear(hidden, hidden),  # (N, hidden)
            act7=activation(),  # (N, hidden)
            drop7=nn.Dropout(dropout),
            fc8=nn.Linear(hidden, num_classes),  # (N, num_classes)
        )
    )
