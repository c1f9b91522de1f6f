# SPDX-License-Identifier: Apache-2.0

"""A flavor's storage class, as Nova's own validation sees it.

And what Placement is told of the classes, in Nova's own provider tree.
"""

import uuid

import pytest

from tests.nova.conftest import needs_native_nova

NODE = "host1"
FAST = "CUSTOM_RBD_FAST_GB"


@pytest.fixture
def validate(nova_conf):
    """Nova's function, which has the validators of the entry points."""
    from nova.api.validation.extra_specs import validators

    assert "nova_rbd:class" in validators.VALIDATORS
    return validators.validate


@pytest.mark.parametrize("disks", ["", "root_", "ephemeral_", "swap_"])
def test_class_names_are_validated(validate, nova_conf, disks):
    from nova import exception

    name = f"nova_rbd:{disks}class"
    validate(name, "whatever")
    with pytest.raises(exception.ValidationError, match="not of the format"):
        validate(name, "No Class!")

    nova_conf(group="nova_rbd", storage_classes=["fast", "archive"])

    validate(name, "fast")
    validate(name, "default")
    with pytest.raises(exception.ValidationError) as caught:
        validate(name, "whatever")
    assert "'whatever' is no storage class" in str(caught.value)
    assert "fast, archive" in str(caught.value)


def test_unknown_extra_spec(validate):
    from nova import exception

    with pytest.raises(exception.ValidationError, match="valid extra spec"):
        validate("nova_rbd:clas", "fast")
    validate("other:clas", "fast")


@pytest.fixture
def tree():
    from nova.compute import provider_tree

    made = provider_tree.ProviderTree()
    made.new_root(NODE, str(uuid.uuid4()))
    return made


@pytest.fixture
def update(tree, driver):
    """Return a function: a round of the resource tracker -> space on disks."""

    def update():
        driver.update_provider_tree(tree, NODE)
        inventory = tree.data(NODE).inventory
        return {
            name: inventory[name]
            for name in inventory
            if name not in ("VCPU", "PCPU", "MEMORY_MB")
        }

    return update


@pytest.fixture
def allocated(monkeypatch):
    """Return a function that sets Placement's answer: classes, or None."""
    from nova_rbd_backend.virt.pools import placement

    def say(answer):
        monkeypatch.setattr(placement, "_allocated", lambda _uuid: answer)

    return say


@needs_native_nova
def test_no_classes(pools, update):
    assert set(update()) == {"DISK_GB"}


@needs_native_nova
def test_each_class_has_its_own_inventory(pools, classes, update, tree):
    found = update()

    assert set(found) == {"DISK_GB", FAST}
    total = found[FAST]["total"]
    assert found[FAST] == {
        "total": total,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        "allocation_ratio": 1.0,
        "reserved": 0,
    }
    # The operator may change these in Placement.
    changed = {**found[FAST], "allocation_ratio": 3.0, "reserved": 1}
    tree.update_inventory(NODE, {**found, FAST: changed})
    assert update()[FAST]["allocation_ratio"] == 3.0
    assert update()[FAST]["reserved"] == 1


@needs_native_nova
def test_space_of_the_default_class_is_disk_gb(
    pools, classes, update, allocated
):
    allocated(set())
    classes(fast="snapshots", small="vms")
    assert set(update()) == {"DISK_GB", FAST}
    pools.conf(group="nova_rbd", default_storage_class="fast")
    assert set(update()) == {
        *("DISK_GB", "CUSTOM_RBD_DEFAULT_GB", "CUSTOM_RBD_SMALL_GB")
    }


@needs_native_nova
def test_share_of_a_host(pools, classes, update, driver):
    whole = driver._get_local_gb_info()["total"]
    pools.conf(group="nova_rbd", capacity_share_percent=50)
    assert driver._get_local_gb_info()["total"] == pytest.approx(whole / 2)
    found = update()
    assert found["DISK_GB"]["total"] == int(whole / 2)
    assert found[FAST]["total"] == int(whole / 2)


@needs_native_nova
def test_class_that_was_removed(pools, classes, update, allocated):
    total = update()[FAST]["total"]
    classes()

    allocated({FAST, "VCPU"})
    assert update()[FAST]["reserved"] == total  # nothing is left to allocate
    allocated(None)
    assert FAST in update()
    classes(fast="snapshots")
    assert update()[FAST]["reserved"] == 0
    classes()
    allocated({"VCPU"})
    assert set(update()) == {"DISK_GB"}
