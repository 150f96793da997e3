"""The training loop and evaluation (lesson 04), and the small helpers that the loop calls."""

import functools
import math
import os
import time
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from course_utils.checkpoints import (
    CheckpointError,
    Run,
    add_row,
    close_checkpoint,
    line,
    open_checkpoint,
    save_checkpoint,
    set_epoch,
)
from course_utils.settings import autocast, device
from course_utils.settings import precision as precision_name

__all__ = ["CheckpointError", "evaluate", "fit", "train_epoch"]


def train_epoch(
    model, batches, criterion, optimizer, scheduler=None, scaler=None, precision="float32", watch=None
):
    """One pass over batches (x, y): mean loss, top-1 (both as the weights change) and images seen."""
    model.train()
    scaler = scaler or torch.amp.GradScaler(device().type, enabled=False)
    loss_sum, correct, seen = 0.0, 0, 0
    for x, y in batches:
        x, y = to_device(x), to_device(y)  # (B, C, H, W), (B,)
        with autocast(precision):
            output = model(x)  # logits, or a tuple that begins with them
            loss = criterion(output, y)  # mean over the batch
        logits = output[0] if isinstance(output, tuple) else output  # (B, classes)
        if watch:
            watch(loss, logits, y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if scheduler:
            scheduler.step()
        loss_sum += loss.item() * len(y)
        correct += (logits.argmax(1) == y).sum().item()
        seen += len(y)
    return loss_sum / seen, correct / seen, seen


@torch.no_grad()
def evaluate(model, loader, flip=False):
    """Score a network in float32: loss (cross-entropy), top1, top5, correct, total, confusion[true, said].

    flip: average the softmax of each image and of its mirror image.
    """
    model.to(device(), memory_format=torch.channels_last).eval()
    scores, labels = [], []
    with autocast("float32"):
        for x, y in not_empty(loader):
            x = to_device(x)  # (B, C, H, W)
            score = F.log_softmax(model(x), dim=1)  # (B, classes)
            if flip:
                score = torch.logaddexp(score, F.log_softmax(model(x.flip(3)), dim=1)) - math.log(2)
            scores.append(score)
            labels.append(to_device(y))
    score, y = torch.cat(scores), torch.cat(labels)  # (N, classes), (N,)
    total, classes = score.shape
    best = score.topk(min(5, classes), dim=1).indices  # (N, 5), the likeliest first
    hits = (best == y[:, None]).sum(0).tolist()  # images whose label stands at rank 1, 2, ...
    confusion = torch.bincount(y * classes + best[:, 0], minlength=classes**2).view(classes, classes).cpu()
    result = {"loss": F.nll_loss(score, y).item(), "top1": hits[0] / total, "top5": sum(hits) / total}
    return result | {"correct": hits[0], "total": total, "confusion": confusion}


def fit(model, loader, *, epochs, optimizer, scheduler=None, criterion=None, val=None, checkpoint=None,
        precision="auto", strict=False, fresh=False, start="random"):  # fmt: skip
    """Train; one line an epoch; returns the history, a dict of lists (KEYS) plus `complete`.

    loader, val: iterables of (x, y); scheduler: stepped once a batch; checkpoint: a file, written every
    epoch, from which the same call goes on (relative: in runs()); precision: as in settings.precision;
    strict: stop where the network does not learn; fresh: ignore what the checkpoint holds; start: a word
    for where the weights come from.
    """
    model.to(device(), memory_format=torch.channels_last)
    run = Run(
        model, optimizer, scheduler, criterion or nn.CrossEntropyLoss(), precision_name(precision), strict
    )
    open_checkpoint(run, checkpoint, loader, val, epochs, fresh, start)
    watch = functools.partial(watch_step, run)
    try:
        if len(run.history["epoch"]) < epochs:
            save_checkpoint(run)
        for epoch in range(len(run.history["epoch"]), epochs):
            began, lr = time.perf_counter(), optimizer.param_groups[0]["lr"]
            set_epoch(epoch, loader, val)
            batches = progress(loader, epoch, epochs)
            loss, top1, images = train_epoch(
                model, batches, run.criterion, optimizer, scheduler, run.scaler, run.precision, watch
            )
            speed = images / (time.perf_counter() - began)
            scores = evaluate(model, val) if val is not None else {"loss": None, "top1": None}
            seconds = time.perf_counter() - began
            add_row(run.history, (epoch + 1, lr, loss, top1, scores["loss"], scores["top1"], speed, seconds))
            print(line(run.history, -1, epochs))
            save_checkpoint(run)
    except KeyboardInterrupt:
        print(f"Stopped by hand after {len(run.history['epoch'])} of {epochs} epochs; the same call goes on.")
    finally:
        close_checkpoint(run)
    run.history["complete"] = len(run.history["epoch"]) >= epochs
    return run.history


def to_device(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor on `device()`; images, (B, C, H, W), in channels_last."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device(), memory_format=layout, non_blocking=True)


def progress(loader: Iterable, epoch: int, epochs: int) -> Iterable:
    """The loader behind a bar with the time that is left, none under CI."""
    bar = tqdm(
        loader, f"epoch {epoch + 1}/{epochs}", leave=False, disable=bool(os.environ.get("CI")), unit="batch"
    )
    return not_empty(bar)


def not_empty(loader: Iterable) -> Iterable:
    """The loader's batches. Raises ValueError where there is none."""
    empty = True
    for batch in loader:
        empty = False
        yield batch
    if empty:
        raise ValueError(
            "the loader gave no batch; expected at least one. A generator can be read once: pass a list."
        )


def watch_step(run: Run, loss: torch.Tensor, logits: torch.Tensor, y: torch.Tensor) -> None:
    """Stop at a loss that is not finite; after 200 steps warn (strict: stop) where the network still guesses.

    Guessing: mean cross-entropy over steps 150 to 200 above 0.98 ln(classes). Raises ValueError.
    """
    run.step += 1
    lr = run.optimizer.param_groups[0]["lr"]
    if not math.isfinite(loss.item()):
        cause = "the images or the first weights are not finite: look at a batch"
        if run.step > 1:
            cause = "the learning rate is too large: divide it by 10 and run the cell again"
        raise ValueError(f"The loss is {loss.item()} at step {run.step}, lr {lr:.3g}. Most likely {cause}.")
    if 150 <= run.step <= 200:
        run.chance += F.cross_entropy(logits.detach().float(), y).item() / 51
    if run.step == 200 and run.chance > 0.98 * math.log(logits.shape[1]):
        message = (
            f"After 200 steps the loss is {run.chance:.3f}; guessing among {logits.shape[1]} classes gives "
            f"{math.log(logits.shape[1]):.3f}: the network is not learning. Most likely the learning rate ({lr:.3g} "
            "now) is too large or far too small, or no gradient reaches the first layers. Overfit one batch first."
        )
        if run.strict:
            raise ValueError(message)
        print(message)
