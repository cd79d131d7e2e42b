"""The guest architecture: encodings, semantics and state of 32-bit ARM (A32).

Everything here is a description. It imports only the standard library, executes no guest code and
knows nothing of LLVM; the packages of ``dbt`` derive their decoders, evaluators and translators
from it. Importing :mod:`isa.arm.a32` fills the registry with every instruction.
"""
