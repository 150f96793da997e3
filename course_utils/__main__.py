"""python -m course_utils doctor, or train --model resnet --data cifar100"""

import argparse
import os
import sys


def main() -> int | str:
    """Run the command line; a string is an error's one line."""
    try:
        return command()
    except KeyboardInterrupt:  # while a command still imports, too
        return "course_utils: stopped; the same command goes on where it was."


def command() -> int | str:
    """Parse and run. What a command needs is imported by it alone: doctor runs where torch is missing."""
    parser = argparse.ArgumentParser(prog="python -m course_utils", description="The course's commands.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="what this machine has: Python, packages, device, data sets, folders")
    train = commands.add_parser(
        "train", help="train a network by its recipe; a cut run goes on, a finished one is read"
    )
    train.add_argument("--model", required=True, help="lenet, alexnet, vgg, googlenet or resnet")
    train.add_argument(
        "--data", required=True, help="mnist (lenet), cifar100 or fashion (the others), cifar10 (vgg, resnet)"
    )
    train.add_argument(
        "--profile", choices=("smoke", "cpu", "full"), help="default: COURSE_PROFILE, else cpu"
    )
    train.add_argument("--variant", help="a named change of the recipe; it stops at validation")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--record", action="store_true", help="write into the course's ledger (maintainers)")
    arguments = vars(parser.parse_args())
    if arguments.pop("command") == "doctor":
        from course_utils.doctor import doctor

        return doctor()
    if profile := arguments.pop("profile"):
        os.environ["COURSE_PROFILE"] = profile
    import matplotlib

    from course_utils.checkpoints import CheckpointError
    from course_utils.data import DataError
    from course_utils.experiment import train as training

    matplotlib.use("Agg")  # the curve goes to a file, on machines with and without a screen
    try:
        result = training(**arguments)
    except (ValueError, OSError, DataError, CheckpointError) as error:
        return f"course_utils: {error}"
    test = result["test"]
    tested = (
        f"test {test['top1']:.2%} ({test['correct']:,} of {test['total']:,})" if test else "test set not read"
    )
    print(f"validation {result['val']['top1']:.2%}, {tested}, {60 * result['minutes']:.0f} s of training")
    return 0


if __name__ == "__main__":
    sys.exit(main())
