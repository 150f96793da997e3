"""The data sets: what users import. Loaders need torch, arrays do not: each is imported when it is asked for."""

import importlib

HOMES = {
    "arrays": ("Arrays", "load_arrays", "load_folder", "mean_and_std", "take", "validation_split"),
    "loaders": ("Loaders", "TensorLoader", "make_loaders"),
    "published": ("CIFAR100_COARSE", "CIFAR100_COARSE_CLASSES"),
    "sources": ("DataError",),
}
__all__ = [name for names in HOMES.values() for name in names]


def __getattr__(name: str) -> object:
    """The exported name, from the module that defines it."""
    for home, names in HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"course_utils.data.{home}"), name)
    raise AttributeError(f"course_utils.data has no {name!r}; it exports {', '.join(__all__)}.")
