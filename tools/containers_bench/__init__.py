"""The rows of ``make bench-containers``: short commands, first runs, memory, kernels of computation, and limits."""
