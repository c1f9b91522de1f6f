# SPDX-License-Identifier: Apache-2.0

"""The tripwire and the import alias, each in a Python process of its own.

A stand-in package plays Nova, since only the loaded modules and the options
matter here. tests/nova starts the real nova-compute.
"""

import ast
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from nova_rbd_backend.virt import guard

ROOT = pathlib.Path(__file__).parents[3]
FLAG = "libvirt_images_type = rbd\nlibvirt_images_store = vms\n"


@pytest.fixture
def nova(tmp_path):
    """Return a function that runs a program beside a package named nova."""
    site = tmp_path / "site"
    for name, text in {
        "nova/__init__.py": "",
        "nova/virt/__init__.py": "",
        "nova/cmd/__init__.py": "",
        "nova/cmd/compute.py": "",
        "nova/conf.py": """
            from oslo_config import cfg
            from nova_rbd_backend import conf
            CONF = cfg.ConfigOpts()
            conf.register_nova_options(CONF)
        """,
    }.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def run(program, options=""):
        conf = tmp_path / "nova.conf"
        conf.write_text("[DEFAULT]\n" + options)
        start = (
            "import sys; sys.path.insert(0, sys.argv[1]); import nova.conf; "
            # What an editable install of this package adds to any nova.virt.
            "sys.meta_path[:] = [finder for finder in sys.meta_path"
            " if 'Editable' not in getattr(finder, '__name__', '')]; "
            "nova.conf.CONF([], default_config_files=[sys.argv[2]])\n"
            "from nova_rbd_backend.virt import guard\n"
        )
        return subprocess.run(
            [sys.executable, "-c", start + program, site, conf],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


COMPUTE = "import nova.cmd.compute; guard.Guard.load('x'); print('starts')"


def test_forgotten_driver_stops_nova_compute(nova):
    done = nova(COMPUTE, FLAG + "compute_driver = libvirt.LibvirtDriver\n")

    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "libvirt_images_type, libvirt_images_store set, but" in line
    assert "'libvirt.LibvirtDriver'" in line
    assert "set compute_driver to rbd_backend.LibvirtDriver" in line


@pytest.mark.parametrize(
    "flag",
    [
        "libvirt_images_type = ceph",
        "libvirt_images_volume_group = vms",
        "rbd_user = nova",
        "rbd_secret_uuid = x",
    ],
)
def test_each_flag_stops_nova_compute(nova, flag):
    done = nova(COMPUTE, flag + "\n")

    assert done.returncode == 1
    assert flag.split()[0] in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        "",
        "compute_driver = libvirt.LibvirtDriver\n",
        FLAG + "compute_driver = rbd_backend.LibvirtDriver\n",
    ],
)
def test_nova_compute_starts(nova, options):
    done = nova(COMPUTE, options)

    assert (done.returncode, done.stdout) == (0, "starts\n")
    assert done.stderr == ""


def test_options_that_cannot_work_stop_nova_compute(nova):
    done = nova(
        COMPUTE,
        "compute_driver = rbd_backend.LibvirtDriver\n"
        "libvirt_images_type = rbd\n",
    )

    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "set [DEFAULT] libvirt_images_store" in line


def test_other_programs_are_left_alone(nova):
    """Another service of Nova with this nova.conf, and pytest itself."""
    done = nova("guard.Guard.load('x'); print('starts')", FLAG)

    assert (done.returncode, done.stdout) == (0, "starts\n")
    assert not guard.in_nova_compute()


def test_alias_if_nova_does_not_have_the_driver(nova):
    done = nova(
        COMPUTE + "\nimport nova.virt.rbd_backend as edge\n"
        "print(edge.__name__, edge is nova.virt.rbd_backend)"
    )

    assert done.stdout == "starts\nnova_rbd_backend.virt True\n", done.stderr


def test_alias_keeps_an_installed_driver(nova):
    done = nova(
        "import nova.cmd.compute, types\n"
        "installed = types.ModuleType('nova.virt.rbd_backend')\n"
        "installed.__spec__ = types.SimpleNamespace(name='x')\n"
        "sys.modules['nova.virt.rbd_backend'] = installed\n" + COMPUTE + "\n"
        "print(sys.modules['nova.virt.rbd_backend'] is installed)"
    )

    assert done.stdout == "starts\nTrue\n", done.stderr


def test_guard_imports_only_the_standard_library():
    """Every program on the host that uses os_vif imports the guard."""
    edge = pathlib.Path(guard.__file__).parent
    for path in (edge / "guard.py", edge / "__init__.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module]
            else:
                continue
            for name in imported:
                assert name.split(".")[0] in sys.stdlib_module_names
