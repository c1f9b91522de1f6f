# SPDX-License-Identifier: Apache-2.0

"""A client that has an image open for writing, and that tests may kill.

Run as ``python -m tests.support.client_child CONF POOL IMAGE``. It prints its
client id and its address, then reads lines ``write TEXT`` and answers each
with a line: either ``wrote`` or ``failed ERROR``. It closes the image at the
end of its input.
"""

import sys

import rados
import rbd


def _written(image, text):
    try:
        image.write(text.encode(), 0)
        image.flush()
    except rbd.Error as error:
        return f"failed {type(error).__name__}"
    return "wrote"


def main():
    conf, pool, name = sys.argv[1:]
    connection = rados.Rados(conffile=conf, rados_id="nova")
    connection.connect(timeout=10)
    with connection.open_ioctx(pool) as ioctx, rbd.Image(ioctx, name) as image:
        print(connection.get_instance_id(), connection.get_addrs(), flush=True)
        for line in sys.stdin:
            print(_written(image, line.split(" ", 1)[1].strip()), flush=True)
    connection.shutdown()


if __name__ == "__main__":
    main()
