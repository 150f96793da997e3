"""The exercises' frame on a tiny exercise of its own: what a learner reads for every kind of answer."""

import contextlib
import functools
import linecache
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.exercises import frame
from course_utils.exercises.compare import described, difference
from course_utils.exercises.frame import Check, predict, same_weights, use


def verdict(check, answer, capsys):
    """What a check prints, its line's end aside."""
    capsys.readouterr()
    check(answer)
    printed = capsys.readouterr()
    assert printed.err == "" and printed.out.endswith("\n")
    long = [line for line in printed.out.splitlines() if len(line) > 100 and " " in line]
    assert not long, "JupyterLab would break this line within a word"
    return " ".join(printed.out.splitlines())


# The demonstration, as a lesson's module holds it.


def side(n, kernel, stride=1, padding=0):
    return (n + 2 * padding - kernel) // stride + 1


def window(rng):
    n, kernel, stride, padding = rng.integers((5, 1, 1, 0), (40, 6, 5, 3))
    return {"n": n, "kernel": kernel, "stride": stride, "padding": padding}


check_side = Check(
    side,
    window,
    always=({"n": 32, "kernel": 11, "stride": 4, "padding": 0},),
    mistakes={
        "A window that does not fit is dropped: round down.": lambda n, k, s, p: (n + 2 * p - k) / s + 1,
        "Zeros are added at both ends.": lambda n, k, s, p: (n + p - k) // s + 1,
        "The start is a place too.": lambda n, k, s, p: (n + 2 * p - k) // s,
    },
    correct="With n=224, kernel=11, stride=4 a fraction is dropped.",
)


def by_walking(n, kernel, stride=1, padding=0):
    places, left = 0, -padding
    while left + kernel <= n + padding:
        places, left = places + 1, left + stride
    return places


def by_numpy(size, width, step, zeros):  # other names, a NumPy integer
    return np.floor_divide(size + 2 * zeros - width, step) + 1


def by_range(n, kernel, stride=1, padding=0):
    return len(range(-padding, n + padding - kernel + 1, stride))


@pytest.mark.parametrize("answer", [by_walking, by_numpy, by_range, side])
def test_a_right_answer_in_another_style_is_refused(answer, capsys):
    text = "Correct. With n=224, kernel=11, stride=4 a fraction is dropped."
    assert verdict(check_side, answer, capsys) == text and check_side.case is None


def not_rounded(n, kernel, stride=1, padding=0):
    return 1 + (n - kernel + padding * 2) / stride


def one_end(n, kernel, stride=1, padding=0):
    return len(range(0, n + padding - kernel + 1, stride))


def no_start(n, kernel, stride=1, padding=0):
    return int((n + 2 * padding - kernel) / stride)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (not_rounded, "A window that does not fit is dropped: round down."),
        (one_end, "Zeros are added at both ends."),
        (no_start, "The start is a place too."),
    ],
)
def test_a_planted_mistake_is_not_named_or_its_case_not_kept(answer, sentence, capsys):
    text, case = verdict(check_side, answer, capsys), check_side.case
    shown = ", ".join(f"{name}={value}" for name, value in case.items())
    returned = f"{answer(**case):.6g}"
    assert text == f"Not yet: for {shown} you return {returned}, expected {by_walking(**case)}. {sentence}"


def test_an_unknown_mistake_gets_a_name(capsys):
    text = verdict(check_side, lambda n, kernel, stride, padding: 1000 + n, capsys)
    assert text.endswith(f"expected {by_walking(**check_side.case)}.")


def test_the_case_shown_is_not_the_smallest_or_the_cases_are_the_same_at_each_call(capsys):
    seen = []

    def wrong_from_20(n, kernel, stride, padding):
        seen.append((n, kernel, stride, padding))
        return side(n, kernel, stride, padding) + (n >= 20)

    verdict(check_side, wrong_from_20, capsys)
    first, case = list(seen), check_side.case
    assert sum(case.values()) == min(sum(values) for values in first if values[0] >= 20)
    seen.clear()
    verdict(check_side, wrong_from_20, capsys)
    assert seen != first and (32, 11, 4, 0) in seen and (32, 11, 4, 0) in first


