"""Counts the type checker's errors: there may not be more than the baseline, which may only fall."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASELINE = 220


def main() -> str | None:
    """What is wrong, None where nothing is."""
    checked = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, text=True, capture_output=True)
    counted = re.search(r"^(?:Found (\d+) errors?|Success)\b", checked.stdout, re.M)
    if counted is None:
        return f"mypy did not get through:\n{checked.stdout}{checked.stderr}"
    errors = int(counted[1] or 0)
    if errors > BASELINE:
        shown = (line[:200] for line in checked.stdout.splitlines() if ": error: " in line)
        return "\n".join([*shown, f"mypy finds {errors} errors, {errors - BASELINE} more than the {BASELINE} "
                          f"that {Path(__file__).name} allows: mend those that are new"])
    print(f"mypy: {errors} errors, {BASELINE} allowed")
    if errors < BASELINE:
        print(f"Fewer than before: lower BASELINE in .ci/{Path(__file__).name} to {errors}")
    return None


if __name__ == "__main__":
    sys.exit(main())
