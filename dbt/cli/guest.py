"""``dbt guest``: the kernel of the Linux guest in which programs for Linux and containers run."""

from __future__ import annotations

from dbt.cli.report import say
from dbt.cli.status import CommandError, Status
from dbt.linux.images import LinuxGuestError, kernel_folder


def import_kernel(path: str) -> int:
    """Boot a guest with the kernel of a Debian package, and keep the kernel if it comes up."""
    from dbt.linux.debian_kernel import read_package
    from dbt.linux.imported import files_of, keep
    from dbt.linux.template import Hardware, boot

    try:
        kernel = read_package(path)
        say(f"booting a guest with {kernel.origin}.")
        boot(Hardware(), files_of(kernel)).close()
    except LinuxGuestError as error:
        raise CommandError(f"{error}.", Status.BAD_INPUT) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}.", Status.BAD_INPUT) from None
    try:
        folder = keep(kernel)
    except OSError as error:
        raise CommandError(f"the kernel cannot be kept: {error}.", Status.FAILURE) from None
    print(f"{kernel.origin} is in {folder}")
    return Status.DONE


def print_guest() -> int:
    """Print which kernel the next guest has."""
    from dbt.linux.imported import origin

    try:
        folder = kernel_folder()
    except LinuxGuestError as error:
        raise CommandError(f"{error}.", Status.BAD_INPUT) from None
    print(f"{origin(folder) or 'a kernel that was not imported'}, in {folder}")
    return Status.DONE


def remove_kernel() -> int:
    """Remove the kernel that was imported."""
    from dbt.linux.imported import remove

    try:
        found = remove()
    except OSError as error:
        raise CommandError(f"the kernel cannot be removed: {error}.", Status.FAILURE) from None
    if not found:
        say("no kernel was imported.")
    return Status.DONE
