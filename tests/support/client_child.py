# SPDX-License-Identifier: Apache-2.0

"""A client that has an image open for writing, for others to kill.

``python -m tests.support.client_child CONF POOL IMAGE``; prints its client
id, then answers each line it is given on a line: ``write TEXT`` with ``wrote``
or ``failed ERROR``; ends cleanly at the end of its input.
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
        print(connection.get_instance_id(), flush=True)
        for line in sys.stdin:
            print(_written(image, line.split(" ", 1)[1].strip()), flush=True)
    connection.shutdown()


if __name__ == "__main__":
    main()
