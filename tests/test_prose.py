"""Numbers in prose are those of their files."""

import re
import sys
from pathlib import Path

import pytest
from test_ledger import put, record

from course_utils import ledger

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import prose  # noqa: E402


@pytest.mark.parametrize("arguments, text", [
    ("test.top1 mean", "97.50 %"), ("test.top1 min", "97.00 %"), ("test.top1 max", "98.00 %"),
    ("test.top1 sd", "0.50 points"), ("test.top1 n", "3"), ("test.top1 s1", "97.50 %"),
    ("history.val_top1.1 s0", "98.70 %"), ("test.loss mean", "0.032"), ("minutes mean", "1.25"),
    ("parameters s0", "61,706"), ("images_per_second mean", "8,001"), ("precision s0", "float32"),
    ("against_top1 s0", "55.04 %"),
])  # fmt: skip
def test_a_number_in_prose_has_another_value_or_form(checkout, arguments, text):
    put(checkout / "data/results", *(record(i, top1) for i, top1 in enumerate((0.97, 0.975, 0.98))))
    assert prose.result_text("lenet-mnist-cpu", *arguments.split()) == text


TEXT = """Top-1 <!--result lenet-mnist-cpu test.top1 mean-->12 %<!--/--> after
<!--bench loader.json rows.0.ratio--><!--/-->, on <!--bench loader.json cpu-->old
<!--/-->. <!-- a comment -->

<!--table results-->
old
<!--/-->
The end."""


def test_markers_are_not_rewritten_from_their_files(checkout):
    put(checkout / "data/results", record(0, 0.97), record(1, 0.98), record(0, None, variant="x", test=None))
    ledger.write_json({"rows": [{"ratio": 3.14159}], "cpu": "Zen"}, checkout / "benchmarks/loader.json")
    made = prose.rewrite(TEXT)
    assert "Top-1 <!--result lenet-mnist-cpu test.top1 mean-->97.50 %<!--/--> after\n" in made
    assert (
        "<!--bench loader.json rows.0.ratio-->3.14<!--/-->, on <!--bench loader.json cpu-->Zen<!--/-->"
        in made
    )
    row = "| LeNet-5 | mnist | cpu | 61,706 | 97.50 ± 0.71 % | 2 | 1.25 | Some CPU, 2 cores, float32 |"
    assert [line for line in made.splitlines() if line.startswith("| LeNet-5")] == [row]
    assert made.endswith("<!--/-->\nThe end.") and "old" not in made and "<!-- a comment -->" in made
    assert prose.rewrite(made) == made
    put(checkout / "data/results", record(2, 0.99, precision="bfloat16"))
    with pytest.raises(ValueError, match="lenet-mnist-cpu: recipes and precisions"):
        prose.rewrite(TEXT)
    with pytest.raises(FileNotFoundError, match="no result resnet-mnist-cpu in the ledger"):
        prose.rewrite(TEXT.replace("lenet-mnist", "resnet-mnist"))


def test_a_key_with_spaces_or_dots_is_not_found(checkout):
    found = {
        "ReLU or tanh": {"pairs": [{"points": -2.961}]},
        "dropout": {"sides": {"dropout 0.5": {"mean": 41.2}}},
    }
    ledger.write_json({"comparisons": found}, checkout / "benchmarks/claims-alexnet.json")
    for path, text in (("ReLU or tanh.pairs.0.points", "-2.96"), ("dropout.sides.dropout 0.5.mean", "41.20")):
        marker = f"<!--bench claims-alexnet.json comparisons.{path}-->"
        assert prose.rewrite(f"{marker}?<!--/-->") == f"{marker}{text}<!--/-->"
    with pytest.raises(KeyError, match="'no such thing' is none of pairs"):
        prose.field(found, "ReLU or tanh.no such thing")


def test_a_ratio_or_a_time_has_digits_that_nobody_measured(checkout):
    values = {"ratio": 20.021, "seconds": 123.41, "small_ratio": 3.223, "points": 10.08}
    ledger.write_json(values, checkout / "benchmarks/loader.json")
    text = " ".join(f"<!--bench loader.json {name}-->old<!--/-->" for name in values)
    assert re.findall(r">([\d.]+)<", prose.rewrite(text)) == ["20", "123", "3.22", "10.08"]


def test_minutes_of_a_run_beside_others_are_averaged(checkout):
    put(checkout / "data/results", record(0, 0.97), record(1, 0.98, minutes=9.0, alone=False))
    assert "| 97.50 ± 0.71 % | 2 | 1.25 |" in prose.results_table()
    put(checkout / "data/results", record(0, 0.97, alone=False))
    assert "| 97.50 ± 0.71 % | 2 |  |" in prose.results_table()
