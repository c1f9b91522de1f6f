# SPDX-License-Identifier: Apache-2.0

"""``tools/soak.sh``: random actions and faults, then checks."""

import argparse
import os
import random
import shutil
import signal
import sys

from tests.soak.soak import PERIODS, Soak
from tests.testbed import conf_file, paths
from tests.testbed.guest import building as guest
from tests.testbed.whole import Testbed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NAME = os.environ.get("NOVA_RBD_TESTBED_NAME", "soak")
# A deleted server is kept for so long; a shelved one stays on its host.
RECLAIM = {"reclaim_instance_interval": 60}
OVERRIDES = conf_file.merged(
    PERIODS, {"DEFAULT": {"shelved_offload_time": -1, **RECLAIM}}
)


def main() -> int:
    wanted = _parser().parse_args()
    seed = wanted.seed
    if seed is None:
        seed = random.randrange(1_000_000)
    folder = paths.cache() / "soak"
    print(f"seed {seed}; log {folder / f'{seed}.log'}", flush=True)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    testbed = Testbed(NAME, hosts=2, overrides=OVERRIDES)
    passed = interrupted = False
    try:
        testbed.down()
        testbed.up()
        testbed.openstack.restart_nova_api({"DEFAULT": RECLAIM})
        log = folder / f"{seed}.log"
        soak = Soak(testbed, seed, wanted.minutes * 60, _images(testbed), log)
        try:
            soak.run()
            passed = not soak.journey.violations
        finally:
            print(soak.report())
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted")
    finally:
        _ignore_signals()
        if not (passed or interrupted):
            _keep_logs(testbed, seed)
        testbed.down()
    return 0 if passed else 1


def _interrupt(number: int, frame: object) -> None:
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """Let no signal interrupt the end, which would leave half of it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/soak.sh",
        description="Do random actions to servers while random faults "
        "happen, then heal and delete all, and check that nothing was lost "
        "and nothing is left.",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=10,
        help="of actions and faults (%(default)s); the end takes some more",
    )
    parser.add_argument(
        "--seed", type=int, help="of the plan; without, one is chosen"
    )
    return parser


def _images(testbed: Testbed) -> tuple[str, str]:
    built = guest.build()
    servers = testbed.servers()
    raw = servers.upload("guest-raw", built.raw, "raw", "rbd")
    qcow2 = servers.upload("guest-qcow2", built.qcow2, "qcow2", "file")
    return raw.id, qcow2.id


def _keep_logs(testbed: Testbed, seed: int) -> None:
    """Copy the logs of all services beside the run's own log."""
    target = paths.cache() / "soak" / f"{seed}-logs"
    shutil.rmtree(target, ignore_errors=True)
    for source in (testbed.folder / "os/log", testbed.folder / "ceph/log"):
        if source.exists():
            shutil.copytree(source, target / source.parent.name)
            print(f"kept {target / source.parent.name}")


if __name__ == "__main__":
    sys.exit(main())
