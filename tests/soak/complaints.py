# SPDX-License-Identifier: Apache-2.0

"""Errors of this backend in nova-compute's logs."""

import dataclasses
import datetime
import pathlib
import re
from collections.abc import Iterable, Iterator

from tests.soak.journey import Journey

# A line of a traceback has no request, not even "[-]".
_LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (?P<pid>\d+) "
    r"(?P<level>[A-Z]+) (?P<logger>\S+) "
    r"(?P<request>\[(?:None |req-|-)[^\]]*\] )?(?P<text>.*)"
)
_OURS = "nova_rbd_backend"
_REQUEST = re.compile(r"req-[0-9a-f-]{36}")
_INSTANCE = re.compile(r"\[instance: ([0-9a-f-]{36})\] ?")
# No fault of the cluster or of a host explains these.
_SLIPS = re.compile(
    r"(Assertion|Attribute|Import|Index|Key|Name|NotImplemented|Recursion"
    r"|Type|UnboundLocal|UnicodeDecode|Value|ZeroDivision)Error\b"
)


@dataclasses.dataclass
class Complaint:
    """Lines of one error, with its traceback."""

    at: float
    pid: str
    logger: str
    request: str
    lines: list[str]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def is_ours(self) -> bool:
        return self.logger.startswith(_OURS) or f"{_OURS}/" in self.text

    @property
    def is_slip(self) -> bool:
        """Whether this backend raised what only a mistake in it can raise."""
        frames = [line for line in self.lines if ' File "' in line]
        raised_here = bool(frames) and f"{_OURS}/" in frames[-1]
        return raised_here and bool(_SLIPS.match(self._last))

    @property
    def instances(self) -> set[str]:
        return set(_INSTANCE.findall(self.text))

    @property
    def _last(self) -> str:
        said = [_INSTANCE.sub("", line) for line in self.lines]
        return [line for line in said if line.strip()][-1]

    def __str__(self) -> str:
        when = datetime.datetime.fromtimestamp(self.at)
        words = [when.isoformat(" ", "milliseconds"), self.logger]
        words += _REQUEST.findall(self.request)[:1]
        words += sorted(self.instances)
        words.append(_INSTANCE.sub("", self.lines[0]))
        if len(self.lines) > 1:
            words.append(f"... {self._last}")
        return " ".join(words)


def complaints(lines: Iterable[str]) -> Iterator[Complaint]:
    """Yield the errors in a log; a traceback is a part of its error."""
    current: Complaint | None = None
    for line in lines:
        found = _LINE.match(line)
        if not found:
            continue
        bad = found["level"] in ("ERROR", "CRITICAL")
        source = found["pid"], found["logger"]
        if (
            current
            and bad
            and not found["request"]
            and source == (current.pid, current.logger)
        ):
            current.lines.append(found["text"])
            continue
        if current:
            yield current
        current = None
        if bad:
            at = datetime.datetime.fromisoformat(found["time"]).timestamp()
            request = found["request"] or ""
            current = Complaint(at, *source, request, [found["text"]])
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