def test_a_mistake_is_named_that_agrees_by_chance(capsys):
    cases = tuple({"n": n} for n in (1, 2, 3, 4))
    once = Check(lambda n: n, always=cases, mistakes={"Eleven.": lambda n: 11})
    assert verdict(once, lambda n: n + 10, capsys) == "Not yet: for n=1 you return 11, expected 1."
    mistakes = {"Doubled.": lambda n: n * 2 if n > 2 else n, "Other.": lambda n: n * 2 if n > 2 else 0}
    doubled = Check(lambda n: n, always=cases, mistakes=mistakes)
    text = verdict(doubled, lambda n: n + n * (n > 2), capsys)
    assert text == "Not yet: for n=3 you return 6, expected 3. Doubled."


# What is not attempted, and what is no answer at all.


class Given:
    def empty(self): ...

    def forward(self, x):
        """Twice x."""
        ...


class OnlyForwardLeft(Given):
    def __init__(self):
        self.w = 1

    def forward(self, x): ...


class Filled:
    def __init__(self):
        pass

    def forward(self, x):
        return 2 * x


def test_an_exercise_not_attempted_is_called_wrong(capsys):
    scope = {}
    exec("def hidden(n, kernel, stride=1, padding=0):\n    'Doc.'\n    ...", scope)  # inspect finds no source

    def plain(n, kernel, stride=1, padding=0): ...

    def documented(n, kernel, stride=1, padding=0):
        """How many places a window has."""
        ...

    @torch.no_grad()
    def decorated(n, kernel, stride=1, padding=0): ...

    class Bare(nn.Module): ...

    answers = (..., plain, documented, decorated, scope["hidden"], Given().empty, Given, Given(), Bare)
    for answer in answers:
        assert verdict(check_side, answer, capsys) == "Not attempted yet."
    for scaffold in (lambda n, k, s, p: ..., lambda n, k, s, p: (n, ...), lambda n, k, s, p: n + ...):
        text = verdict(check_side, scaffold, capsys)
        assert text == "Not attempted yet: a `...` is still there." and check_side not in frame.PASSED
    text = verdict(check_side, OnlyForwardLeft, capsys)
    assert text == "Not attempted yet: `forward` is still `...`."


def test_a_constant_or_an_empty_init_is_taken_for_an_exercise_not_attempted(capsys):
    constant = Check(lambda: 1, correct="One.")
    assert verdict(constant, lambda: 1, capsys) == "Correct. One."
    assert verdict(constant, lambda: 2, capsys) == "Not yet: you return 2, expected 1."
    doubles = Check(lambda: 6, call=lambda answer: answer if answer == 6 else answer().forward(3))
    doubles.right = 6
    assert verdict(doubles, Filled, capsys) == "Correct."


def test_a_forgotten_return_is_not_told_apart(capsys):
    def forgotten(n, kernel, stride=1, padding=0):
        (n + 2 * padding - kernel) // stride + 1

    text = "Not yet: your function returned None. Is a `return` missing?"
    assert verdict(check_side, forgotten, capsys) == text

    def on_one_branch(n, kernel, stride=1, padding=0):
        if n < 30:
            return side(n, kernel, stride, padding)

    text = verdict(check_side, on_one_branch, capsys)
    assert text.startswith("Not yet: for n=3") and text.endswith("Is a `return` missing?")


def no_truth(self, *_):
    raise RuntimeError("no")


Odd = type("Odd", (), {"__eq__": no_truth, "__len__": no_truth, "__repr__": no_truth, "__hash__": None})


