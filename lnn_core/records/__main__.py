"""``python -m lnn_core.records repeat RECORD.json``: compute a record again and compare.

Exit status: 0 if the results agree, 1 if they do not, 2 where the file holds no record.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .repeating import read, repeat


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lnn_core.records")
    command = parser.add_subparsers(required=True).add_parser(
        "repeat", help="compute a record again and compare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("record", type=Path, metavar="RECORD.json")
    command.add_argument("--into", type=Path, metavar="FOLDER", help="keep the new record there")
    command.add_argument("--tolerance", type=float, default=5e-3, metavar="T",
                         help="results agree where |new - old| <= T max(1, |old|) (default: "
                         "%(default)s); whole numbers, such as the best epoch, are not judged")
    options = parser.parse_args(arguments)
    if not options.tolerance >= 0:
        command.error(f"--tolerance {options.tolerance} must be at least 0")
    try:
        run, recorded = read(options.record)
    except ValueError as error:
        command.error(str(error))
    return 0 if repeat(run, recorded, options.into, options.tolerance) else 1


if __name__ == "__main__":
    sys.exit(main())
