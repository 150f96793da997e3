"""What all exercises share: the verdict of a check, a prediction, and whose code a short training runs on."""

import contextlib
import copy
import inspect
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from course_utils.exercises.compare import (
    agrees,
    alike,
    array,
    bare,
    described,
    difference,
    forgotten,
    holds_ellipsis,
    said,
    show,
    size,
    tell,
)

TRIES = 20  # random cases of a check
SECONDS = 4  # after which one call of a learner's function is stopped
UNFINISHED = "Not attempted yet: a `...` is still there."
PASSED = {}  # check -> the answer that it last called correct


def apply(answer: Callable, *arguments: Any) -> Any:
    """How an answer is put to work, unless a check says otherwise."""
    return answer(*arguments)


@dataclass(eq=False)
class Check:
    """The check of one exercise: called with a learner's answer it prints a verdict, and raises nothing.

    right: the reference. draw_case(rng): a random case from a NumPy generator, {argument: value} in the order
    of the signature. always: cases that are tried at each call. mistakes: {sentence: wrong alternative to
    `right`}; the sentence is added where a learner's answer does what the alternative does. correct: what to
    notice once it is right. names: of the values, where several are returned. tolerance: relative to the
    largest expected value (None: 1e-5, and 1e-4 below float64). call(answer, *arguments): how an answer is put
    to work. Every call begins with the same random state. `case` is the first case that failed, smallest first.
    """

    right: Callable
    draw_case: Callable[[np.random.Generator], dict] | None = None
    always: tuple[dict, ...] = ()
    mistakes: dict[str, Callable] = field(default_factory=dict)
    correct: str = ""
    names: tuple[str, ...] = ()
    tolerance: float | None = None
    call: Callable = apply
    case: dict | None = field(default=None, init=False)

    def __call__(self, answer: Any) -> None:
        """Print the verdict on an answer."""
        PASSED.pop(self, None)
        self.case = None
        try:
            with generators_kept(), warnings.catch_warnings(action="ignore"):
                text = unwritten(answer) or self.judge(answer)
        except Exception as error:
            text = f"Not yet: this check cannot judge your answer ({said(error)})."
        if not text:
            PASSED[self] = answer
        tell(text or f"Correct. {self.correct}")

    def cases(self) -> list[dict]:
        """This call's cases, smallest first."""
        rng = np.random.default_rng()
        drawn = [self.draw_case(rng) for _ in range(TRIES)] if self.draw_case else []
        cases = [{k: v.item() if isinstance(v, np.generic) else v for k, v in c.items()} for c in drawn]
        return sorted([*copy.deepcopy(self.always), *cases] or [{}], key=size)

    def misfit(self, answer: Any, case: dict) -> str:
        """What keeps an answer from being called at all."""
        if not callable(answer):
            return f"Not yet: {show(answer)} is not a function. Give the check its name alone, without ()."
        with contextlib.suppress(ValueError):  # some of NumPy's and torch's functions have no signature
            signature = inspect.signature(answer)
            try:
                signature.bind(*case)
            except TypeError:
                return (
                    f"Not yet: your function takes {signature}, the check calls it with ({', '.join(case)})."
                )
        return ""

    def judge(self, answer: Any) -> str:
        """Try an answer for about two seconds; empty where nothing is wrong with it."""
        began, tried, cases = time.perf_counter(), [], self.cases()
        if self.call is apply and (text := self.misfit(answer, cases[0])):
            return text
        for seed, case in enumerate(cases):
            given = copy.deepcopy(case)
            want = outcome(self.call, self.right, copy.deepcopy(case), seed, seconds=0)  # 0: no limit
            if isinstance(want, BaseException):
                raise want
            got = outcome(self.call, answer, given, seed)
            tried.append((case, got, want, self.problem(answer, got, want, case, given)))
            if isinstance(got, Stopped) or (time.perf_counter() - began > 2 and len(tried) > 2):
                break
        failing = [i for i, (*_, text) in enumerate(tried) if text]
        if not failing:
            return ""
        self.case, got, want, text = tried[failing[0]]
        if text == UNFINISHED:
            return text
        always_none = got is None and len(failing) == len(tried)
        where = f"for {described(self.case)} " if self.case and not always_none else ""
        named = [] if alike(got, want, self.tolerance) else self.named(tried, failing)
        return " ".join([f"Not yet: {where}{text}", *named])

    def problem(self, answer: Any, got: Any, want: Any, case: dict, given: dict) -> str:
        """What is wrong with one outcome, as the end of a sentence; empty where nothing is."""
        if holds_ellipsis(got):
            return UNFINISHED
        yours = "your class" if inspect.isclass(answer) else "your function"
        if isinstance(got, Stopped):
            return f"{yours} was stopped after {SECONDS} seconds{place(got, answer)}. Does a loop never end?"
        if isinstance(got, BaseException):
            return f"{yours} fails{place(got, answer)}: {said(got)}."
        if got is None and want is not None:
            return f"{yours} returned None. Is a `return` missing?"
        text = difference(got, want, self.tolerance, self.names)
        known = [n for n, v in case.items() if isinstance(v, list | str) or array(v).dtype != object]
        changed = [name for name in known if difference(given[name], case[name])]
        if not text and changed:
            text = f"{yours} changed its input {changed[0]}: compute on a copy"
        return text and f"{text}."

    def named(self, tried: list[tuple], failing: list[int]) -> list[str]:
        """The mistake that does as the answer does: in the case shown, in most that failed, else most often."""

        def same(wrong: Callable, i: int) -> bool:
            case, got, *_ = tried[i]
            return alike(got, outcome(self.call, wrong, copy.deepcopy(case), i), self.tolerance)

        agreement = {}
        for sentence, wrong in self.mistakes.items():
            if same(wrong, failing[0]):  # most are ruled out by one case
                agreed = {i for i in range(len(tried)) if same(wrong, i)}
                if 2 * len(agreed.intersection(failing)) >= len(failing):
                    agreement[sentence] = len(agreed)
        return sorted(agreement, key=agreement.get)[-1:]


