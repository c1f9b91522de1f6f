# SPDX-License-Identifier: Apache-2.0

"""Is the cluster ready for instance disks? Asked before any is made.

Rights are not read from the user's caps, which have many forms and may not be
readable: everything that a boot does is tried on an image of our own.
"""

import dataclasses
import functools
import json
import socket
import typing
import uuid
from collections.abc import Iterable, Iterator, Mapping

from nova_rbd_backend import errors, threads
from nova_rbd_backend.ceph import cluster
from nova_rbd_backend.ceph.image import Image
from nova_rbd_backend.ceph.pool import Pool
from nova_rbd_backend.checks.steps import Step
from nova_rbd_backend.image_options import ImageOptions
from nova_rbd_backend.settings import Settings
from nova_rbd_backend.storage import registry
from nova_rbd_backend.storage_classes import DEFAULT, StorageClass

#: Names of the images made for a moment here begin so.
PROBE_PREFIX = "nova-rbd-check"
_PROBE_BYTES = 4 << 20

#: The name of the check that all others need.
LOGIN = "Ceph cluster"

_ERASURE = 3  # osd_types.h, pg_pool_t::TYPE_ERASURE
_CAPS_ADVICE = "give it the caps that etc/ceph/client.nova.keyring lists"

# osd_types.h names the flag so in `osd pool ls detail`
_OVERWRITES = "ec_overwrites"


def steps(settings: Settings) -> Iterator[Step]:
    """Prove that disks can be made, written, snapped and deleted.

    Each step blocks for at most the time limits of the settings, off the
    event loop. An image is made in each pool for the proof and removed again.
    """
    ceph = cluster.connect(settings.cluster)
    for step in _steps(settings, ceph):
        probe = functools.partial(threads.run, step.probe)
        yield dataclasses.replace(step, probe=probe)


def _steps(settings: Settings, ceph: cluster.Cluster) -> Iterator[Step]:
    login = Step(LOGIN, lambda: _check_login(ceph, settings))
    yield login
    # Where classes share a pool, its option is that of the first class.
    pools = {each.pool: each for each in reversed(settings.classes)}
    disks = {
        name: _pool_step(ceph, name, _pool_option(pools[name]))
        for name in dict.fromkeys(each.pool for each in settings.classes)
    }
    yield from disks.values()
    snapshots = disks.get(settings.snapshot_pool)
    if snapshots is None:
        option = "libvirt_images_snapshot_store"
        snapshots = _pool_step(ceph, settings.snapshot_pool, option)
        yield snapshots
    yield from _data_pool_steps(settings, ceph)
    yield Step(
        "right to blocklist dead clients",
        lambda: _check_blocklist_right(ceph, settings),
        (LOGIN,),
    )
    for each in settings.classes:
        yield _disk_step(ceph, each, settings, (LOGIN, disks[each.pool].name))
    home = next(iter(disks))
    yield Step(
        "pools of former storage classes",
        lambda: _check_former(Pool(ceph, home), disks),
        (LOGIN, disks[home].name),
    )
    if settings.snapshot_pool not in disks:
        yield Step(
            f"rights for snapshots in {settings.snapshot_pool}",
            lambda: _check_rights(
                Pool(ceph, settings.snapshot_pool), settings, "snapshots"
            ),
            (LOGIN, snapshots.name),
        )


def _check_former(home: Pool, configured: Iterable[str]) -> None:
    """Their disks are looked for. A pool that no longer exists is skipped."""
    registry.missing(home, configured)


def _pool_option(of_class: StorageClass) -> str:
    if of_class.name == DEFAULT:
        return "libvirt_images_store"
    return f"[{of_class.image_options.group}] pool"


def _data_pool_steps(
    settings: Settings, ceph: cluster.Cluster
) -> Iterator[Step]:
    seen = set()
    for each in settings.classes:
        options = each.image_options
        if options.data_pool and options.data_pool not in seen:
            seen.add(options.data_pool)
            yield Step(
                f"pool {options.data_pool} for data",
                functools.partial(_check_data_pool, options, ceph),
                (LOGIN,),
            )


def _disk_step(
    ceph: cluster.Cluster,
    of_class: StorageClass,
    settings: Settings,
    needs: tuple[str, ...],
) -> Step:
    """Try each class's own options, also where classes share a pool."""
    named = "" if of_class.name == DEFAULT else f" (class {of_class.name})"

    def probe() -> None:
        disks = Pool(ceph, of_class.pool, options=of_class.image_options)
        _check_rights(disks, settings, "disks")

    return Step(f"rights for disks in {of_class.pool}{named}", probe, needs)


def pool_step_name(pool: str) -> str:
    """Return the name of the check that a pool is there."""
    return f"pool {pool}"


def _pool_step(ceph: cluster.Cluster, name: str, option: str) -> Step:
    return Step(
        pool_step_name(name),
        lambda: _check_pool(_pools(ceph), name, option),
        (LOGIN,),
    )


def _user(settings: Settings) -> str:
    return f"client.{settings.user or 'admin'}"


