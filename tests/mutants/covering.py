# SPDX-License-Identifier: Apache-2.0

"""Which tests run a line, and how long they take: recorded once, then read."""

import collections
import difflib
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence

from tests.mutants import recording, tree
from tests.testbed import paths

RECORD = paths.CHECKOUT / ".testbed/mutants/record"
SUITES = ("tests/unit", "tests/contract", "tests/nova", "tests/functional")
PRODUCT = "nova_rbd_backend"
# Stands for a test where Python ran a line before any test did.
IMPORT = ""
# They run the product only in ways that other tests do too, and take long.
LEFT_OUT = (
    "tests/nova/test_in_tree.py",
    "tests/functional/benchmarks",
    "tests/functional/testbed",
)
CONFIG = """\
[run]
source = {tree}/nova_rbd_backend
parallel = true
data_file = {record}/coverage
patch = _exit
context = ${{PYTEST_CURRENT_TEST-}}
disable_warnings = no-data-collected,module-not-measured,module-not-imported
"""


def record(wanted: Sequence[str]) -> None:
    """Run tests in a copy of the checkout, and note which lines each runs.

    What was noted of the same tests is forgotten, that of others stays.

    :param wanted: folders and files of tests; all suites without e2e if empty
    """
    import coverage

    RECORD.mkdir(parents=True, exist_ok=True)
    place = tree.Tree(RECORD.parent / "recorded")
    place.refresh()
    config = RECORD / "coveragerc"
    config.write_text(CONFIG.format(tree=place.folder, record=RECORD))
    # A file that an interrupted run has left would be read as a new one's.
    for old in RECORD.glob("coverage.*"):
        old.unlink()
    seconds = RECORD / "seconds.new"
    seconds.unlink(missing_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "coverage", "run", "--rcfile", config),
            *("-m", "pytest", "-q", "-p", "tests.mutants.recording"),
            *("-p", "no:xdist", "-p", "no:cacheprovider"),
            *(f"--ignore={path}" for path in LEFT_OUT),
            *(wanted or SUITES),
        ],
        cwd=place.folder,
        env={
            **place.environment(),
            recording.FILE: str(seconds),
            recording.CONFIG: str(config),
        },
    )
    measured = coverage.CoverageData(str(RECORD / "coverage.new"))
    for path in sorted(RECORD.glob("coverage.*.*")):
        part = coverage.CoverageData(str(path))
        part.read()
        measured.update(part)
        path.unlink()
    _merge(measured, place, seconds)


def _merge(measured, place: tree.Tree, seconds: pathlib.Path) -> None:
    known = load(place.folder)
    found = _read_seconds(seconds)
    for lines in known.lines.values():
        for tests in lines.values():
            tests -= found.keys()
    for path in measured.measured_files():
        name = str(pathlib.Path(path).relative_to(place.folder))
        lines = known.lines.setdefault(name, {})
        for line, contexts in measured.contexts_by_lineno(path).items():
            tests = {_test(context) for context in contexts}
            tests &= found.keys() | {IMPORT}
            lines.setdefault(line, set()).update(tests)
    for name in known.lines:
        known.sources[name] = _source(place.folder / name)
    known.seconds.update(found)
    known.save()
    seconds.unlink()


def _test(context: str) -> str:
    """Return the test of a context: of the process itself or of a child.

    A child's context has the phase too: "tests/x.py::test_y (call)".
    """
    name, _, phase = context.partition("|")[0].rpartition(" (")
    return name if phase in ("setup)", "call)", "teardown)") else context


def _read_seconds(path: pathlib.Path) -> dict[str, float]:
    """Return the seconds of each test that passed.

    The first test of a file waits for what the file's tests share; it counts
    as if it was one of the others.
    """
    reports = [json.loads(line) for line in path.read_text().splitlines()]
    failed = {test for test, _, outcome, _ in reports if outcome != "passed"}
    setups = collections.defaultdict(list)
    for test, when, _, seconds in reports:
        if when == "setup":
            setups[test.partition("::")[0]].append(seconds)
    found: collections.Counter[str] = collections.Counter()
    for test, when, _, seconds in reports:
        if when == "setup":
            usual = statistics.median(setups[test.partition("::")[0]])
            seconds = min(seconds, usual)
        found[test] += seconds
    return {t: s for t, s in found.items() if t not in failed}


class Covering:
    """Which tests run a line, and how long each test takes.

    :param sources: what the lines are of
    """

    def __init__(
        self,
        lines: dict[str, dict[int, set[str]]],
        seconds: dict[str, float],
        sources: dict[str, str] | None = None,
    ):
        self.lines = lines
        self.seconds = seconds
        self.sources = sources or {}

    def tests(self, path: str, lines: Iterable[int]) -> list[str]:
        """Return the tests that run one of the lines.

        First are those that most likely fail: the tests of the file and of its
        folder, by their names; then the quickest. Lines that Python runs when
        it imports the file belong to all tests of the file.
        """
        of_file = self.lines.get(path, {})
        found = set().union(*(of_file.get(line, ()) for line in lines))
        if IMPORT in found:
            found = set().union(*of_file.values()) - {IMPORT}
        of_product = pathlib.PurePath(path)
        folder = of_product.relative_to(PRODUCT).parent

        def order(test: str) -> tuple[bool, bool, float]:
            file = pathlib.PurePath(test.partition("::")[0])
            elsewhere = pathlib.PurePath(*file.parts[2:-1]) != folder
            other = elsewhere or of_product.stem not in file.stem
            return other, elsewhere, self.seconds.get(test, 0)

        return sorted(found, key=order)

    def save(self) -> None:
        RECORD.mkdir(parents=True, exist_ok=True)
        lines = {
            path: {line: sorted(tests) for line, tests in found.items()}
            for path, found in self.lines.items()
        }
        found = {
            "lines": lines,
            "seconds": self.seconds,
            "sources": self.sources,
        }
        (RECORD / "covering.json").write_text(json.dumps(found))

    def follow(self, path: str, source: str) -> None:
        """Give the lines of a file the numbers that they have now.

        A line that is new gets the tests of the lines that it replaces, or
        else of the line before it.
        """
        old = self.sources[path].splitlines()
        new = source.splitlines()
        lines = self.lines[path]
        found: dict[int, set[str]] = {}
        matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
        for what, i1, i2, j1, j2 in matcher.get_opcodes():
            for j in range(j1, j2):
                if what == "equal":
                    known = [i1 + j - j1 + 1]
                else:
                    known = [*range(i1 + 1, i2 + 1)] or [i1]
                tests = [lines[each] for each in known if each in lines]
                if tests:
                    found[j + 1] = set().union(*tests)
        self.lines[path], self.sources[path] = found, source


def load(checkout: pathlib.Path = paths.CHECKOUT) -> Covering:
    """Return what has been recorded so far, for the files as they are now."""
    path = RECORD / "covering.json"
    if not path.exists():
        return Covering({}, {})
    found = json.loads(path.read_text())
    lines = {
        path: {int(line): set(tests) for line, tests in each.items()}
        for path, each in found["lines"].items()
    }
    covering = Covering(lines, found["seconds"], found["sources"])
    for path, source in found["sources"].items():
        now = _source(checkout / path)
        if now != source:
            covering.follow(path, now)
    return covering


def _source(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""
