"""Oracle 2: privileged programs. What QEMU answered is kept in ``expected/``; every tier must answer the same.

    programs/        what is tested: each module makes steps, a state and a few instructions each
    layout.py        where things are in an image, and the CPUs
    tables.py        page tables; accesses.py: the ways to access a page
    runner.py        the assembly around the steps: sets up a state, records what became of it
    program.py       steps to an image
    record.py        what the image wrote to lines of text, one for each step
    emulators.py     runs an image in QEMU and in the tiers
    differences.py   where QEMU is not right, and what is left open
    refresh.py       asks QEMU again: ``make refresh-oracle``

A step ends at its first exception or at its end. A line names the event, the CPSR, and every register, fault register
and watched word that has changed.
"""
