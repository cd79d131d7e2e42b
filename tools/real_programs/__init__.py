"""Real programs for ``make bench-real``: made from source packages, run under dbt and QEMU, and compared.

``catalogue`` says which programs there are. ``fetching``, ``building`` and ``inputs`` make them and what they read.
``bare_metal`` and ``guest_linux`` make cases of them, which ``turns`` runs and ``processes`` times. ``results`` has the
tables.

A new program is an ``Executable`` and a ``Workload`` in ``catalogue``. If it needs a main function, a script or headers
that a configure script would write, they go to ``guest``. What it prints must be the same in every run.
"""
