"""python -m course_utils train --model resnet --data cifar100"""

import argparse
import os
import sys

import matplotlib

from course_utils.checkpoints import CheckpointError
from course_utils.data.sources import DataError
from course_utils.experiment import train
from course_utils.models import MODELS
from course_utils.settings import PROFILES


def main() -> int | str:
    """Run the command line; a string is an error's one line."""
    parser = argparse.ArgumentParser(prog="python -m course_utils", description="The course's commands.")
    command = parser.add_subparsers(dest="command", required=True).add_parser(
        "train", help="train a network by its recipe; a cut run goes on, a finished one is read"
    )
    command.add_argument("--model", required=True, choices=MODELS)
    command.add_argument("--data", required=True, help="mnist (lenet), cifar100 or fashion (the others)")
    command.add_argument(
        "--profile", choices=PROFILES, help="default: COURSE_PROFILE, else what the machine can do"
    )
    command.add_argument("--variant", help="a named change of the recipe; it stops at validation")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--record", action="store_true", help="write into the course's ledger (maintainers)")
    arguments = vars(parser.parse_args())
    arguments.pop("command")
    if profile := arguments.pop("profile"):
        os.environ["COURSE_PROFILE"] = profile
    matplotlib.use("Agg")  # the curve goes to a file, on machines with and without a screen
    try:
        result = train(**arguments)
    except (ValueError, OSError, DataError, CheckpointError) as error:
        return f"course_utils: {error}"
    except KeyboardInterrupt:
        return "course_utils: stopped; the same command goes on from the last epoch."
    test = result["test"]
    tested = (
        f"test {test['top1']:.2%} ({test['correct']:,} of {test['total']:,})" if test else "test set not read"
    )
    print(f"validation {result['val']['top1']:.2%}, {tested}, {60 * result['minutes']:.0f} s of training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
