"""Whether two results are the same, and, in words for a learner, how they differ."""

import sys
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

SMALL = 8  # arrays of so many values are shown whole
NEAR_ZERO = 1e-6  # a guess may be so far from a number that is not whole: 0 for a rounding error


def is_tensor(value: Any) -> bool:
    """Whether a value is a torch tensor; torch is not imported for it."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def array(value: Any) -> np.ndarray:
    """A number, array or tensor as a NumPy array of numbers; an array of objects where it is none of them."""
    if is_tensor(value):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() and value.element_size() < 4 else value).numpy()
    numeric = isinstance(value, np.ndarray | np.generic | int | float)
    return np.asarray(value) if numeric and np.asarray(value).dtype.kind in "biuf" else np.array(None)


def kind(value: Any) -> str:
    """A value's type in words."""
    if value is None:
        return "None"
    names = {"Tensor": "a torch tensor", "Parameter": "a torch tensor", "ndarray": "a NumPy array"}
    return names.get(type(value).__name__, f"a value of type {type(value).__name__}")


def show(value: Any, digits: int = 6) -> str:
    """A value in few characters: what is small as it is, of what is large type and shape."""
    if isinstance(value, list | tuple):
        inner = ", ".join(show(part, digits) for part in value[:SMALL]) + ", ..." * (len(value) > SMALL)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {show(part, digits)}" for key, part in value.items())
    numbers = array(value)
    if numbers.dtype == object:
        return repr(value) if value is None or isinstance(value, str) else kind(value)
    if numbers.ndim == 0:
        return f"{numbers:.{digits}g}" if numbers.dtype.kind == "f" else str(numbers)
    if numbers.size <= SMALL:
        return np.array2string(numbers, precision=4, separator=", ", max_line_width=999).replace("\n", "")
    return f"{kind(value)} of shape {numbers.shape}"


def tell(text: str) -> None:
    """Print a verdict in lines of at most 100 characters: JupyterLab breaks longer ones within a word."""
    print(textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False))


def described(case: dict) -> str:
    """A case in words: `n=5, kernel=3` or `x of shape (2, 3) and y=[0, 1]`."""
    shapes = {name: array(value).shape for name, value in case.items()}
    large = {name for name, shape in shapes.items() if len(shape) > 1 or np.prod(shape) > SMALL}
    words = [f"{n} of shape {shapes[n]}" if n in large else f"{n}={show(value)}" for n, value in case.items()]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if large and len(words) > 1 else ", ".join(words)


def said(error: BaseException) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".rstrip(": .")


def close(a: np.ndarray, b: np.ndarray, tolerance: float | None = None) -> np.ndarray:
    """Where numbers agree with b: whole ones exactly, others up to a part of the largest (1e-5, float32 1e-4)."""
    single = any(x.dtype.kind == "f" and x.itemsize < 8 for x in (a, b))
    tolerance = tolerance or (0 if b.dtype.kind in "biu" else 1e-4 if single else 1e-5)
    a, b = a.astype(float), b.astype(float)
    largest = np.abs(b[np.isfinite(b)]).max(initial=0) or 1
    return np.isclose(a, b, rtol=0, atol=tolerance * largest, equal_nan=True)


def is_transposed(a: np.ndarray, b: np.ndarray, tolerance: float | None) -> bool:
    """Whether a matrix has the right values with rows and columns exchanged."""
    return a.ndim == 2 and a.T.shape == b.shape and bool(close(a.T, b, tolerance).all())


def difference(got: Any, want: Any, tolerance: float | None = None, names: tuple = (), name: str = "") -> str:
    """How a result differs from the expected one, without a full stop; empty where it does not.

    tolerance: relative to the largest expected value. names: of the parts of a tuple; name: of the whole.
    """
    begin, results = f"your {name} is" if name else "you return", (got, want)

    def plain() -> str:  # formatted only where something is wrong
        return f"{begin} {show(results[0])}, expected {show(results[1])}"

    if isinstance(want, list | tuple):
        want, got = dict(enumerate(want)), dict(enumerate(got)) if isinstance(got, list | tuple) else got
    if isinstance(want, dict):
        scalars = not names and all(array(part).ndim == 0 for part in want.values())
        if not isinstance(got, dict) or got.keys() != want.keys():
            many = f"{len(got)} values" if isinstance(got, dict) else kind(got)
            return plain() if scalars else f"{begin} {many}, expected {len(want)} values"
        parts = names or [f"{name or 'result'}[{key!r}]" for key in want]
        texts = (difference(got[k], want[k], tolerance, (), p) for k, p in zip(want, parts, strict=True))
        return next((plain() if scalars else text for text in texts if text), "")
    a, b, whose = array(got), array(want), f"your {name or 'result'}"
    if b.dtype == object:
        return "" if type(got) is type(want) and got == want else plain()
    if a.dtype == object or (b.ndim and is_tensor(got) != is_tensor(want)):
        return f"{whose} is {kind(got)}, expected {kind(want)}" if b.ndim else plain()
    if a.shape != b.shape:
        text = f"{whose} has shape {a.shape}, expected {b.shape or 'a single number'}"
        return text + ": it is transposed" * is_transposed(a, b, tolerance)
    if b.ndim and a.dtype.kind != b.dtype.kind:
        return f"{whose} has dtype {got.dtype}, expected {want.dtype}"
    right = close(a, b, tolerance)
    return "" if right.all() else wrong_values(a, b, right, tolerance, whose, plain)


