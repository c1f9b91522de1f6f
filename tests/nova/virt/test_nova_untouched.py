# SPDX-License-Identifier: Apache-2.0

"""What Nova does besides is done by Nova's own code."""

import sys


def _ours(value):
    return str(getattr(value, "__module__", "")).startswith("nova_rbd_backend")


def _attributes():
    """Yield what Nova's modules and their classes have, by its name."""
    for name, module in list(sys.modules.items()):
        if not name.startswith("nova.") or _ours(module):
            continue
        for key, value in list(vars(module).items()):
            yield f"{name}.{key}", value
            if isinstance(value, type) and value.__module__ == name:
                for each in vars(value).values():
                    yield f"{name}.{key}", getattr(each, "__func__", each)


def test_a_driver_replaces_nothing_of_novas(driver):
    """Except the one class that other modules of Nova's take our disks by."""
    from nova.virt import images
    from nova.virt.libvirt import utils

    assert driver.image_backend.BACKEND["rbd"].cache is not None
    found = {name for name, value in _attributes() if _ours(value)}
    assert found == {"nova.storage.rbd_utils.RBDDriver"}
    assert images.convert_image.__globals__ is vars(images)
    assert utils.fetch_image.__globals__ is vars(utils)