def _check_login(ceph: cluster.Cluster, settings: Settings) -> None:
    """Refuse guests that would come without a key.

    Without rbd_user this program logs in as client.admin, if it can read that
    key; QEMU is then told to use no authentication at all.
    """
    ceph.fsid()
    methods = ceph.connection().handle.conf_get("auth_client_required") or ""
    if settings.user is None and "none" not in methods:
        raise errors.ConfigError(
            f"the cluster requires authentication ({methods}), but rbd_user "
            "is not set, so guests could not log in: set [DEFAULT] rbd_user "
            "and rbd_secret_uuid"
        )


def _pools(ceph: cluster.Cluster) -> Mapping[str, typing.Any]:
    answer = json.loads(ceph.mon_command("osd pool ls", detail="detail"))
    return {pool["pool_name"]: pool for pool in answer}


def _find(
    pools: Mapping[str, typing.Any], name: str, option: str
) -> Mapping[str, typing.Any]:
    if name not in pools:
        raise errors.ConfigError(
            f"the cluster has no pool {name!r} ({option}): make it with `ceph "
            f"osd pool create {name}` and `rbd pool init {name}`, or correct "
            "the option"
        )
    found: Mapping[str, typing.Any] = pools[name]
    # Without it librbd may hang on concurrent first creates (tracker 52537).
    if "rbd" not in found["application_metadata"]:
        raise errors.ConfigError(
            f"the pool {name!r} ({option}) is not prepared for RBD images: "
            f"run `rbd pool init {name}`"
        )
    return found


def _check_pool(
    pools: Mapping[str, typing.Any], name: str, option: str
) -> None:
    if _find(pools, name, option)["type"] == _ERASURE:
        raise errors.ConfigError(
            f"the pool {name!r} is erasure-coded, which cannot keep the names "
            f"of images: set {option} to a replicated pool (the data of new "
            "disks can go to an erasure-coded one: [nova_rbd] data_pool)"
        )


def _check_data_pool(options: ImageOptions, ceph: cluster.Cluster) -> None:
    option, name = f"[{options.group}] data_pool", str(options.data_pool)
    found = _find(_pools(ceph), name, option)
    overwrites = _OVERWRITES in found["flags_names"].split(",")
    if found["type"] == _ERASURE and not overwrites:
        raise errors.ConfigError(
            f"the erasure-coded pool {name!r} ({option}) takes no overwrites, "
            "which disks need: run `ceph osd pool set "
            f"{name} allow_ec_overwrites true`"
        )


def _check_blocklist_right(ceph: cluster.Cluster, settings: Settings) -> None:
    """Ask for something that fails for its address once it is permitted.

    The monitor looks at the right first (16.2: Monitor::handle_command), and
    the caps of ``profile rbd`` let any address of this form pass.
    """
    try:
        ceph.mon_command(
            "osd blocklist", blocklistop="add", addr=f"{PROBE_PREFIX}/0"
        )
    except errors.NotPermitted as error:
        raise errors.ConfigError(
            f"{_user(settings)} may not put a dead client on the blocklist, "
            "so a disk stays locked when its host dies: "
            + _CAPS_ADVICE
            + " (mon 'profile rbd')"
        ) from error
    except errors.StorageError:
        return  # permitted, and no address


def _check_rights(pool: Pool, settings: Settings, what: str) -> None:
    name = f"{PROBE_PREFIX}.{socket.gethostname()}.{uuid.uuid4()}"
    try:
        _create(pool, name)
        try:
            _use(pool, name)
        finally:
            pool.remove(name)
    except errors.NotPermitted as error:
        where = f"pool {str(pool)!r}"
        if pool.options.data_pool:
            where += f" with data in {pool.options.data_pool!r}"
        raise errors.ConfigError(
            f"{_user(settings)} may not make and delete {what} in {where} "
            f"({error.operation}): {_CAPS_ADVICE}"
        ) from error


def _create(pool: Pool, name: str) -> None:
    try:
        pool.create(name, _PROBE_BYTES)
    except (errors.StorageFault, errors.NotSupported) as error:
        given = {
            "object_size": pool.options.object_size_bytes,
            "stripe_unit": pool.options.stripe_unit_bytes,
            "stripe_count": pool.options.stripe_count,
            "image_features": ",".join(pool.options.features),
        }
        said = ", ".join(f"{key} {given[key]}" for key in given if given[key])
        if not said:
            raise
        raise errors.ConfigError(
            f"Ceph makes no image with [{pool.options.group}] {said} "
            f"({error.reason}): correct or remove these"
        ) from error


def _set_conf(pool: Pool, disk: Image) -> None:
    for option, value in pool.options.conf:
        try:
            disk.set_conf(option, value)
        except errors.StorageFault as error:
            raise errors.ConfigError(
                f"[{pool.options.group}] image_conf has {option}:{value}, but "
                "an image can have no such option or not that value: `rbd "
                f"config image ls {pool}/DISK` lists what it can have"
            ) from error


def _use(pool: Pool, name: str) -> None:
    with pool.open(name, read_only=False) as disk:
        _set_conf(pool, disk)
        disk.write(b"probe", 0)
        disk.create_snap("probe")
        disk.remove_snap("probe")