def wrong_values(
    a: np.ndarray,
    b: np.ndarray,
    right: np.ndarray,
    tolerance: float | None,
    whose: str,
    plain: Callable[[], str],
) -> str:
    """What is wrong with numbers of the right shape: NaN, sign, a factor, or the first that differs."""
    if np.isnan(a).any() > np.isnan(b).any():
        return f"{whose} holds NaN" if b.ndim else plain()
    if is_transposed(a, b, tolerance):
        return f"{whose} is transposed"
    if close(-1.0 * a, b, tolerance).all():
        return f"{plain()}: the sign is wrong" if b.size <= SMALL else f"{whose} has the wrong sign"
    factor = (a * b).sum() / (b * b).sum() if b.size > 1 and b.dtype.kind == "f" and b.any() else 0
    if factor > 0 and close(a / factor, b, tolerance).all():
        many, way = (factor, "large") if factor > 1 else (1 / factor, "small")
        return f"{whose} is {many:.4g} times too {way}"
    if b.size <= SMALL:
        return plain()
    at = tuple(int(i) for i in np.unravel_index(np.argmin(right), right.shape))
    count = f"{(~right).sum()} of {b.size} values differ"
    return f"{whose} has {show(a[at])} at {list(at)}, expected {show(b[at])}; {count}"


def holds_ellipsis(got: Any) -> bool:
    """Whether a `...` of the exercise came back, alone or among others, or stopped the function."""
    if isinstance(got, BaseException):
        return "ellipsis" in str(got).lower()
    parts = got.values() if isinstance(got, dict) else got if isinstance(got, list | tuple) else ()
    return got is ... or any(map(holds_ellipsis, parts))


def size(case: dict) -> float:
    """By what cases are sorted: the magnitudes of their numbers, the entries of all else."""
    return sum(abs(v) if isinstance(v, int | float) else array(v).size for v in case.values())


def alike(got: Any, other: Any, tolerance: float | None) -> bool:
    """Whether two outcomes are the same: equal results, or exceptions of one type."""
    if isinstance(got, BaseException) or isinstance(other, BaseException):
        return type(got) is type(other)
    return not difference(got, other, tolerance)


def bare(value: Any) -> Any:
    """A value with numbers and lists in place of NumPy's and torch's, inside lists, tuples and dictionaries too."""
    if isinstance(value, dict):
        return {key: bare(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [bare(part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    numbers = array(value)
    return value if numbers.dtype == object else numbers.tolist()


def agrees(guess: Any, answer: Any, tolerance: float) -> list[bool]:
    """Whether a guess is right, part by part: words in any case, whole numbers exactly, others about."""
    if isinstance(answer, list | tuple | dict):
        answer, guess = (dict(enumerate(x)) if isinstance(x, list | tuple) else x for x in (answer, guess))
        given = guess if isinstance(guess, dict) else {}
        return [all(agrees(given.get(key), part, tolerance)) for key, part in answer.items()]
    if isinstance(answer, str):
        return [str(guess).strip().lower() == answer.lower()]
    about = isinstance(answer, float) and isinstance(guess, int | float)
    return [abs(guess - answer) <= max(tolerance * abs(answer), NEAR_ZERO) if about else guess == answer]


def forgotten(guess: Any, mistakes: dict, tolerance: float) -> list[str]:
    """What a wrong guess forgot, by {wrong guess: text}, or {key or place of a part: {wrong value: text}}."""
    parts = (
        guess
        if isinstance(guess, dict)
        else dict(enumerate(guess if isinstance(guess, list | tuple) else ()))
    )
    found = []
    for wrong, text in mistakes.items():
        if isinstance(text, dict):
            found += forgotten(parts.get(wrong), text, tolerance)
        elif all(agrees(guess, wrong, tolerance)):
            found.append(text)
    return found
