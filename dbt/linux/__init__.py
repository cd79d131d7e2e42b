"""Programs for Linux: they run in a small Linux guest, which boots once and is kept as a snapshot.

The guest's first process is an agent (guests/linux/agent). The machine's console is a port to it.
"""
