# SPDX-License-Identifier: Apache-2.0

"""Our driver as a nova-compute has it, without the rest of nova-compute."""


def new_driver():
    """Return a LibvirtDriver for Nova's CONF as it is now."""
    from nova import objects
    from nova.virt import fake

    from nova_rbd_backend.virt.driver import LibvirtDriver

    objects.register_all()
    return LibvirtDriver(fake.FakeVirtAPI())
