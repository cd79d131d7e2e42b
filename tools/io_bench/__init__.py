"""Devices for ``make bench-io``: disks, networks, shared directories and consoles of a Linux under dbt and QEMU.

``guest`` makes the Linux, ``sessions`` has what it does and the commands that run it, ``watching`` times it from
outside, ``accesses`` has a program without an operating system, and ``table`` the rows.
"""
