"""Runs the tests in the kernel VM. See tests/kernel/README.md."""

import fnmatch
import json
import os
import shutil
import sys
import time
import traceback

import cases_mbochs
import cases_mdpy
import cases_vgpu
from harness import CASES, Failed, Test

RESULTS = "/run/results"


def selected(patterns):
    chosen = [
        case
        for case in CASES
        if not patterns or any(fnmatch.fnmatchcase(case.name, p) for p in patterns)
    ]
    unmatched = [p for p in patterns if not fnmatch.filter([c.name for c in CASES], p)]
    if unmatched:
        sys.exit(f"no such test: {', '.join(unmatched)} (see --list)")
    # One driver after another, since mbochs and its copy cannot be loaded together.
    drivers = list(dict.fromkeys(case.driver for case in CASES))
    return sorted(chosen, key=lambda case: drivers.index(case.driver))


def run(case, config):
    """Runs one test; None, or why it failed."""
    directory = os.path.join(RESULTS, case.name)
    shutil.rmtree(directory, ignore_errors=True)
    os.mkdir(directory)
    test = Test(case, config, directory)
    reasons = []
    try:
        test.prepare()
        case.function(test)
    except Failed as failure:
        reasons.append(str(failure))
    except Exception as error:  # pylint: disable=broad-except
        reasons.append(f"{type(error).__name__}: {error}")
        with open(os.path.join(directory, "traceback"), "w", encoding="utf-8") as file:
            traceback.print_exc(file=file)
    # Afterwards too, whatever happened: what a test leaves behind would fail the next one.
    reasons += test.finish()
    return "; ".join(reasons) or None


def main():
    if sys.argv[1:] == ["--list"]:
        for case in CASES:
            print(f"{case.name:32} {case.title}")
        return
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    cases = selected(sys.argv[2:] or config["cases"])
    print(f"1..{len(cases)}", flush=True)
    passed = failed = 0
    for number, case in enumerate(cases, 1):
        start = time.monotonic()
        reason = run(case, config)
        seconds = time.monotonic() - start
        known = case.stock if config["stock"] else None
        if known:
            # A defect that is gone from stock QEMU should be gone from this list.
            reason = None if reason else f"passed, but was known to fail with stock QEMU: {known}"
        if reason:
            failed += 1
            print(f"not ok {number} - {case.name}: {case.title} ({seconds:.0f} s)")
            print(f"#   {reason}", flush=True)
        else:
            passed += 1
            note = f" [fails as known: {known}]" if known else ""
            print(f"ok {number} - {case.name}: {case.title} ({seconds:.0f} s){note}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)


if __name__ == "__main__":
    main()
