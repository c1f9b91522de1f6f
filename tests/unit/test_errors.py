# SPDX-License-Identifier: Apache-2.0

"""The tree of errors in the docstring matches the code."""

import inspect
import re

from nova_rbd_backend import errors


def test_busy_names_the_watchers():
    error = errors.DiskBusy(watchers=("1.2.3.4:0/5",), pool="p", image="i")
    assert error.watchers == ("1.2.3.4:0/5",)
    assert "1.2.3.4:0/5" in str(error)


def test_tree_in_the_docstring_has_each_error():
    drawn = set(re.findall(r"-- (\w+)", errors.__doc__))
    real = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.Error)
    }
    assert drawn | {"Error"} == real
