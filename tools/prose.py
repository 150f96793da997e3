"""Numbers in prose: markers and tables made from the ledger and from benchmarks' files."""

import json
import re
import statistics

from course_utils.ledger import all_recorded, folder, recorded
from course_utils.models import label

MARKER = re.compile(r"<!--(result|bench|table) ([^>]*?)-->(.*?)<!--/-->", re.DOTALL)


def field(record: dict, path: str) -> object:
    """The value at a dotted path: test.top1; a key may hold spaces and dots: sides.dropout 0.5.mean."""
    while path:
        keys = (
            [path.split(".")[0]]
            if isinstance(record, list)
            else [key for key in record if f"{path}.".startswith(f"{key}.")]
        )
        if not keys:
            raise KeyError(f"{path!r} is none of {', '.join(record)}")
        key = max(keys, key=len)
        record, path = record[int(key) if isinstance(record, list) else key], path[len(key) + 1 :]
    return record


def number(value: object, path: str) -> str:
    """A value as prose shows it: percent for accuracies, thousands for counts, a ratio or a time from 10 on without decimals, text as it is."""
    if not isinstance(value, (int, float)):
        return str(value)
    name = next(name for name in reversed(path.split(".")) if not name.isdigit())
    if "top1" in name or "top5" in name:
        return f"{100 * value:.2f} %"
    if (
        isinstance(value, int)
        or name == "images_per_second"
        or (value >= 10 and re.search("ratio|seconds", name))
    ):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"


def result_text(key: str, path: str, statistic: str) -> str:
    """A number of the ledger: mean, sd, min, max, n over the seeds, or one seed's (s0)."""
    records = recorded(key)
    if not records:
        raise FileNotFoundError(f"no result {key} in the ledger.")
    one_kind(key, records)
    if statistic == "n":
        return str(len(records))
    if re.fullmatch(r"s\d+", statistic):
        return number(next(field(r, path) for r in records if f"s{r['seed']}" == statistic), path)
    values = [field(record, path) for record in records]
    functions = {"mean": statistics.mean, "sd": statistics.stdev, "min": min, "max": max}
    text = number(functions[statistic](values), path)
    return text.replace(" %", " points") if statistic == "sd" else text


def one_kind(key: str, records: list[dict]) -> None:
    """Raises ValueError where results of different recipes or precisions would be averaged."""
    kinds = {(r["recipe"].get("version"), r["precision"]) for r in records}
    if len(kinds) > 1:
        raise ValueError(
            f"{key}: recipes and precisions {sorted(kinds, key=str)}; expected one. Record the rest anew."
        )


def bench_text(file: str, path: str) -> str:
    """A number of a benchmark's JSON file."""
    return number(field(json.loads((folder("benchmarks") / file).read_text(encoding="utf-8")), path), path)


def results_table() -> str:
    """Markdown: a row for each headline of the ledger, means over its seeds."""
    head = [
        "network",
        "data",
        "profile, variant",
        "parameters",
        "test top-1",
        "seeds",
        "minutes",
        "measured on",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    stems = {stem.rsplit("-s", 1)[0] for stem in all_recorded()}
    for key in sorted(stems):
        records = [record for record in recorded(key) if record["test"]]
        if not records:
            continue
        one_kind(key, records)
        first, top1 = records[0], [100 * record["test"]["top1"] for record in records]
        spread = f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
        computer = first["machine"]
        where = (
            computer["device"]
            if computer["device"] != "cpu"
            else f"{computer['cpu']}, {computer['cores']} cores"
        )
        row = [
            first["recipe"].get("title") or label(first["model"], first["recipe"]["network"]),
            first["dataset"],
            ", ".join(filter(None, (first["profile"], first["variant"]))),
            f"{first['parameters']:,}",
        ]
        row += [f"{statistics.mean(top1):.2f}{spread} %", str(len(top1))]
        minutes = [
            r["minutes"] for r in records if r.get("alone", True)
        ]  # beside other runs they say nothing
        row += [f"{statistics.mean(minutes):.2f}" if minutes else "", f"{where}, {first['precision']}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def rewrite(text: str) -> str:
    """The text with every marked number and table made anew from its file."""

    def replace(match):
        kind = match[1]
        arguments = match[2].split(maxsplit=1) if kind == "bench" else match[2].split()
        if kind == "table":
            return f"<!--table {match[2]}-->\n\n{results_table()}\n\n<!--/-->"
        made = result_text(*arguments) if kind == "result" else bench_text(*arguments)
        return f"<!--{kind} {match[2]}-->{made}<!--/-->"

    return MARKER.sub(replace, text)
