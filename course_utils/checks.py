"""What is checked in a training: optimizer and schedule before it, batches and labels, images and loss in it."""

import math
import operator
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler as schedules

from course_utils.checkpoints import Run


def check_optimizer(run: Run) -> None:
    """Raise ValueError where the optimizer moves other parameters than the network's (and the criterion's)."""
    own = [run.model, run.criterion] if isinstance(run.criterion, nn.Module) else [run.model]
    known = {id(p): p.requires_grad for part in own for p in part.parameters()}
    moved = [id(p) for group in run.optimizer.param_groups for p in group["params"]]
    if foreign := len(set(moved) - known.keys()):
        raise ValueError(
            f"the optimizer moves {len(moved)} tensors, and {foreign} of them are not this network's; expected its "
            "parameters alone. Make the optimizer again, after the network: SGD(model.parameters(), ...)."
        )
    if not any(known[p] for p in moved):
        raise ValueError(
            "the optimizer moves no tensor that takes a gradient; expected one at least. Set its requires_grad = True."
        )


def check_schedule(run: Run, loader: Iterable, epochs: int) -> None:
    """Raise ValueError where the schedule was made for another optimizer or other steps, as far as it tells."""
    if getattr(run.scheduler, "optimizer", run.optimizer) is not run.optimizer:
        raise ValueError(
            "the schedule drives another optimizer; expected the one that fit gets. Make it again, after the optimizer."
        )
    if isinstance(run.scheduler, schedules.ReduceLROnPlateau):
        raise ValueError("ReduceLROnPlateau wants a loss at each step; expected a schedule of steps alone.")
    batches = operator.length_hint(loader)  # 0 where a loader cannot tell
    left = (epochs - len(run.history["epoch"])) * batches
    chained = isinstance(run.scheduler, schedules.ChainedScheduler)
    for schedule in run.scheduler._schedulers if chained else [run.scheduler]:
        end, stop = schedule_end(schedule), getattr(schedule, "last_epoch", 0) + left
        if end is None or not left:
            continue
        short = max(
            1, end // 20
        )  # a few steps more or less are no mistake, though OneCycleLR fails at one more
        long = {schedules.OneCycleLR: 0, schedules.MultiStepLR: math.inf}.get(type(schedule), short)
        if not end - short <= stop <= end + long:
            raise ValueError(
                f"the schedule ends at step {end:,}, this training at step {stop:,}: {epochs} epochs of {batches:,} "
                f"batches, one step each; expected the same. Make it for {epochs * batches:,} steps, after the optimizer."
            )


def schedule_end(schedule: object) -> int | None:
    """The step at which a schedule ends; None where it may end anywhere (steps, restarts, functions, a warm-up)."""
    if isinstance(schedule, schedules.SequentialLR):
        last = schedule_end(schedule._schedulers[-1])
        return last and schedule._milestones[-1] + last
    if isinstance(schedule, schedules.MultiStepLR):
        return max(schedule.milestones, default=None)
    name = {
        schedules.OneCycleLR: "total_steps",
        schedules.CosineAnnealingLR: "T_max",
        schedules.PolynomialLR: "total_iters",
    }
    return getattr(schedule, name.get(type(schedule), ""), None)


def check_labels(y: torch.Tensor, classes: int) -> None:
    """Raise ValueError where a label is not one of the network's outputs."""
    lowest, highest = y.aminmax()
    if lowest < 0:
        raise ValueError(f"a label is {lowest}; expected 0 to {classes - 1}. Count classes from 0.")
    if highest >= classes:
        raise ValueError(
            f"the network has {classes} outputs and the labels go up to {highest}, so there are at least "
            f"{highest + 1} classes; expected labels from 0 to {classes - 1}. Build it with an output a class."
        )


def explanation(model: nn.Module, x: torch.Tensor, error: Exception) -> str | None:
    """Why a forward pass failed, where the images are the cause."""
    dtype = next((p.dtype for p in model.parameters()), x.dtype)
    if x.dtype != dtype:
        cast = f"x.to({dtype})" if x.is_floating_point() else f"x.to({dtype}) / 255"
        return f"the images are {x.dtype}, the network's weights {dtype}; expected the same. Convert them: {cast}."
    if len(x) == 1 and "more than 1 value per channel" in str(error):
        return (
            "a batch holds a single image, and batch norm in training compares images; expected two or more. "
            "Pass drop_last=True to the loader, or another batch size."
        )
    return None


def watch_step(
    run: Run, kept: list, x: torch.Tensor, y: torch.Tensor, logits: torch.Tensor, loss: torch.Tensor
) -> None:
    """Keep a step's loss and a sum of each image, and look at them every 50 steps; after 200 see if it learns.

    A network that still guesses is warned of (strict: stopped): mean cross-entropy of its logits over steps 150
    to 200 above 0.98 ln(classes). Raises ValueError.
    """
    run.step += 1
    lr = run.optimizer.param_groups[0]["lr"]
    sums = x.sum(tuple(range(1, x.ndim)), dtype=torch.float32)  # (B,): finite where all pixels are
    kept.append((run.step, lr, sums, loss.detach()))
    if 150 <= run.step <= 200:
        run.chance += F.cross_entropy(logits.detach().float(), y) / 51
    if run.step % 50 == 0:
        look(run, kept)
    guessing = math.log(logits.shape[1])
    if run.step == 200 and run.chance > 0.98 * guessing:
        message = (
            f"After 200 steps the loss is {run.chance:.3f}; guessing among {logits.shape[1]} classes gives "
            f"{guessing:.3f}: the network is not learning. Most likely the learning rate ({lr:.3g} now) is too "
            "large or far too small, or no gradient reaches the first layers. Overfit one batch first."
        )
        if run.strict:
            raise ValueError(message)
        print(message)


def look(run: Run, kept: list) -> None:
    """Forget the steps kept if their images and losses are finite. Raises ValueError that names the first not."""
    run.chance = float(run.chance)
    steps = list(kept)
    kept.clear()
    if not steps or torch.cat([part.flatten() for step in steps for part in step[2:]]).isfinite().all():
        return
    for step, lr, images, loss in steps:
        bad = (~images.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"Step {step} got an image that is not finite: number {bad[0]} of its {len(images)}, counted from 0 "
                "(NaN or infinite pixels). Look at the data set and what normalises it; the learning rate is not to blame."
            )
        if not loss.isfinite():
            cause = "the learning rate is too large: divide it by 10 and run the cell again"
            if step == 1:
                cause = "the initialization or the criterion gives it: look at the logits of one batch"
            raise ValueError(f"The loss is {loss.item()} at step {step}, lr {lr:.3g}. Most likely {cause}.")
