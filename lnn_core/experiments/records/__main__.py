"""``python -m lnn_core.experiments.records repeat RECORD.json``: compute a record again and compare.

Exit status: 0 if the results agree, 1 if they do not, 2 where the file holds no record, 3 where it
cannot be computed again.
"""

from __future__ import annotations

import argparse
import math
import sys
import traceback
from pathlib import Path

# They declare the kinds of records that there are: no file decides what is imported.
from .. import internal, pca, robustness, runs  # noqa: F401
from .files import claim
from .repeating import read, repeat


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lnn_core.experiments.records")
    command = parser.add_subparsers(required=True).add_parser(
        "repeat", help="compute a record again and compare", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("record", type=Path, metavar="RECORD.json")
    command.add_argument("--into", type=Path, metavar="FOLDER", help="keep the new record there")
    command.add_argument("--tolerance", type=float, default=1.0, metavar="F",
                         help="F times the tolerances that tolerances.py explains"
                         " (default: %(default)s; 0: to the last digit)")
    options = parser.parse_args(arguments)
    if not 0 <= options.tolerance < math.inf:
        command.error(f"--tolerance {options.tolerance} must be a finite number of at least 0")
    try:
        run, recorded = read(options.record)
        if options.into is not None:
            claim(options.into)
    except (OSError, ValueError) as error:
        command.error(str(error))
    try:
        return 0 if repeat(run, recorded, options.into, options.tolerance) else 1
    except Exception:
        traceback.print_exc()
        return 3


if __name__ == "__main__":
    sys.exit(main())
