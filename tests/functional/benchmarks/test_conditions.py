# SPDX-License-Identifier: Apache-2.0

"""The benchmarks run on a machine without git too, from a release's files."""

from benchmarks import __main__ as benchmarks


def test_commit_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert benchmarks.commit() == "unknown"
