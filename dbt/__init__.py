"""A dynamic binary translator and hypervisor for 32-bit ARM guests."""
