# SPDX-License-Identifier: Apache-2.0

"""One lane: does one step after the other, and waits for the end of each."""

import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

from openstack.exceptions import SDKException

from tests.soak import actions
from tests.soak.actions import Data
from tests.soak.counters import Counter, Listener
from tests.soak.fleet import Fleet, Member, Snapshot, picked
from tests.soak.journey import Journey
from tests.soak.plan import Step
from tests.soak.requests_of_users import Answer, Refused, User, task

LIMIT_SECONDS = 240
# How long a server may have no task before the action's last change of state:
# confirmResize sets no task.
SETTLED_SECONDS = 60
POLL_SECONDS = 0.5
_NAMES = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class Stock:
    """What servers are made of: ids of images, flavors (by name), volumes."""

    images: tuple[str, ...]
    flavors: dict[str, str]
    volumes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How an action ended: done, refused, failed, slow, met or stopped."""

    word: str
    why: str = ""


class Lane:
    """Does the steps of one lane until it is told to end."""

    def __init__(
        self,
        user: User,
        fleet: Fleet,
        stock: Stock,
        listener: Listener,
        journey: Journey,
        end: threading.Event,
    ):
        self._user = user
        self._fleet = fleet
        self._stock = stock
        self._listener = listener
        self._journey = journey
        self._end = end

    def run(self, steps: Iterator[Step]) -> None:
        for step in steps:
            if self._end.is_set():
                return
            try:
                if self._do(step):
                    self._end.wait(step.pause_seconds)
                else:
                    self._end.wait(0.05)
            except Refused as error:
                self._journey.note("no answer from Nova:", error)
                self._end.wait(2)

    def _do(self, step: Step) -> bool:
        """Do one step; return False if no server is ready for it."""
        if step.action in actions.BOOTS:
            return self._boot(step)
        action = actions.ACTIONS[step.action]
        member = self._fleet.chosen(step, self._user.servers())
        if member is None:
            return False
        body = self._filled(action.body, member, step)
        if body is False:
            return False
        with self._fleet.used(member):
            meetings, begin = member.meetings, time.time()
            before = self._before(action, member)
            request_id, outcome = self._asked(step, action, member, body)
            if member.meetings > meetings or member.users > 1:
                # The other action may have changed the data.
                before = member.hidden = None
                member.before_move = member.before_move[0], None
            self._after(action, member, before, outcome)
            self._ended(step, member, begin, request_id, outcome)
        return True

    # -- boots ----------------------------------------------------------------

    def _boot(self, step: Step) -> bool:
        with self._fleet.place() as room:
            if not room:
                return False
            source = self._source(step)
            if source is None:
                return False
            body = {
                "name": f"soak-{next(_NAMES)}",
                "imageRef": source.id,
                "flavorRef": self._stock.flavors[source.flavor],
                "networks": "none",
                # Another digit of the same number: a few of all servers.
                "config_drive": step.pick * 10 % 1 < 0.3,
            }
            begin = time.time()
            try:
                answer = self._user.ask("POST", "/servers", {"server": body})
            except Refused as error:
                self._note(step, "-", error.request_id, f"refused: {error}")
                self._journey.ended(step.action, "refused")
                return True
            member = Member(answer.body["server"]["id"], source.flavor)
            counter = Counter(source.counter.safe, source.counter.lost)
            self._listener.expect(member.id, counter)
            self._fleet.add(member)
        with self._fleet.used(member):
            self._note(step, member.id, answer.request_id, source.id)
            outcome = self._waited(member.id, frozenset(["ACTIVE"]))
            self._ended(step, member, begin, answer.request_id, outcome)
        return True

    def _source(self, step: Step) -> Snapshot | None:
        """The image to boot from; None: there is none yet."""
        if step.action == "boot_snapshot":
            return picked(list(self._fleet.snapshots), step.pick)
        image = self._stock.images[step.action == "boot_qcow2"]
        flavor = picked(sorted(self._stock.flavors), step.pick)
        return Snapshot(image, str(flavor), Counter(0))

    # -- other actions --------------------------------------------------------

    def _filled(self, body: object, member: Member, step: Step) -> Any:
        """Fill in what is in braces; False: there is nothing to fill in."""
        if isinstance(body, dict):
            filled = {
                key: self._filled(value, member, step)
                for key, value in body.items()
            }
            return False if False in filled.values() else filled
        if body == "{name}":
            return f"soak-snapshot-{next(_NAMES)}"
        if body == "{bigger}":
            bigger = actions.BIGGER.get(member.flavor)
            return self._stock.flavors[bigger] if bigger else False
        if body == "{image}":
            return picked(self._stock.images, step.pick * 7 % 1)
        if body == "{volume}":
            return picked(self._stock.volumes, step.pick * 7 % 1)
        return body

    def _asked(
        self, step: Step, action: actions.Action, member: Member, body: object
    ) -> tuple[str, Outcome]:
        """Ask for the action and wait for its end."""
        self._note(step, member.id, "", "begins")
        snapped = self._listener.safe(member.id)
        try:
            answer = self._sent(action, member.id, body)
        except Refused as error:
            text = f"{error.status} {error}"
            return error.request_id, Outcome("refused", text)
        if step.twice:
            self._again(step, action, member, body)
        outcome = self._waited(member.id, action.ends)
        if action.name == "image_create" and outcome.word == "done":
            image_id = answer.body["image_id"]
            outcome = self._whole(image_id, member, snapped)
        return answer.request_id, outcome

    def _sent(
        self, action: actions.Action, server_id: str, body: object
    ) -> Answer:
        if action.name == "delete":
            return self._user.ask("DELETE", f"/servers/{server_id}")
        volumes = f"/servers/{server_id}/os-volume_attachments"
        if action.name == "attach":
            attachment = {"volumeAttachment": body}
            return self._user.ask("POST", volumes, attachment)
        if action.name == "detach":
            found = self._user.ask("GET", volumes).body["volumeAttachments"]
            if not found:
                raise Refused(404, "no volume is attached")
            return self._user.ask(
                "DELETE", f"{volumes}/{found[0]['volumeId']}"
            )
        return self._user.act(server_id, body)

    def _again(
        self, step: Step, action: actions.Action, member: Member, body: object
    ) -> None:
        member.meetings += 1
        try:
            answer = self._sent(action, member.id, body)
        except Refused as error:
            again = f"second click refused: {error.status}"
            self._note(step, member.id, error.request_id, again)
        else:
            self._note(step, member.id, answer.request_id, "second click")

    def _waited(self, server_id: str, ends: frozenset[str]) -> Outcome:
        """Wait until the server has a status in which the action has ended."""
        limit = time.monotonic() + LIMIT_SECONDS
        settled_since: float | None = None
        status = "?"
        while time.monotonic() < limit:
            if self._end.wait(POLL_SECONDS):
                return Outcome("stopped")
            try:
                server = self._user.server(server_id)
            except Refused:
                continue
            if server is None:
                gone = ends & {"GONE", "SOFT_DELETED"}
                return Outcome("done" if gone else "met", "it is gone")
            status = f"{server['status']} {task(server)}"
            if task(server) is not None:
                settled_since = None
                continue
            if server["status"] in ends:
                return Outcome("done")
            settled_since = settled_since or time.monotonic()
            settled = time.monotonic() - settled_since
            if server["status"] == "ERROR" or settled > SETTLED_SECONDS:
                fault = server.get("fault", {}).get("message", "")
                return Outcome("failed", f"{server['status']} {fault}")
        return Outcome("slow", status)

    def _whole(
        self, image_id: str, member: Member, snapped: Counter
    ) -> Outcome:
        """Wait until Glance has the snapshot; keep it, forget the oldest."""
        limit = time.monotonic() + LIMIT_SECONDS
        status = "?"
        while time.monotonic() < limit and not self._end.is_set():
            try:
                status = self._user.glance.get_image(image_id).status
            except SDKException:  # Nova deletes it if it has failed
                return Outcome("failed", f"no image {image_id}")
            if status == "active":
                break
            self._end.wait(POLL_SECONDS)
        if status != "active":
            return Outcome("slow", f"image {image_id} is {status}")
        new = Snapshot(image_id, member.flavor, snapped)
        if old := self._fleet.keep(new):
            try:
                self._user.glance.delete_image(old.id)
            except SDKException as error:
                self._journey.note("image", old.id, error)
        return Outcome("done", image_id)

    # -- before and after -----------------------------------------------------

    def _before(self, action: actions.Action, member: Member) -> int | None:
        """Stop listening where the data changes; the number to go on from."""
        if action.data in (Data.KEEPS, Data.SHOWS):
            safe = self._listener.safe(member.id).safe
        else:
            safe = self._listener.hold(member.id)
        if action.ends == {"VERIFY_RESIZE"}:
            member.before_move = member.flavor, safe
        return safe

    def _after(
        self,
        action: actions.Action,
        member: Member,
        before: int | None,
        outcome: Outcome,
    ) -> None:
        """Listen again, to a disk that has the number that it must have.

        If the action has not ended well, it may still change the data later:
        nobody listens to the guest until another action has replaced them.
        """
        done = outcome.word == "done"
        if done and action.name == "resize":
            member.flavor = actions.BIGGER[member.flavor]
        if done and action.name == "revert":
            member.flavor = member.before_move[0]
        if action.data is Data.KEEPS:
            return
        if outcome.word == "refused" and action.data is not Data.SHOWS:
            self._listener.release(member.id, before)
        elif done and action.data is Data.HIDES:
            member.hidden = before
        elif done:
            numbers = {
                Data.SHOWS: member.hidden,
                Data.TAKES_BACK: member.before_move[1],
                Data.REPLACES: None,
            }
            self._listener.release(member.id, numbers[action.data])

    def _ended(
        self,
        step: Step,
        member: Member,
        begin: float,
        request_id: str,
        outcome: Outcome,
    ) -> None:
        self._journey.ended(step.action, outcome.word)
        self._note(step, member.id, request_id, outcome.word, outcome.why)
        if outcome.word not in ("failed", "slow", "stopped"):
            return
        explained = self._journey.explained(begin, time.time())
        if explained or member.meetings or member.harmed:
            member.harmed = True
            return
        if outcome.word == "stopped":
            return
        self._journey.violation(
            f"{step.action} of {member.id} {request_id} {outcome.word} "
            f"without a fault: {outcome.why}"
        )

    def _note(self, step: Step, server_id: str, *words: str) -> None:
        clicks = "twice" if step.twice else ""
        self._journey.note(step.action, clicks, server_id, *words)