@pytest.mark.parametrize(
    "answer",
    [None, 5, "side", [], int, np.add, Odd(), lambda: 1, lambda *a, **k: Odd(), lambda *a: a, lambda *a: {},
     lambda *a: "4", lambda *a: object(), lambda *a: [], lambda *a: 1j, lambda *a: sys.exit(1), lambda *a: [Odd()],
     functools.partial(side), torch.zeros(2), nn.Identity(), lambda n, *a: iter([n]), lambda n, *a: np.array(["n"]),
     lambda *a: (_ for _ in ()).throw(BaseException("x" * 10_000 + "\ny"))],
)  # fmt: skip
def test_a_check_raises_or_prints_no_verdict(answer, capsys):
    text = verdict(check_side, answer, capsys)
    assert text.startswith("Correct." if isinstance(answer, functools.partial) else "Not yet: ")
    assert len(text) < 400


def test_a_wrong_number_of_arguments_is_not_said(capsys):
    text = verdict(check_side, lambda n, kernel: 1, capsys)
    assert text == (
        "Not yet: your function takes (n, kernel), the check calls it with (n, kernel, stride, padding)."
    )


def test_an_exception_has_no_line_or_its_input_is_lost(capsys):
    scope = {}
    source = "def my_side(n, kernel, stride, padding):\n    half = n // 2\n    return half / 0\n"
    linecache.cache["<cell 7>"] = (len(source), None, source.splitlines(True), "<cell 7>")
    exec(compile(source, "<cell 7>", "exec"), scope)
    text = verdict(check_side, scope["my_side"], capsys)
    assert text.startswith("Not yet: for n=") and "frame.py" not in text
    assert text.endswith(
        "your function fails in line 3, `return half / 0`: ZeroDivisionError: division by zero."
    )
    with pytest.raises(ZeroDivisionError):
        scope["my_side"](**check_side.case)


@pytest.mark.skipif(not hasattr(frame.signal, "setitimer"), reason="this system cannot stop a call")
def test_an_endless_loop_hangs_the_lesson(capsys, monkeypatch):
    def endless(n, kernel, stride, padding):
        for _ in range(3):  # in truth without end
            with contextlib.suppress(Exception):  # must not hold the stop
                for _ in range(10**8):
                    n += 1

    monkeypatch.setattr(frame, "SECONDS", 0.2)
    before = frame.signal.getsignal(frame.signal.SIGALRM)
    text = verdict(check_side, endless, capsys)
    assert "was stopped after 0.2 seconds in line " in text and text.endswith("Does a loop never end?")
    assert frame.signal.getsignal(frame.signal.SIGALRM) is before
    assert frame.signal.getitimer(frame.signal.ITIMER_REAL) == (0, 0)


def test_a_learner_cannot_interrupt_a_check():
    with pytest.raises(KeyboardInterrupt):
        check_side(lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))


def test_a_check_changes_the_random_numbers_that_the_lesson_draws_next(capsys):
    def three():
        return random.random(), np.random.rand(), torch.rand(()).item()

    def noisy(n, kernel, stride, padding):
        three()
        return side(n, kernel, stride, padding)

    expected = []
    for act in (lambda: None, lambda: check_side(noisy)):
        random.seed(1), np.random.seed(2), torch.manual_seed(3)
        act()
        expected.append((*three(), torch.initial_seed()))
    assert expected[0] == expected[1] and capsys.readouterr().out.startswith("Correct.")


# Arrays and tensors.


def linear_case(rng):
    m, n, k = rng.integers(2, 6, 3)
    return {"x": rng.normal(size=(m, n)), "ds": rng.normal(size=(m, k))}


check_gradient = Check(
    lambda x, ds: (x.T @ ds / len(x), ds.sum(0) / len(x)),
    linear_case,
    names=("dW", "db"),
    mistakes={"The mean over the batch (1/m) is missing.": lambda x, ds: (x.T @ ds, ds.sum(0))},
)


