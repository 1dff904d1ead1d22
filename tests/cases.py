"""What the test scripts share: cases that pass or fail one by one, a line for each, and the sum at the end."""
import subprocess
import sys

_counts = {"ok": 0, "FAIL": 0}


def require(condition, message):
    if not condition:
        raise ValueError(message)


def case(name, test, *args):
    """Runs one test, which returns what to say of it or raises, and prints a line."""
    try:
        verdict, text = "ok", test(*args)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        verdict, text = "FAIL", str(error)
    _counts[verdict] += 1
    print(f"{verdict:4} {name}: {text}", flush=True)


def finish():
    print(f"{_counts['ok']} passed, {_counts['FAIL']} failed")
    sys.exit(_counts["FAIL"] > 0)
