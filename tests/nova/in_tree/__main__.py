# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Run one suite for the Nova of this Python, and say what came of it."""

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