def test_a_gradients_mistake_is_not_described(capsys):
    def answer(change):
        return verdict(check_gradient, change, capsys)

    assert answer(lambda x, ds: [np.einsum("mi,mj->ij", x, ds) / len(ds), ds.mean(0)]) == "Correct."
    without_m = answer(lambda x, ds: (x.T @ ds, ds.sum(0)))
    m = len(check_gradient.case["x"])
    assert f"your dW is {m} times too large. The mean over the batch (1/m) is missing." in without_m
    transposed = answer(lambda x, ds: (ds.T @ x / len(x), ds.mean(0)))
    assert "your dW has shape (" in transposed or "your dW is transposed" in transposed
    assert "your db has shape ()" in answer(lambda x, ds: (x.T @ ds / len(x), ds.mean()))
    assert (
        "sign is wrong" in (text := answer(lambda x, ds: (x.T @ ds / len(x), -ds.mean(0)))) and "db" in text
    )
    assert "your db is a value of type list, expected a NumPy array" in answer(
        lambda x, ds: (x.T @ ds / len(x), list(ds.mean(0)))
    )
    assert "your dW is a torch tensor, expected a NumPy array" in answer(
        lambda x, ds: (torch.tensor(x.T @ ds), ds.mean(0))
    )
    assert "you return a NumPy array, expected 2 values" in answer(lambda x, ds: x.T @ ds)
    assert "you return 3 values, expected 2" in answer(lambda x, ds: (x, x, x))
    assert "your db is None" in answer(lambda x, ds: (x.T @ ds / len(x), None))


def test_a_changed_input_goes_unnoticed(capsys):
    def in_place(x, ds):
        ds /= len(x)
        return x.T @ ds, ds.sum(0)

    text = verdict(check_gradient, in_place, capsys)
    assert (
        text.startswith("Not yet: for x") and "your function changed its input ds: compute on a copy." in text
    )
    check = Check(
        check_gradient.right, linear_case, mistakes={"No.": lambda x, ds: (x.T @ ds / len(x), ds.mean(0))}
    )
    assert "No." not in verdict(check, in_place, capsys), "a mistake is named whose result is the right one"
    assert verdict(check_gradient, lambda *case: in_place(*(v.copy() for v in case)), capsys) == "Correct."


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_numbers_are_compared_exactly_or_a_difference_is_not_said(make):
    want = make([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    assert difference(want + 1e-7, want) == "" == difference(want * 1.0000001, want)
    assert difference(want * 2, want) == "your result is 2 times too large"
    assert difference(want / 4, want) == "your result is 4 times too small"
    assert difference(-want, want) == "your result has the wrong sign"
    assert difference(want.T, want[:2]) == "your result has shape (3, 3), expected (2, 3)"
    assert (
        difference(want[:2].T, want[:2]) == "your result has shape (3, 2), expected (2, 3): it is transposed"
    )
    other = want + 0
    other[1, 2] = 0
    text = "your result has 0 at [1, 2], expected 6; 1 of 9 values differ"
    assert difference(other, want) == text
    other[0, 0] = float("nan")
    assert difference(other, want) == "your result holds NaN"
    assert difference(other, other) == ""
    whole = make([1, 2])
    assert difference(whole + 0.0, whole).startswith("your result has dtype ")
    assert difference(make(3.0), 3) == "" and difference(make([3.0]), 3).endswith("expected a single number")
    assert difference(make(3.5), 3) == "you return 3.5, expected 3"


def test_a_count_that_is_off_by_one_passes():
    assert difference(60_965_223, 60_965_224) == "you return 60965223, expected 60965224"
    assert difference((6, 55, 54), (6, 55, 55)) == "you return (6, 55, 54), expected (6, 55, 55)"
    assert difference(torch.zeros(6, 5).shape, (6, 5)) == "" == difference([6, 5], (6, 5))


def test_half_precision_or_a_tensor_with_a_gradient_cannot_be_compared():
    want = torch.tensor([1.0, 2.0])
    assert difference(want.clone().requires_grad_(), want) == ""
    assert difference(want.bfloat16(), want) == "" and difference(want, want.bfloat16()) == ""


# Modules.


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1)
        self.b = nn.Linear(channels, 2)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)).mean((2, 3)))


