# SPDX-License-Identifier: Apache-2.0

"""Whether Glance has an image, asked through Nova's own clients.

Keystone's answers are prepared; a small server plays Glance.
"""

import uuid

import keystoneauth1.fixture
import pytest
import requests_mock
from keystoneauth1.identity import v3

from tests.nova.virt.snapshot.glance_server import serving

SIZE_BYTES = 16 << 20
KEYSTONE = "http://keystone.invalid/v3"


@pytest.fixture
def glance(image_id):
    with serving(image_id) as server:
        yield server


@pytest.fixture
def keystone(nova_conf, glance, monkeypatch):
    """Return a function that sets the roles of Nova's own user."""
    from nova_rbd_backend.virt.snapshot import glance as ours

    user = v3.Password(
        auth_url=KEYSTONE,
        username="nova",
        password="secret",
        user_domain_id="default",
        project_name="service",
        project_domain_id="default",
    )
    # Options that are required for it would be required in later tests too.
    monkeypatch.setattr(
        ours.loading, "load_auth_from_conf_options", lambda *_: user
    )
    nova_conf(group="glance", endpoint_override=glance.url, num_retries=0)

    with requests_mock.Mocker(real_http=True) as answers:
        version = keystoneauth1.fixture.V3Discovery(KEYSTONE)
        answers.get(KEYSTONE, json={"version": version})

        def has(*roles):
            token = keystoneauth1.fixture.V3Token()
            token.set_project_scope()
            for role in roles:
                token.add_role(name=role)
            answers.post(
                f"{KEYSTONE}/auth/tokens",
                json=token,
                headers={"X-Subject-Token": uuid.uuid4().hex},
            )

        yield has


def knows(image_id):
    from nova_rbd_backend.virt.snapshot import glance

    return glance.knows(image_id, SIZE_BYTES)


@pytest.mark.parametrize(
    ("facts", "known"),
    [
        ({"status": "active", "size": SIZE_BYTES}, True),
        # Its owner has uploaded other data.
        ({"status": "active", "size": 1}, False),
        ({"status": "deactivated", "size": SIZE_BYTES}, True),
        ({"status": "queued"}, False),
        # What a glance-api leaves that is killed while it takes a location.
        ({"status": "queued", "os_glance_import_task": "1f"}, None),
        ({"status": "importing", "os_glance_import_task": "1f"}, None),
    ],
)
def test_image(keystone, glance, image_id, facts, known):
    keystone("admin", "service")
    glance.image |= facts
    assert knows(image_id) is known


def test_image_that_is_gone(keystone, glance, image_id):
    keystone("admin")
    glance.image = None
    assert knows(image_id) is False


def test_user_who_is_no_admin(keystone, glance, image_id):
    from nova_rbd_backend.virt.snapshot import glance as ours

    keystone("service")
    with pytest.raises(ours.NoAdmin, match="does not have the role admin"):
        knows(image_id)


def test_glance_that_does_not_answer(keystone, glance, image_id, nova_conf):
    from nova_rbd_backend.virt.snapshot import glance as ours

    keystone("admin")
    nova_conf(group="glance", endpoint_override="http://127.0.0.1:1")
    with pytest.raises(ours.CannotAsk, match="Glance or Keystone fails") as no:
        knows(image_id)
    assert not isinstance(no.value, ours.NoAdmin)
    assert "secret" not in str(no.value)
