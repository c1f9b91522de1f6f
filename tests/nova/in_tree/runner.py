# SPDX-License-Identifier: Apache-2.0

"""One process that runs a part of a suite: SUITE PART PARTS REPORT [NAME...].

It is a process of its own because Nova's tests choose between eventlet and
threads when they are imported, and because place.py cannot be undone. The
runner is unittest's, as Nova's own is: pytest cannot run tests that delete
their attributes, as Nova's do.
"""

import json
import os
import sys
import traceback
import unittest

from tests.nova.in_tree import adaptations, place
from tests.nova.in_tree.suites import SUITES


class Result(unittest.TestResult):
    """Writes a line of JSON when a test begins, and when it ends."""

    KEPT_CHARACTERS = 6000

    def __init__(self, report):
        super().__init__()
        self._report = report
        self._found = None

    def _write(self, test, outcome, text=""):
        line = {"test": test.id(), "outcome": outcome, "text": text}
        print(json.dumps(line), file=self._report, flush=True)

    def _keep(self, outcome, error=None):
        text = ""
        if error is not None:
            text = "".join(traceback.format_exception(*error))
        # A failure of the clean-up must not hide the test's own.
        if self._found is None or self._found[0] != "failed":
            self._found = outcome, text[-self.KEPT_CHARACTERS :]

    # unittest's names.
    def startTest(self, test):
        self._found = None
        self._write(test, "")

    def stopTest(self, test):
        self._write(test, *(self._found or ("failed", "it has no outcome")))

    def addSuccess(self, test):
        self._keep("passed")

    def addError(self, test, err, details=None):
        self._keep("failed", err)

    def addFailure(self, test, err, details=None):
        self._keep("failed", err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._keep("failed", err)

    def addSkip(self, test, reason, details=None):
        self._keep("skipped")

    def addExpectedFailure(self, test, err, details=None):
        self._keep("passed")

    def addUnexpectedSuccess(self, test, details=None):
        self._keep("failed")


def flat(suite):
    """Yield the tests of nested suites."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def main(suite, part, parts, report, *names):
    chosen = SUITES[suite]
    place.put_in_place(chosen.package)

    from nova import version

    release = int(version.version_string().split(".")[0])
    loader = unittest.TestLoader()
    loaded = loader.loadTestsFromNames(names or chosen.of(release))
    native = os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] == "1"
    left_out = chosen.left_out(release, "native" if native else "eventlet")
    tests = [
        test for test in flat(loaded) if not test.id().startswith(left_out)
    ]
    adaptations.adapt(tests)
    with open(report, "w") as file:
        result = Result(file)
        for test in tests[int(part) :: int(parts)]:
            test.run(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
