# SPDX-License-Identifier: Apache-2.0

"""Errors of this backend in nova-compute's logs."""

import dataclasses
import datetime
import pathlib
import re
from collections.abc import Iterable, Iterator

from tests.soak.journey import Journey

_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (?P<pid>\d+) "
    r"(?P<level>[A-Z]+) (?P<logger>\S+) (?P<rest>.*)"
)
_OURS = "nova_rbd_backend"
_REQUEST = re.compile(r"req-[0-9a-f-]{36}")
_INSTANCE = re.compile(r"\[instance: ([0-9a-f-]{36})\]")
# No fault of the cluster or a host explains these.
_SLIPS = re.compile(
    r"\b(AssertionError|AttributeError|ImportError|IndexError|KeyError"
    r"|NameError|NotImplementedError|RecursionError|TypeError"
    r"|UnboundLocalError|UnicodeDecodeError|ValueError|ZeroDivisionError): "
)


@dataclasses.dataclass
class Complaint:
    """Lines of one error, with its traceback."""

    at: float
    pid: str
    logger: str
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def is_ours(self) -> bool:
        return self.logger.startswith(_OURS) or f"{_OURS}/" in self.text

    @property
    def is_slip(self) -> bool:
        """Whether it is an error of the program, and not of its world."""
        return bool(_SLIPS.search(self.lines[-1]))

    @property
    def instances(self) -> set[str]:
        return set(_INSTANCE.findall(self.text))

    def __str__(self) -> str:
        when = datetime.datetime.fromtimestamp(self.at)
        request = _REQUEST.search(self.text)
        words = [
            when.isoformat(" ", "milliseconds"),
            self.logger,
            request[0] if request else "",
            " ".join(sorted(self.instances)),
            self.lines[0].strip(),
        ]
        if len(self.lines) > 1:
            words.append(f"... {self.lines[-1].strip()}")
        return " ".join(word for word in words if word)


def complaints(lines: Iterable[str]) -> Iterator[Complaint]:
    """Yield the errors in a log; a traceback is a part of its error."""
    current: Complaint | None = None
    for line in lines:
        found = _LINE.match(line)
        if not found or found["level"] not in ("ERROR", "CRITICAL"):
            if current and found:
                yield current
                current = None
            continue
        rest = found["rest"]
        text = re.sub(r"^(\[[^\]]*\] )+", "", rest)
        goes_on = (
            current is not None
            and (current.pid, current.logger)
            == (found["pid"], found["logger"])
            and re.match(r"Traceback |\s|\S+(Error|Exception|\w+): ", text)
        )
        if current and goes_on:
            current.lines.append(rest)
            continue
        if current:
            yield current
        at = datetime.datetime.fromisoformat(found["time"]).timestamp()
        current = Complaint(at, found["pid"], found["logger"], [rest])
    if current:
        yield current


def judge(
    log: pathlib.Path, offset: int, journey: Journey, met: set[str]
) -> list[Complaint]:
    """Return our errors that nothing explains, from an offset on.

    :param met: servers to which two things were done at a time, which may
        have failed for that
    """
    with log.open("rb") as opened:
        opened.seek(offset)
        lines = opened.read().decode(errors="replace").splitlines()
    ours = [each for each in complaints(lines) if each.is_ours]
    for each in ours:
        journey.note("logged:", each)
    return [
        each
        for each in ours
        if each.is_slip
        or not (journey.explained(each.at, each.at) or each.instances & met)
    ]
