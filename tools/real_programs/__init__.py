"""Real programs for ``make bench-real``: made from Debian's source packages, run under dbt and QEMU, and compared.

``catalogue`` says which programs there are, ``building`` and ``inputs`` make them and what they read, ``bare_metal``
runs them, ``processes`` times whole processes, ``guest_linux`` has the part inside Linux, and ``results`` the tables.
"""
