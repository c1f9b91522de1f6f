# SPDX-License-Identifier: Apache-2.0

"""Compare each layout of ceph.layouts with what librbd itself says.

A release of Ceph that stores something in another way would otherwise be
noticed when a disk is lost. Everything is read and written by the methods that
are used for disks, so that these are compared as well. The work is done on one
image and a clone of it: it costs the same in a pool of any size.
"""
