# SPDX-License-Identifier: Apache-2.0

"""The sample configuration in etc/ is what the code generates."""

import configparser
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[3]
SAMPLE = ROOT / "etc" / "nova-rbd-backend.conf.sample"
GENERATE = "from oslo_config import generator; generator.main()"


def _install_entry_points(folder):
    """Make setup.cfg's entry points known even without an installation."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name = setup["metadata"]["name"]
    info = folder / f"{name.replace('-', '_')}-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 0\n")
    groups = setup["entry_points"].items()
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]{points}\n" for group, points in groups)
    )


def test_sample_is_generated(tmp_path):
    _install_entry_points(tmp_path)
    made = tmp_path / "sample"

    subprocess.run(
        [
            sys.executable,
            "-c",
            GENERATE,
            "--config-file=etc/oslo-config-generator.conf",
            f"--output-file={made}",
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
            "XDG_CACHE_HOME": str(tmp_path),
        },
        check=True,
        timeout=60,
    )

    assert SAMPLE.read_text() == made.read_text(), "run `tox -e genconfig`"


def test_sample_shows_every_option():
    from nova_rbd_backend import conf

    text = SAMPLE.read_text()
    for _, opts in conf.list_opts():
        for opt in opts:
            assert f"#{opt.name} = " in text
