"""What the lessons of A Deep Dive into CNNs import: data, training, networks, figures."""

__version__ = "0.1.0"