class Stopped(BaseException):
    """A call took too long. Not an Exception: no `except Exception` in a learner's loop shall hold it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise Stopped after so long, where the system can: in the main thread, not on Windows."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leave Python's, NumPy's and torch's generators as they were found."""
    torch = sys.modules.get("torch")
    states = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        if torch:
            torch.set_rng_state(states[2])


def outcome(call: Callable, answer: Callable, case: dict, seed: int, seconds: float = SECONDS) -> Any:
    """What an answer makes of a case: its result, or the exception that it raised."""
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(seed)
    try:
        with time_limit(seconds):
            return call(answer, *case.values())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error


def functions(answer: Any) -> dict[str, Callable]:
    """The functions that an answer is written as: itself, or the methods of a class or of an instance's class."""
    answer = inspect.unwrap(answer) if callable(answer) else answer
    answer = getattr(answer, "__func__", answer)
    if inspect.isfunction(answer):
        return {"": answer}
    owner = answer if inspect.isclass(answer) else type(answer)
    return {name: inspect.unwrap(f) for name, f in vars(owner).items() if inspect.isfunction(f)}


def _blank(): ...


def _blank_described():
    """A docstring and no more."""


BLANK = {f.__code__.co_code for f in (_blank, _blank_described)}  # a cell's source may not be at hand


def unwritten(answer: Any) -> str:
    """The verdict on an answer that is still `...`, or has a method that is; empty on others."""
    codes = {name: f.__code__ for name, f in functions(answer).items()}
    blank = {name: c.co_code in BLANK and c.co_consts[-1] is None for name, c in codes.items()}
    bare = inspect.isclass(answer) and not [name for name in vars(answer) if not name.startswith("__")]
    if answer is ... or (blank and all(blank.values())) or (bare and not blank):
        return "Not attempted yet."
    left = [name for name in blank if blank[name] and name != "__init__"]
    return f"Not attempted yet: `{left[0]}` is still `...`." if left else ""


def place(error: BaseException, answer: Any) -> str:
    """Where in the learner's own code an exception arose; empty where that is not known."""
    files = {f.__code__.co_filename for f in functions(answer).values()}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files][-1:]
    return "".join(f" in line {f.lineno}" + (f", `{f.line}`" if f.line else "") for f in frames)


def predict(label: str, guess: Any, answer: Any, because: str = "", *, mistakes: dict | None = None,
            tolerance: float = 0.05, choices: tuple[str, ...] = ()) -> None:  # fmt: skip
    """Print a guess beside the answer, why that is the answer, and what a wrong guess forgot.

    label: the exercise, "05.2". guess, answer: numbers, words, or lists, tuples or dictionaries of them; while
    the guess is `...` the answer stays hidden. mistakes: {wrong guess: what it forgot}, or, for one of several
    parts, {its key or place: {wrong value: what it forgot}}. tolerance: relative, of a number that is not whole.
    choices: the words to choose from.
    """
    guess, answer = bare(guess), bare(answer)
    if choices and isinstance(guess, int | float):  # 1e-7 for "1e-7"
        guess = next((word for word in choices if word[0].isdigit() and float(word) == guess), guess)
    given, wanted = (list(x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else [x])
                     for x in (guess, answer))  # fmt: skip
    words = [word.lower() for word in choices]
    unknown = [x for x in given if not isinstance(x, str) or x.strip().lower() not in words]
    if holds_ellipsis(guess):
        tell(f"{label} Not attempted yet: write your guess in place of `...`, then run this cell again.")
    elif choices and unknown:
        tell(f"{label} Not yet: {show(unknown[0])} is none of: {', '.join(choices)}.")
    elif len(given) != len(wanted) > 1:
        tell(f"{label} Not yet: expected {len(wanted)} values, your guess has {len(given)}.")
    else:
        right = agrees(guess, answer, tolerance)
        forgot = forgotten(guess, mistakes or {}, tolerance)
        parts = f" {sum(right)} of {len(right)} are right." * (len(right) > 1)
        verdict = " You are right." if all(right) else parts
        text = f"{label} You said {show(guess, 4)}, it is {show(answer, 4)}.{verdict}"
        tell(" ".join([text, because, *([] if all(right) else forgot)]))


def use(mine: Any, ours: Any) -> Any:
    """The learner's function or class where its check has called it correct, else ours; prints which."""
    passed = any(mine is answer for answer in PASSED.values())
    name = getattr(mine, "__name__", "yours")
    ours_instead = f"Runs on our {ours.__name__}: {name} has not passed its check."
    print(f"Runs on your {name}." if passed else ours_instead)
    return mine if passed else ours


def same_weights(net: Any) -> Any:
    """Fill each parameter of a torch module with numbers that its shape alone decides; returns the module.

    So modules with the same layers compute the same, in whatever order and under whatever names they have them.
    """
    torch = sys.modules["torch"]
    with torch.no_grad():
        for p in net.parameters():
            numbers = np.random.default_rng(p.shape).standard_normal(p.shape) / max(1, p[0].numel()) ** 0.5
            p.copy_(torch.from_numpy(numbers))
    return net
