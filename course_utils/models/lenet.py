"""LeNet-5 (LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition")."""

import torch.nn.functional as F
from torch import nn


class LeNet5(nn.Module):
    """LeNet-5 as it is written today: 61,706 parameters, 416,520 multiply-adds for 1 x 28 x 28, 10 classes.

    Input (N, in_channels, 28, 28), for padding=0 (N, in_channels, 32, 32); output logits (N, num_classes).
    Differs from the paper: ReLU, not the scaled tanh, and max pooling, not trainable averages (the usual
    choice since 2012); every map of conv2 sees all six maps of conv1 (the paper has a table of connections);
    the output is ten logits, not distances to ten fixed patterns (cross-entropy needs logits).
    """

    def __init__(self, num_classes=10, in_channels=1, padding=2):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5, padding=padding)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x):  # (N, 1, 28, 28)
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # (N, 6, 14, 14)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # (N, 16, 5, 5)
        x = x.flatten(1)  # (N, 400)
        x = F.relu(self.fc1(x))  # (N, 120)
        x = F.relu(self.fc2(x))  # (N, 84)
        return self.fc3(x)  # (N, 10)
