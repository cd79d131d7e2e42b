"""Oracle 2: privileged programs. What QEMU answered is kept in ``expected/``; every tier must answer the same."""
