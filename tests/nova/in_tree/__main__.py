# SPDX-License-Identifier: Apache-2.0

"""Run one suite for the installed Nova, and print the verdict."""

import argparse
import importlib.metadata
import sys

from tests.nova.in_tree import run, suites


def main():
    release = int(importlib.metadata.version("nova").split(".")[0])
    parser = argparse.ArgumentParser(prog="python -m tests.nova.in_tree")
    parser.add_argument("suite", choices=suites.SUITES)
    parser.add_argument("--threading", choices=run.THREADING)
    asked = parser.parse_args()
    threading = asked.threading or suites.threadings(asked.suite, release)[0]
    verdict = run.judge(run.run(asked.suite, threading), release)
    for test, story in verdict.failed.items():
        print(f"\n{test}\n{story}")
    print(verdict)
    return 1 if verdict.failed else 0


if __name__ == "__main__":
    sys.exit(main())
