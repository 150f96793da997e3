"""The loss around a trained network, along two random directions: plain-56 beside ResNet-56 (Li et al. 2018).

python benchmarks/surface.py                  on CIFAR-100; half an hour on a core; writes surface.json and surface.png
python benchmarks/surface.py --out FOLDER     there

Both networks as in the comparison "plain against residual" of tables.py, at its middle learning rate, seed 0. A direction
is drawn at random and each filter of it scaled to the norm of the network's own filter; biases and batch norm stay as
they are (Li et al., "Visualizing the loss landscape of neural nets", section 4). Cross-entropy in evaluation mode on 1,000
training images without augmentation, at 25 x 25 points from -1 to 1.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from claims import TABLES, precision, rates, spec
from one_run import Recorder, build, parts, trained
from torch import nn

from course_utils import ledger, plots, settings
from course_utils.data import TensorLoader
from course_utils.data.arrays import first_of_each

NETWORKS, POINTS, IMAGES = ("plain-56", "ResNet-56"), 25, 1000


def direction(net: nn.Module, seed: int) -> list[torch.Tensor]:
    """A random direction, a tensor a parameter; each filter (row) as long as the network's; none for one dimension."""
    draw, found = torch.Generator().manual_seed(seed), []
    for p in net.parameters():
        d = torch.zeros(p.shape)
        if p.ndim > 1:
            rows = torch.randn(p.shape, generator=draw).flatten(1)
            own = p.detach().cpu().flatten(1).norm(dim=1, keepdim=True)
            d = (rows / rows.norm(dim=1, keepdim=True) * own).view(p.shape)
        found.append(d.to(p.device))
    return found


@torch.no_grad()
def surface(net: nn.Module, x: torch.Tensor, y: torch.Tensor, points: int = POINTS) -> np.ndarray:
    """Mean cross-entropy of the images x (N, C, S, S) with labels y at points x points weights: (points, points)."""
    net.eval()
    own = [p.clone() for p in net.parameters()]
    a, b = direction(net, 1), direction(net, 2)
    steps, losses = torch.linspace(-1, 1, points).tolist(), np.zeros((points, points))
    for i, s in enumerate(steps):
        for j, t in enumerate(steps):
            for p, w, da, db in zip(net.parameters(), own, a, b, strict=True):
                p.copy_(w + s * da + t * db)
            losses[i, j] = F.cross_entropy(net(x), y).item()
    for p, w in zip(net.parameters(), own, strict=True):
        p.copy_(w)
    return losses


def main() -> None:
    """Train both, look around each, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write into this folder; default: benchmarks/")
    out = parser.parse_args().out or ledger.folder("benchmarks")
    comparison = next(one for one in TABLES["resnet"] if one["name"] == "plain against residual")
    found = {"images": IMAGES, "precision": precision(comparison), "networks": {}}
    found |= {"machine": ledger.machine()} | ledger.today_and_commit()
    for name in NETWORKS:
        values = spec("resnet", comparison, name) | {"peak_lr": sorted(rates(comparison, name))[1]}
        rest, _, mean, std = parts(values["data"], values["limit"])
        how = {"sizes": values["sizes"], "mean": mean, "std": std}
        train = TensorLoader(
            rest, values["batch_size"], train=True, shift=values["shift"], flip=values["flip"], **how
        )
        settings.seed_all(0)
        net = build(values, {"num_classes": len(rest.classes), "in_channels": rest.images.shape[1]})
        net, history = trained(net, values, train, None, precision(comparison), Recorder(()))
        x, y = next(iter(TensorLoader(first_of_each(rest, IMAGES), IMAGES, **how)))
        losses = surface(net, x, y)
        found["networks"][name] = {
            "train_error": 1 - history["top1"][-1] if history else None,
            "loss": [[round(v, 4) for v in row] for row in losses.tolist()],
        }
        print(name, found["networks"][name]["train_error"], losses.min(), losses.max(), flush=True)
    ledger.write_json(found, out / "surface.json")
    draw(found, out / "surface.png")


def draw(found: dict, file: Path) -> None:
    """Both surfaces as contours, on one scale."""
    import matplotlib

    matplotlib.use("Agg")
    steps, levels = np.linspace(-1, 1, POINTS), np.geomspace(0.5, 50, 21)
    title = "The loss around a trained network: without shortcuts, and with"
    with plots.figure(title, 1, 2, (9, 4.2), file) as axes:
        for ax, (name, one) in zip(axes, found["networks"].items(), strict=True):
            loss = np.clip(np.array(one["loss"]), levels[0], levels[-1])
            drawn = ax.contourf(steps, steps, loss.T, levels, norm="log", cmap="viridis")
            ax.set_title(name)
            ax.set_xlabel("first direction")
            ax.set_ylabel("second direction")
        ticks = (0.5, 1, 2, 4, 8, 16, 32)
        bar = axes[0].figure.colorbar(drawn, ax=axes, ticks=ticks, format="%g")
        bar.set_label("cross-entropy (nats), clipped to 0.5..50")


if __name__ == "__main__":
    main()
