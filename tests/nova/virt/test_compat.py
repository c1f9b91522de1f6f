# SPDX-License-Identifier: Apache-2.0

"""The seams, on the Nova that is installed beside the tests."""

import ast
import pathlib
import subprocess
import sys

import pytest

from nova_rbd_backend import errors
from nova_rbd_backend.virt import compat

EDGE = pathlib.Path(compat.__file__).parent


def test_this_nova_has_the_seams():
    assert compat.changed_seams() == []


def test_this_nova_passes():
    compat.check_nova()


def test_older_nova_is_refused(monkeypatch):
    monkeypatch.setattr(compat, "nova_version", lambda: "25.3.0")

    with pytest.raises(errors.UnsupportedNova, match=r"Nova 25\.3\.0 is too"):
        compat.check_nova()


def test_newer_nova_with_the_same_seams_is_refused(monkeypatch, caplog):
    monkeypatch.setattr(compat, "nova_version", lambda: "35.0.0.dev7")

    with pytest.raises(errors.UnsupportedNova) as caught:
        compat.check_nova()
    assert "Nova 35.0.0.dev7 is newer than 34" in str(caught.value)
    assert "allow_untested_nova" in str(caught.value)

    compat.check_nova(allow_untested=True)
    assert "Nova 35.0.0.dev7 is newer than 34" in caplog.text


# In a process of its own, where nothing has imported the driver yet.
LOAD = """
import sys
import nova.conf
import nova.version
nova.version.version_string = lambda: "35.0.0"
nova.conf.CONF([], project="nova", default_config_files=[sys.argv[1]])
import nova_rbd_backend.virt as edge
try:
    edge.LibvirtDriver
except SystemExit as error:
    print("exit", error.code)
print("nova_rbd_backend.virt.driver" in sys.modules)
"""


@pytest.mark.parametrize("allowed", [False, True])
def test_driver_is_not_imported_for_an_untested_nova(tmp_path, allowed):
    path = tmp_path / "nova.conf"
    path.write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\nlibvirt_images_type = rbd\n"
        "libvirt_images_store = vms\ncompute_driver = "
        "rbd_backend.LibvirtDriver\n"
        f"[nova_rbd]\nallow_untested_nova = {allowed}\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    expected = ["True"] if allowed else ["exit", "1", "False"]
    assert done.stdout.split() == expected, done.stderr


def test_changed_seam_is_refused(monkeypatch):
    from nova.virt.libvirt import imagebackend

    def create_image(self, prepare_template, base, size, format):
        pass

    monkeypatch.setattr(imagebackend.Image, "create_image", create_image)

    with pytest.raises(errors.UnsupportedNova) as caught:
        compat.check_nova()

    line = str(caught.value)
    assert "\n" not in line
    assert (
        "Image.create_image takes (self prepare_template base size format)"
        in line
    )


def test_missing_seam_is_refused(monkeypatch):
    from nova.virt.libvirt import driver

    monkeypatch.delattr(driver.LibvirtDriver, "_cleanup_rbd")

    with pytest.raises(errors.UnsupportedNova, match=r"no .*_cleanup_rbd"):
        compat.check_nova()


def test_start_that_would_not_be_fenced_is_refused(monkeypatch):
    from nova.virt.libvirt import driver

    def power_on_quickly(self, guest):
        def start():
            guest.launch()

        start()

    monkeypatch.setattr(
        driver.LibvirtDriver,
        "_power_on_quickly",
        power_on_quickly,
        raising=False,
    )

    with pytest.raises(errors.UnsupportedNova, match="_power_on_quickly"):
        compat.check_nova()


def test_method_that_nova_does_not_call_any_more(monkeypatch):
    from nova.virt.libvirt import driver

    def _cleanup(self, *args, **kwargs):
        pass

    monkeypatch.setattr(driver.LibvirtDriver, "_cleanup", _cleanup)

    with pytest.raises(errors.UnsupportedNova, match="_cleanup_rbd is used"):
        compat.check_nova()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("nova.exception", "DiskNotFound"),
        ("nova.compute.task_states", "RESIZE_FINISH"),
    ],
)
def test_missing_name_is_refused(monkeypatch, module, name):
    monkeypatch.delattr(f"{module}.{name}")

    with pytest.raises(errors.UnsupportedNova, match=f"no {module}.{name}"):
        compat.check_nova()


def test_missing_module_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "nova.virt.image.model", None)

    with pytest.raises(
        errors.UnsupportedNova, match=r"no nova\.virt\.image\.model"
    ):
        compat.check_nova()


def test_version_without_a_number(monkeypatch):
    monkeypatch.setattr(compat, "nova_version", lambda: "unknown")

    with pytest.raises(errors.UnsupportedNova, match="'unknown'"):
        compat.check_nova()


# -- the tables have all that we rely on


def test_each_override_is_a_seam():
    from nova.virt.libvirt import driver as nova_driver
    from nova.virt.libvirt import imagebackend as nova_imagebackend

    from nova_rbd_backend.virt import driver, imagebackend, rbd_utils

    pairs = (
        (driver.LibvirtDriver, nova_driver.LibvirtDriver),
        (imagebackend.Rbd, nova_imagebackend.Image),
        (imagebackend.Backend, nova_imagebackend.Backend),
    )
    for ours, novas in pairs:
        overridden = {
            name
            for name, found in vars(ours).items()
            if callable(getattr(novas, name, None))
            and not isinstance(found, type)
            and (name == "__init__" or not name.startswith("__"))
        }
        seams = compat.SEAMS[novas.__module__, novas.__name__]
        assert overridden <= seams.keys()
    # It replaces Nova's class, and has nothing else.
    replaced = {
        name
        for name in vars(rbd_utils.RBDDriver)
        if name == "__init__" or not name.startswith("_")
    }
    seams = compat.SEAMS["nova.storage.rbd_utils", "RBDDriver"]
    assert replaced == seams.keys()


def _dotted(node):
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (above := _dotted(node.value)):
        return [*above, node.attr]
    return None


def _names_of_nova(tree):
    """Return the dotted names that a module uses of Nova's modules."""
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module.partition(".")[0] == "nova"
        for alias in node.names
    }
    for node in ast.walk(tree):
        parts = _dotted(node) if isinstance(node, ast.Attribute) else None
        if parts and parts[0] in imported:
            yield ".".join((imported[parts[0]], *parts[1:]))


def test_each_name_of_nova_is_a_seam():
    known = {
        ".".join((module, *filter(None, (owner, name))))
        for (module, owner), seams in compat.SEAMS.items()
        for name in (*seams, "")
    }
    known |= {
        f"{module}.{name}"
        for table in (compat.NAMES, compat.ENCRYPTION)
        for module, names in table.items()
        for name in names.split()
    }
    used = {
        name.rstrip(".")
        for path in EDGE.rglob("*.py")
        for name in _names_of_nova(ast.parse(path.read_text()))
    }
    assert "nova.exception.DiskNotFound" in used
    assert used <= {name.rstrip(".") for name in known}


def test_each_option_of_nova_is_in_the_table():
    known = {
        (group, name)
        for group, names in compat.OPTIONS.items()
        for name in names.split()
    }
    used = set()
    for path in EDGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = _dotted(node) if isinstance(node, ast.Attribute) else None
            if parts and parts[0] == "CONF":
                used.add((parts[1] if len(parts) == 3 else "", parts[-1]))
    assert ("", "host") in used
    groups = {group for group, _ in known}
    assert {(g, name) for g, name in used if name not in groups} <= known
