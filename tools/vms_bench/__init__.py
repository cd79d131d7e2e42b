"""The rows of ``make bench-vms``: memory and starts in one process and in many, lists, and what scheduling costs."""
