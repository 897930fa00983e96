"""Runs the tests in the kernel VM. See tests/kernel/README.md."""

import fnmatch
import json
import os
import shutil
import sys
import time
import traceback

import cases_egl  # noqa: F401 (its tests register themselves)
import cases_front_ends  # noqa: F401 (its tests register themselves)
import cases_libvirt  # noqa: F401 (its tests register themselves)
import cases_mbochs  # noqa: F401 (its tests register themselves)
import cases_migration  # noqa: F401 (its tests register themselves)
import cases_mdpy  # noqa: F401 (its tests register themselves)
import cases_vgpu  # noqa: F401 (its tests register themselves)
from harness import CASES, Failed, Test

RESULTS = "/run/results"


def selected(patterns, long=False):
    """Returns the tests that match a pattern, by default all but the long ones."""
    chosen = [
        case
        for case in CASES
        if (any(fnmatch.fnmatchcase(case.name, p) for p in patterns) if patterns else long or not case.long)
    ]
    unmatched = [p for p in patterns if not fnmatch.filter([c.name for c in CASES], p)]
    if unmatched:
        sys.exit(f"no such test: {', '.join(unmatched)} (see --list)")
    # Sorted by driver, since mbochs and its copy cannot be loaded together.
    drivers = list(dict.fromkeys(case.driver for case in CASES))
    return sorted(chosen, key=lambda case: drivers.index(case.driver))


def run(case, config):
    """Runs one test. Returns None or why it failed, and whether the kernel is still sound."""
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
    return "; ".join(reasons) or None, test.kernel_is_sound


def report(number, case, reason, seconds, stock):
    """Prints the result of a test."""
    known = case.stock if stock else None
    if known:
        # A defect that stock QEMU no longer has must be removed from the table.
        note = f" [fails as known: {known}]"
        reason = None if reason else f"passed, but is known to fail with stock QEMU: {known}"
    else:
        note = ""
    word = "not ok" if reason else "ok"
    print(f"{word} {number} - {case.name}: {case.title} ({seconds:.0f} s){'' if reason else note}")
    if reason:
        print("#   " + " / ".join(reason.split("\n")), flush=True)


def main():
    if sys.argv[1] in ("--list", "--list-long"):
        for case in selected(sys.argv[2:], sys.argv[1] == "--list-long"):
            print(f"{case.name:24} {case.title}{' (long)' if case.long else ''}")
        return
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    number = config["first"]
    for number, case in enumerate(selected(sys.argv[2:] or config["cases"]), number):
        # If the kernel does not survive the test, this tells the host which it was.
        print(f"# {number} {case.name}", flush=True)
        start = time.monotonic()
        reason, sound = run(case, config)
        report(number, case, reason, time.monotonic() - start, config["stock"])
        if not sound:
            print("# the kernel is damaged: the VM boots again for the other tests", flush=True)
            break


if __name__ == "__main__":
    main()
