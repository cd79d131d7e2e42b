"""The para-virtual MMU: kernels that run in user mode, after Xen's interface on x86. Xen on ARM has no such thing."""
