"""Eight stories of a learner who stops, restarts, changes and runs cells again, through `fit` as a lesson calls it."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from course_utils import checkpoints

DATA = """
import torch
from torch import nn
from course_utils.recipes import he, triangular
from course_utils.settings import seed_all
from course_utils.training import fit

class Batches(list):
    "Four batches; at the batch of number `ctrl_c`, over all epochs, Ctrl-C is pressed."
    ctrl_c = None

    def __iter__(self):
        for batch in super().__iter__():
            self.ctrl_c = None if self.ctrl_c is None else self.ctrl_c - 1
            if self.ctrl_c == 0:
                self.ctrl_c = None
                raise KeyboardInterrupt
            yield batch

images = torch.arange(16 * 5 * 128.0).view(16, 5, 2, 8, 8) % 7 / 7
batches = Batches((images[i], torch.tensor([0, 1, 2, 3, i % 4])) for i in range(4))
IN_EPOCH_3, name, momentum = 11, "mine.pt", 0.9
"""
NETWORK = """
model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
"""
OPTIMIZER = """
optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=0.02, momentum=momentum)
"""
SCHEDULE = """
schedule = triangular(optimizer, 0.02, 4 * len(batches))
"""
FIT = """
history = fit(model, batches, epochs=4, optimizer=optimizer, checkpoint=name)
"""
SCHEDULED = FIT.replace("checkpoint=", "scheduler=schedule, checkpoint=")


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Where the runs lie; what they compute on."""
    monkeypatch.setenv("COURSE_RUNS", str(tmp_path))
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    return tmp_path


class Notebook(dict):
    """A kernel that has just started: nobody has set a seed, and no earlier run is known."""

    def __init__(self, capsys):
        super().__init__(__name__="__main__")
        self.capsys = capsys
        checkpoints.LEFT.clear()
        torch.seed(), np.random.seed()
        self.run(DATA)

    def run(self, *cells, ctrl_c=None):
        """Run cells as one; what they print, without the epochs' lines and the bars."""
        self.capsys.readouterr()
        if ctrl_c:
            self["batches"].ctrl_c = ctrl_c
        exec("".join(cells), self)
        return [line for line in self.capsys.readouterr().out.splitlines() if not line.startswith("epoch")]

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self["model"].parameters()])


STOPPED = ["Interrupted after 2 of 4 epochs; run the same call again to resume."]
GOES_ON = ["Picked up from mine.pt: 2 of 4 epochs are done."]
PICKED_UP = ["Picked up from mine.pt: 4 of 4 epochs are done."]
TRAINS_ON = "It trains on from the weights of {}; build the network again to begin anew."


def test_story_1_unseeded_stopped_in_epoch_3_the_whole_cell_again_begins_anew(capsys, folder):
    notebook = Notebook(capsys)
    before, cell = torch.get_rng_state(), NETWORK + OPTIMIZER + FIT
    assert notebook.run(cell, ctrl_c=notebook["IN_EPOCH_3"]) == STOPPED
    first = notebook["history"]["loss"]
    assert notebook.run(cell) == GOES_ON and notebook["history"]["complete"]
    ended, loss = notebook.weights(), notebook["history"]["loss"]
    assert loss[:2] == first and os.listdir(folder) == ["mine.pt"]
    torch.set_rng_state(before)
    assert notebook.run("name = 'whole.pt'", cell) == []  # what it ends with where nobody stops it
    assert torch.equal(notebook.weights(), ended) and notebook["history"]["loss"] == loss


def test_story_2_the_same_after_a_restart_of_the_kernel_begins_anew(capsys, folder):
    cells = f"{DATA}{NETWORK}{OPTIMIZER}batches.ctrl_c = IN_EPOCH_3{FIT}"
    done = subprocess.run([sys.executable, "-c", cells], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1:] == STOPPED
    notebook = Notebook(capsys)
    assert notebook.run(NETWORK, OPTIMIZER, FIT) == GOES_ON and notebook["history"]["complete"]
    assert os.listdir(folder) == ["mine.pt"]


def test_story_3_he_for_pytorchs_initialization_under_one_seed_is_the_same_run(capsys, folder):
    notebook = Notebook(capsys)
    assert notebook.run("seed_all(0)", NETWORK, OPTIMIZER, FIT) == []
    before = (folder / "mine.pt").read_bytes()
    (said,) = notebook.run("seed_all(0)", NETWORK, "he(model)", OPTIMIZER, FIT)
    assert re.fullmatch(
        r".*mine.pt holds another run \(weights .*\): this one has a file of its own, mine-\w{8}.pt.", said
    )
    assert bool((folder / "mine.pt").read_bytes() == before) and len(os.listdir(folder)) == 2
    assert "mine-" in notebook.run("seed_all(0)", NETWORK, "he(model)", OPTIMIZER, FIT)[0]
    assert notebook.run("seed_all(0)", NETWORK, OPTIMIZER, FIT) == PICKED_UP


