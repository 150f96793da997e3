"""One dictionary: name -> the small-image network of that name; and what a table calls it."""

import functools
import inspect
from fractions import Fraction

from torch import nn

from course_utils.models.alexnet import small_alexnet
from course_utils.models.googlenet import small_googlenet
from course_utils.models.lenet import LeNet5
from course_utils.models.resnet import small_resnet
from course_utils.models.vgg import small_vgg


@functools.wraps(small_alexnet)
def named_alexnet(*shape, activation="ReLU", **network):
    """small_alexnet with its activation by name: recipes and files of weights hold text, no classes."""
    return small_alexnet(*shape, activation=getattr(nn, activation), **network)


MODELS = {
    "lenet": LeNet5,
    "alexnet": named_alexnet,
    "vgg": small_vgg,
    "googlenet": small_googlenet,
    "resnet": small_resnet,
}


def network_defaults(name):
    """The arguments of MODELS[name] that a recipe may set, with their defaults; a class by its name."""
    arguments = inspect.signature(MODELS[name]).parameters
    defaults = {k: p.default for k, p in arguments.items() if k not in ("num_classes", "in_channels")}
    return {k: v.__name__ if inspect.isclass(v) else v for k, v in defaults.items()}


def label(name, network):
    """What tables call MODELS[name](**network): the paper's name and what differs, "AlexNet + BN, width 3/8"."""
    defaults = network_defaults(name)
    values = defaults | network
    titles = {"lenet": "LeNet-5", "alexnet": "AlexNet", "googlenet": "GoogLeNet"}
    if name == "vgg":
        titles["vgg"] = f"VGG-{ {'A': 11, 'B': 13, 'B5': 13, 'D': 16, 'E': 19}[values['layers']] }"
    if name == "resnet":
        titles["resnet"] = f"{'ResNet' if values['shortcut'] else 'plain'}-{values['depth']}"
    words = [titles[name] + " + BN" * bool(values.get("batch_norm")) + " + LRN" * bool(values.get("lrn"))]
    if (width := Fraction(values.get("width", 1)).limit_denominator(100)) != 1:
        words.append(f"width {width}")
    if "hidden" in values:
        words.append(f"hidden layers of {values['hidden']}")
    if "head" in values:
        words.append(f"head {'-'.join(map(str, values['head']))}" if values["head"] else "one linear layer")
    if values.get("heads"):
        words.append("auxiliary heads")
    if values.get("two_3x3"):
        words.append("two 3x3 for 5x5")
    if values.get("layers") == "B5":
        words.append("5x5 for each pair")
    if not values.get("reduce", True):
        words.append("no 1x1 reductions")
    if not values.get("average", True):
        words.append("linear layer over the last map")
    if values.get("stem_224"):
        words.append("stem for 224 pixels")
    if values.get("shortcut") == "B":
        words.append("projections")
    if values.get("activation", "ReLU") != "ReLU":
        words.append(values["activation"])
    if not values.get("overlapping", True):
        words.append("separate pools")
    if values.get("dropout") != defaults.get("dropout"):
        words.append(f"dropout {values['dropout']}")
    return ", ".join(words)
