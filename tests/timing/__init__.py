"""How long things take that somebody waits for, as assertions. ``make timing`` runs them, on a machine that is idle.

``make test`` has no such assertions: it must pass on a busy machine, where nothing is known about time but that it
passes. There, the same things are tested without a clock.
"""
