"""The jail of a machine's process, and that of its compiler: what the host gives of it, and entering it.

A guest that takes over its process by a fault of ours must find nothing there but its own machine. Each measure
(:class:`dbt.hypervisor.jail.measures.Measure`) is enough for something alone, and the others stand behind it.
"""