class OtherNamesAndOrder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.head = nn.Linear(c, 2)
        self.body = nn.Sequential(nn.Conv2d(c, c, 3, padding="same"), nn.ReLU())

    def forward(self, x):
        return self.head(self.body(x).flatten(2).mean(-1))


class NoReLU(Block):
    def forward(self, x):
        return self.b(self.a(x).mean((2, 3)))


class MissesSuper(nn.Module):
    def __init__(self, channels):
        self.a = nn.Conv2d(channels, channels, 3)

    def forward(self, x):
        return self.a(x)


def run_block(answer, channels, x):
    return same_weights(answer(channels))(x)


check_block = Check(
    Block,
    lambda rng: {"channels": (c := rng.integers(1, 4)), "x": torch.from_numpy(rng.normal(size=(2, c, 5, 5))).float()},
    call=run_block,
    mistakes={"The ReLU is missing.": NoReLU},
)  # fmt: skip


def test_a_module_with_other_names_is_refused_or_its_mistake_not_named(capsys):
    assert verdict(check_block, OtherNamesAndOrder, capsys) == "Correct."
    text = verdict(check_block, type("Mine", (NoReLU,), {"two": 2}), capsys)
    assert "x of shape (2, " in text and text.endswith("The ReLU is missing.")
    text = verdict(check_block, MissesSuper, capsys)
    assert "your class fails in line " in text and "`self.a = nn.Conv2d(channels, channels, 3)`" in text


def test_the_short_training_runs_on_code_that_has_not_passed(capsys):
    verdict(check_block, NoReLU, capsys)
    assert use(NoReLU, Block) is Block
    assert capsys.readouterr().out == "Runs on our Block: NoReLU has not passed its check.\n"
    verdict(check_block, OtherNamesAndOrder, capsys)
    assert use(OtherNamesAndOrder, Block) is OtherNamesAndOrder
    assert capsys.readouterr().out == "Runs on your OtherNamesAndOrder.\n"
    verdict(check_block, NoReLU, capsys)  # a later answer, not passed: the first one's pass is over
    assert use(OtherNamesAndOrder, Block) is Block and use(..., Block) is Block and use(None, Block) is Block


def test_a_reference_that_loads_a_library_for_long_is_stopped(capsys, monkeypatch):
    limits = []
    monkeypatch.setattr(
        frame, "time_limit", lambda seconds: limits.append(seconds) or contextlib.nullcontext()
    )
    verdict(Check(len, lambda rng: {"x": [1]}), len, capsys)
    assert set(limits[::2]) == {0} and set(limits[1::2]) == {frame.SECONDS}


# Predictions.


def said(capsys, *arguments, **options):
    capsys.readouterr()
    predict("04.1", *arguments, **options)
    return " ".join(capsys.readouterr().out.splitlines())


def test_a_prediction_shows_its_answer_before_a_guess_or_does_not_say_what_was_forgotten(capsys):
    why, forgot = "That is ln 100.", {np.log(10): "2.3 would be ln 10."}
    for guess in (..., [..., ...], (1, ...), {"a": ...}):
        assert "Not attempted yet" in (text := said(capsys, guess, 4.605, why)) and "4.6" not in text
    assert said(capsys, 2.3, torch.tensor(4.60517), why, mistakes=forgot) == (
        "04.1 You said 2.3, it is 4.605. That is ln 100. 2.3 would be ln 10."
    )
    right = "04.1 You said 4.6, it is 4.605. You are right. That is ln 100."
    assert said(capsys, 4.6, 4.60517, why, mistakes=forgot) == right
    assert "You are right" in said(capsys, np.float32(4.6), np.float64(4.60517))
    assert "You are right" not in said(capsys, 61_705, 61_706)


