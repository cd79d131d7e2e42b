"""Clones of a kernel that has not begun boot with random numbers of their own."""

from __future__ import annotations

from pathlib import Path

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.board.virt_tree import seeds
from dbt.host.console import Console
from dbt.hypervisor import Clock, Domain, Host
from dbt.hypervisor.carrier import Boot
from tests.assembler import assemble
from tests.long import LONG

_CLONES = 1000 if LONG else 100
_MEMORY = 16 << 20


def places_of_seeds(machine: Machine) -> tuple[Gpa, Gpa]:
    """Return where the device tree has rng-seed and kaslr-seed, by a look at the tree alone."""
    from fdt import parse_dtb

    start = Gpa(machine.cpu.r[2])
    tree = machine.memory.read_ram(start, int.from_bytes(machine.memory.read_ram(Gpa(start + 4), 4), "big"))
    chosen = parse_dtb(tree).get_node("chosen")
    found = [
        tree.index(b"".join(word.to_bytes(4, "big") for word in chosen.get_property(name).data))
        for name in ("rng-seed", "kaslr-seed")
    ]
    return Gpa(start + found[0]), Gpa(start + found[1])


def seeds_at(domain: Domain, places: tuple[Gpa, Gpa]) -> tuple[bytes, bytes]:
    memory = domain.machine.memory
    return memory.read_ram(places[0], 32), memory.read_ram(places[1], 8)


def kernel(folder: Path, fuel: int = 0) -> Boot:
    """Return what boots a kernel that waits for ever, and lets it execute so many instructions."""
    (folder / "kernel.bin").write_bytes(assemble("mov r0, r0\n1: wfi\n b 1b", 0x40010000))

    def boot(console: Console) -> Machine:
        machine = Machine(_MEMORY, console=console, board="virt", rng_seed=7)
        machine.load_kernel(folder / "kernel.bin")
        machine.run(fuel=fuel)
        return machine

    return boot


def test_each_clone_has_other_seeds_and_the_same_ones_again(tmp_path: Path) -> None:
    def of_all(count: int, seed: int = 3) -> list[tuple[bytes, bytes]]:
        found = []
        with Host(1, Clock.LOCKSTEP, seed=seed) as host:
            template = host.define("template", kernel(tmp_path))
            template.start()
            template.pause()
            places = places_of_seeds(template.machine)
            found.append(seeds_at(template, places))
            for number in range(count):
                clone = template.clone(f"clone {number}")
                found.append(seeds_at(clone, places))
                clone.destroy()
        return found

    found = of_all(_CLONES)
    assert found[0] == tuple(seeds(7).values())
    assert len({rng for rng, _ in found}) == len({kaslr for _, kaslr in found}) == _CLONES + 1
    assert of_all(3) == found[:4]
    assert of_all(1, seed=4)[1] not in found


def test_a_kernel_that_has_begun_keeps_what_it_may_have_read(tmp_path: Path) -> None:
    with Host(1, Clock.LOCKSTEP) as host:
        template = host.define("template", kernel(tmp_path, fuel=1))
        template.start()
        template.pause()
        machine, clone = template.machine, template.clone("clone").machine
        assert machine.read(0x40000000, _MEMORY) == clone.read(0x40000000, _MEMORY)
