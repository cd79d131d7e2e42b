"""LLVM through llvmlite, which compiles text to a relocatable object. Only this module imports llvmlite."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import llvmlite.binding as llvm

#: Passes by the names that they have in a pass list.
_PASSES = {
    "sroa": llvm.ModulePassManager.add_sroa_pass,
    "instcombine": llvm.ModulePassManager.add_instruction_combine_pass,
    "simplifycfg": llvm.ModulePassManager.add_simplify_cfg_pass,
}


#: Strength reduction of loops costs a quarter of the time and gains nothing, because addresses are checked, not
#: counted.
#: Scheduling costs a tenth and gains nothing, because the host executes out of order. Equal ends of blocks are not
#: merged: a loop that has one of them would no longer be contiguous. InstCombine sinks nothing to where it is used,
#: because regions extend addresses early (Optimizations.early_zext).
_OPTIONS = ("-disable-lsr", "-enable-misched=false", "-enable-tail-merge=false", "-instcombine-code-sinking=false")


def _features(cpu: str) -> str:
    """Return the features of this host for LLVM.

    LLVM of today does not say of AMD's processors from Zen on that a SHLD takes twice as long as the three instructions
    that do the same. Guests shift 64 bits in two words.
    """
    features: str = llvm.get_host_cpu_features().flatten()
    return f"{features},+slow-shld" if cpu.startswith("znver") else features


@functools.cache
def _machine(opt: int, reloc: str) -> llvm.TargetMachine:
    """Return the target machine for this host: small code model. This takes a millisecond."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for option in _OPTIONS:
        llvm.set_option("dbt", option)
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=_features(llvm.get_host_cpu_name()),
        opt=opt,
        reloc=reloc,
        codemodel="small",
    )


#: A callback for stages. It is given the name of a stage that has been reached, and a function that makes its content.
Show = Callable[[str, Callable[[], str | bytes]], None]


def show_nobody(stage: str, make: Callable[[], str | bytes]) -> None:
    """Ignore a stage: a :data:`Show` for those who need none."""


def compile_object(
    text: str, passes: Iterable[str], opt: int, show: Show = show_nobody, *, absolute: bool = False
) -> bytes:
    """Return an ELF64 object for this host, small code model: position-independent, or with ``absolute`` addresses."""
    machine = _machine(opt, "static" if absolute else "pic")
    # A context of its own keeps types, constants and metadata as long as the module only. The global one keeps them for
    # ever, 3 KB for each region. (What llvmlite's pass manager keeps, 11 KB for each run, can be had back by nothing.)
    with llvm.create_context() as context, llvm.parse_assembly(text, context) as module:
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=opt)
        with (
            llvm.create_pass_builder(machine, options) as builder,
            llvm.create_new_module_pass_manager() as manager,
        ):
            for name in passes:
                _PASSES[name](manager)
            manager.run(module, builder)
        show("region.opt.ll", lambda: str(module))
        # From a copy, because code generation changes the module, and the code must be the same with and without this.
        show("region.s", lambda: str(machine.emit_assembly(llvm.parse_assembly(str(module), context))))
        return bytes(machine.emit_object(module))