def test_a_guess_in_words_or_in_parts_is_not_compared(capsys):
    assert said(capsys, " Tanh", "tanh", choices=("tanh", "ReLU")).endswith("You are right.")
    text = said(capsys, "sigmoid", "tanh", choices=("tanh", "ReLU"))
    assert text == "04.1 Not yet: 'sigmoid' is none of: tanh, ReLU."
    assert said(capsys, ["a", "c", "b"], ["a", "b", "c"]).endswith("1 of 3 are right.")
    assert said(capsys, (6, 28, 28), (6, 28, 28)).endswith("You are right.")


def test_a_guess_as_tensor_or_numpy_scalar_among_others_is_refused(capsys):
    for guess in ((torch.tensor(4.6), np.int64(3)), [np.float32(4.6), torch.tensor(3)]):
        assert "You are right" in said(capsys, guess, (4.60517, 3))
    guess = {"a": torch.tensor([1.0, 2.0]), "b": np.float64(1e-9)}
    assert "You are right" in said(capsys, guess, {"a": [1.0, 2.0], "b": 0.0})
    assert "You are right" in said(capsys, 0, 3e-8) and "You are right" not in said(capsys, 0.01, 3e-8)


def test_the_mistake_in_one_part_of_a_guess_is_not_named(capsys):
    mistakes = {"n": {4: "Four is even."}, 0: {9: "Nine is odd."}}
    text = said(capsys, {"n": 4, "m": 1}, {"n": 5, "m": 1}, "Why.", mistakes=mistakes)
    assert text.endswith("1 of 2 are right. Why. Four is even.")
    assert said(capsys, (9, 1), (5, 1), "Why.", mistakes=mistakes).endswith("Why. Nine is odd.")
    assert said(capsys, (5, 9), (5, 1), "Why.", mistakes=mistakes).endswith("Why.")


def test_an_unfinished_guess_or_one_in_other_words_costs_the_answer(capsys):
    assert said(capsys, {"a": 1}, {"a": 1, "b": 2}) == "04.1 Not yet: expected 2 values, your guess has 1."
    assert said(capsys, [2.3, 3], (2.3, 3.0, 4.0)) == "04.1 Not yet: expected 3 values, your guess has 2."
    for guess in ({"a": "db", "b": None}, {"a": "db", "b": "everything"}):
        text = said(capsys, guess, {"a": "db", "b": "none"}, choices=("db", "none", "dw"))
        assert "is none of: db, none, dw." in text
    assert "You are right" in said(capsys, 1e-7, "1e-7", choices=("0", "1e-7", "1e-3"))


@pytest.mark.parametrize(
    "guess", [None, "two", [], 1j, Odd, {1}, np.zeros(3), torch.zeros(2), True, float("nan")]
)
def test_a_strange_guess_stops_the_lesson(guess, capsys):
    for answer in (4.6, 3, "a", (1, 2)):
        text = said(capsys, guess, answer)
        assert text.startswith(("04.1 You said", "04.1 Not yet: expected 2 values, your guess has "))


def test_the_frame_imports_torch_or_needs_it_for_a_numpy_lesson():
    code = """
        import sys
        import numpy as np
        from course_utils.exercises.frame import Check, predict, use
        check = Check(lambda x: x.sum(), lambda rng: {"x": rng.normal(size=3)})
        check(lambda x: sum(x))
        predict("01.1", 2, 3)
        use(np.sum, np.sum)
        assert "torch" not in sys.modules
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "Correct."


def test_a_square_matrix_that_is_transposed_is_not_named():
    want = np.arange(4.0).reshape(2, 2)
    assert difference(want.T, want) == "your result is transposed"


def test_a_case_is_described_by_a_wall_of_numbers():
    text = described({"c": 2, "x": np.zeros((2, 3)), "y": torch.tensor([0, 2])})
    assert text == "c=2, x of shape (2, 3) and y=[0, 2]" and described({"n": 5, "k": 3}) == "n=5, k=3"
