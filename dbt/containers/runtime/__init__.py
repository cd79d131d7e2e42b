"""The runtime: one container is one micro VM.

A :class:`~dbt.containers.runtime.spec.Spec` says what is in it. The
:class:`~dbt.containers.runtime.runtime.Runtime` starts it, and returns a
:class:`~dbt.containers.runtime.container_vm.ContainerVm`, whose programs are
:class:`~dbt.containers.runtime.session.Session` objects.
"""
