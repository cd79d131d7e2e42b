"""The oracle: what tests and the fuzzer compare our tiers with. A library; it has no tests of its own in it.

    cases/       single instructions and blocks: generator, text form, runners for Unicorn and for our tiers,
                 the differences that are explained, and the shrinker
    programs/    whole programs, written at random or for one mechanism, in small machines side by side
    privileged/  programs for the privileged architecture, with what QEMU answered
    bare.py      a CPU, RAM and a tier, on which the runners for our tiers are built
    fuzz.py      looks for differences with new seeds: ``python -m tests.oracle.fuzz``, or ``make fuzz``

Each of the three packages lists its interface in ``__all__``; the modules inside are its own. Beside them stand the
tests that use the library for the interpreting tiers (``test_*.py``); those for regions are in ``tests/regions``.
"""