def test_story_4_the_cell_with_fit_alone_again_does_not_go_on(capsys):
    for momentum, build, fit in ((0.9, OPTIMIZER + SCHEDULE, SCHEDULED), (0.0, OPTIMIZER, FIT)):
        notebook = Notebook(capsys)
        notebook.run(f"momentum, name = {momentum}, 'whole-{momentum}.pt'; seed_all(0)", NETWORK, build, fit)
        expected, losses = notebook.weights(), notebook["history"]["loss"]
        notebook.run(f"name = 'mine-{momentum}.pt'; seed_all(0)", NETWORK, build)
        assert notebook.run(fit, ctrl_c=notebook["IN_EPOCH_3"]) == STOPPED
        for epochs in (2, 4):  # goes on; the third time it is finished
            assert notebook.run(fit) == [f"Picked up from mine-{momentum}.pt: {epochs} of 4 epochs are done."]
            assert torch.equal(notebook.weights(), expected) and notebook["history"]["loss"] == losses


def test_story_5_fit_again_with_a_fresh_optimizer_is_picked_up_or_trains_on_unsaid(capsys, folder):
    notebook = Notebook(capsys)
    notebook.run(NETWORK)
    assert notebook.run(OPTIMIZER, FIT, ctrl_c=notebook["IN_EPOCH_3"]) == STOPPED
    assert notebook.run(OPTIMIZER, FIT) == GOES_ON  # stopped by hand: it is that run, whatever the optimizer
    ended, before = notebook.weights(), (folder / "mine.pt").read_bytes()
    another, said = notebook.run(OPTIMIZER, FIT)  # finished: it trains on
    (second,) = {file.name for file in folder.iterdir()} - {"mine.pt"}
    assert another.endswith(
        f"mine.pt holds another run (weights differs): this one has a file of its own, {second}."
    )
    assert said == TRAINS_ON.format("mine.pt")
    assert bool((folder / "mine.pt").read_bytes() == before) and not torch.equal(notebook.weights(), ended)
    further = notebook.weights()
    assert notebook.run(OPTIMIZER, FIT)[1] == TRAINS_ON.format(second)
    notebook = Notebook(capsys)  # the same cells, next day
    assert notebook.run(NETWORK, OPTIMIZER, FIT) == PICKED_UP and torch.equal(notebook.weights(), ended)
    assert notebook.run(OPTIMIZER, FIT) == [f"Picked up from {second}: 4 of 4 epochs are done."]
    assert torch.equal(notebook.weights(), further) and len(os.listdir(folder)) == 3
    assert notebook.run(NETWORK, OPTIMIZER, FIT) == PICKED_UP  # the network built anew: the first run


def test_story_6_a_finished_run_next_day_with_other_threads_is_trained_anew_or_in_silence(capsys):
    notebook, threads = Notebook(capsys), torch.get_num_threads()
    notebook.run(NETWORK, OPTIMIZER, FIT)
    ended, history = notebook.weights(), notebook["history"]
    assert notebook.run("name = 'cut.pt'", NETWORK, OPTIMIZER, FIT, ctrl_c=notebook["IN_EPOCH_3"]) == STOPPED
    notebook = Notebook(capsys)
    try:
        torch.set_num_threads(threads + 1)
        assert notebook.run(NETWORK, OPTIMIZER, FIT) == PICKED_UP
        assert torch.equal(notebook.weights(), ended) and notebook["history"] == history
        picked_up, said = notebook.run("name = 'cut.pt'", NETWORK, OPTIMIZER, FIT)
    finally:
        torch.set_num_threads(threads)
    assert picked_up == "Picked up from cut.pt: 2 of 4 epochs are done." and notebook["history"]["complete"]
    assert f"{threads + 1} threads, cpu, the rest is not bit-identical" in said


def test_story_7_a_second_stage_with_other_frozen_layers_is_the_first(capsys, folder):
    def stages():
        notebook = Notebook(capsys)
        first = notebook.run(NETWORK, "model[0].requires_grad_(False)", OPTIMIZER, FIT)
        before = notebook["model"][0].weight.clone()
        second = notebook.run("name = 'second.pt'; model.requires_grad_(True)", OPTIMIZER, FIT)
        return first, second, torch.equal(notebook["model"][0].weight, before), notebook.weights()

    first, second, still, ended = stages()
    assert first == [] and second == [TRAINS_ON.format("mine.pt")] and not still
    first, second, still, again = stages()  # the same cells in a new kernel
    assert first == PICKED_UP and second == [PICKED_UP[0].replace("mine", "second")]
    assert torch.equal(again, ended) and sorted(os.listdir(folder)) == ["mine.pt", "second.pt"]


DRAWING = """
class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(128, 4)
    def forward(self, x):
        return self.head(self.drop(x + torch.rand_like(x)).flatten(1))
model = Drawing()
"""
LARGE = """
batches = [(torch.rand(8, 3, 224, 224, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4)]
model = nn.Sequential(nn.Conv2d(3, 4, 11, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
"""


@pytest.mark.parametrize(
    "network", [NETWORK.replace("nn.Flatten()", "nn.Dropout(), nn.Flatten()"), DRAWING, LARGE]
)
def test_story_8_dropout_a_forward_that_draws_or_224_pixels_is_another_run_or_takes_long(network, capsys):
    images = []  # that go through the network
    Notebook(capsys).run(network, OPTIMIZER, FIT)
    notebook = Notebook(capsys)
    notebook.run(network, OPTIMIZER)
    model = notebook["model"]
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: images.append(len(inputs[0])) if module is model else None
    )
    try:
        assert notebook.run(FIT) == PICKED_UP
    finally:
        hook.remove()
    assert sum(images) <= 10  # a look: five passes of two images
