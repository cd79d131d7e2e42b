"""The guest's instruction set architectures, as descriptions: encodings, semantics and state.

:mod:`isa.ir` is the language that they are written in, :mod:`isa.arm` is 32-bit ARM, and importing
:mod:`isa.arm.a32` fills the registry of its A32 instructions. Everything here imports only the standard
library, executes no guest code and knows nothing of LLVM; the packages of ``dbt`` derive their decoders,
evaluators and translators from it.
"""
