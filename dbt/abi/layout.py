"""The geometry of what native code and Python share beside CpuState: ops, code pages, shadow page tables, counters.

Sizes and offsets are in bytes unless a name says otherwise. Every number of the layout has its one home here.
"""

from __future__ import annotations

from enum import IntEnum

# A page of guest memory.
PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
#: The bits of an address that say which word of its page it is in.
WORD_IN_PAGE = PAGE_SIZE - 4

# A code page holds one op for each word of a guest page, and behind them a sentinel that crosses
# into the next page. Code pages lie CODE_PAGE_STRIDE apart, in the order of the guest pages.
OP_SIZE_SHIFT = 5
OP_SIZE = 1 << OP_SIZE_SHIFT
OPS_PER_PAGE = PAGE_SIZE // 4
CODE_PAGE_SIZE = OP_SIZE * OPS_PER_PAGE  # without the sentinel
#: An offset in a guest page, shifted left by this, is the offset of the op in the code page: 32 bytes for 4.
OP_SHIFT = OP_SIZE_SHIFT - 2
CODE_PAGE_STRIDE_SHIFT = 16
CODE_PAGE_STRIDE = 1 << CODE_PAGE_STRIDE_SHIFT

# Offsets in an op.
OP_HANDLER = 0  # pointer; the handler to call
OP_HOTNESS = 8  # u16; how often a loop or a call has come here
OP_COVERED = 10  # u8; bits COVERED and CHANGES of this op's word
OP_BESIDE = OP_HOTNESS  # u16, of a page's sentinel; stores to the page, since it was last listed
OP_POOL = 12  # operands, as the form lays them out
OP_POOL_SIZE = 12
OP_BODY = 24  # u32; what a guard (condition, PC as operand) calls in turn, as an offset in the image
OP_ORIGINAL = 28  # u32; the handler before a region took its place, as an offset in the image
OP_CALLOUTS = 28  # u32, of a sensitive instruction, which no region replaces: how often it was executed

# Flags of a page of the guest physical address space; the table has a byte for each, and one for what is after the end.
PAGE_NUMBER_BITS = 32 - PAGE_SHIFT
GUEST_PAGES = 1 << PAGE_NUMBER_BITS
PAGE_RAM = 1  # there is RAM
PAGE_WRITABLE = 2  # ... to which the guest can store
PAGE_LOGGED = 4  # it is in the dirty log, so a store needs no further notice
PAGE_HAS_CODE = 8  # it has a code page
PAGE_CHANGED = 16  # ... and words or ops in it have changed since the compiler was last told of them
PAGE_REFUSES = 32  # the guest's stores to it abort; it is not writable then

# The dirty log, which native code and Python append to: see dbt.memory.dirty_log. Offsets from its beginning.
DIRTY_COUNT = 0  # u64; how many pages it has
DIRTY_CONTENT = 8  # pointer; where the content of the pages is kept as it was before the first store, or null
DIRTY_PAGES = 16  # u32 each; the numbers of the pages
DIRTY_PAGE_SIZE = 4

# Flags of a word of a code page, as the compiler is told of them: see dbt.backend.code_pages.
WORD_EXECUTED = 1  # it was executed since it was written
WORD_ENTERED = 2  # a region is entered there
WORD_COVERED = 4  # COVERED
WORD_CHANGES = 8  # CHANGES
WORD_BREAKPOINT = 16  # BREAKPOINT

COVERED = 1  # a region was made from it
CHANGES = 2  # it was read as a constant, and then written: it is data
STITCHED = 4  # stitched code was made from it
NOT_STITCHABLE = 8  # its instruction has no stencil
WAS_WARM = 16  # since its block was stitched, control came to it often enough to look for a region on disk
BREAKPOINT = 32  # a debugger stops in front of it, so its op is never decoded: see dbt.backend.debug_points

#: Where indirect branches went: the op, as the low half of its address, and the target (u32 each), at the entry
#: that these two select. Newer ones take the place of older ones.
TARGET_ENTRIES = 4096
#: What a target (in words) is multiplied by in the number of its entry: odd, and near 4096 over the golden ratio.
TARGET_FACTOR = 2531

#: How many code pages native code can list as stale (dbt.engine.stale_pages), until Python looks at them.
STALE_PAGES = 32
#: A code page is listed after so many stores to its page.
STALE_AFTER = 256

# The shadow page tables: see dbt.backend.shadow.
SPACES = 8
ENTRY_SIZE = 8
TABLE_BYTES = ENTRY_SIZE * GUEST_PAGES
READ, WRITE, CODE = range(3)
USER_TABLES = 3  # the number of a table for user mode is so much higher
TABLES = 2 * USER_TABLES
#: What tells spaces apart, in words: those of the state, and one that is 1 where the space is in use.
SPACE_KEY_WORDS = 8
#: Entries of the log of a space. Each is a word: the page's number, and above its bits the table's.
LOG_ENTRIES = 1 << 14
LOG_ENTRY_SIZE = 4
SPACE_BYTES = SPACES * TABLES * TABLE_BYTES
LOG_BYTES = SPACES * LOG_ENTRIES * LOG_ENTRY_SIZE
MEGABYTE_SHIFT = 20
MEGABYTES = 1 << 32 - MEGABYTE_SHIFT
PAGES_PER_MEGABYTE = 1 << MEGABYTE_SHIFT - PAGE_SHIFT


# Debug pages: for each virtual page a word (u32) that says what a debugger wants of it: see dbt.backend.debug_points.
DEBUG_PAGE_SIZE = 4
DEBUG_PAGES_BYTES = DEBUG_PAGE_SIZE * GUEST_PAGES
#: One more than the number of the physical page whose ops have the page's breakpoints, or 0.
DEBUG_ARMED = (1 << 21) - 1
DEBUG_BREAKS = 1 << 29  # it has a breakpoint
DEBUG_STORES = 1 << 30  # stores to it are watched
DEBUG_LOADS = 1 << 31  # loads from it are watched
#: The most watchpoints, and the words (u32) of each: first address, last address, DEBUG_STORES and DEBUG_LOADS.
MAX_WATCHPOINTS = 32
WATCHPOINT_WORDS = 3


class BlockCounters(IntEnum):
    """What is counted at an instruction of regions, if they are to count."""

    BLOCK = 0  # a block was entered at this instruction
    EXIT = 1  # the region was left at this instruction


class SideExit(IntEnum):
    """Why control left a region. The value is the index of a counter in CpuState."""

    BUDGET = 0  # the slice ends in this block
    LOAD = 1  # the slow path of a load: a device, not aligned, not mapped
    STORE = 2  # ... of a store; also one beside code
    THUMB = 3  # a branch to Thumb code
    EDGE = 4  # a branch to code that is not in the region
    RETURN = 5  # a return to somewhere else
    INDIRECT = 6  # an indirect branch to somewhere else
    MODE = 7  # the MMU, SCTLR.A or the mapping of a page is not as assumed


#: The names of side exits, in words.
SIDE_EXIT_TEXTS = {
    "budget": "end of the time slice",
    "load": "load by the slow path",
    "store": "store by the slow path",
    "thumb": "branch to Thumb code",
    "edge": "branch out of the region",
    "return": "return to elsewhere",
    "indirect": "indirect branch to elsewhere",
    "mode": "another mode of memory",
}


#: After this many arrivals of loops or calls at an op, a region is looked for on disk, which costs little.
WARM = 64
#: After each further so many arrivals, a region is requested if there is none.
HOT = 4096
#: The same for arrivals from other regions, which cost little compared with a region.
HOT_ARRIVALS = 32768

# The stitched tier: see dbt.backend.stitcher.
#: After each so many arrivals of loops, calls and indirect branches at an op, it is stitched. A power of two.
STITCH_ARRIVALS = 16
#: Jumps of stitched code to an op that is not stitched are looked at after each so many arrivals. A power of two.
EDGE_ARRIVALS = 4
#: A page that was written over N times takes 2^N times as many arrivals, up to this N.
MAX_STITCH_DELAY = 8
#: After the block at the head of a stitched loop or function has executed so many instructions, a region is looked for
#: on disk, and after each further so many, a region is requested: see docs/decisions/hot-threshold.md. A short block
#: counts as one of LEAST_INSNS, because the rest of a loop may be long.
WARM_INSNS = 1 << 18
HOT_INSNS = 1 << 25
LEAST_INSNS = 8
#: The most instructions of a stitched block.
MAX_BLOCK = 100
#: The number of counters of stitched heads, which are i32 behind CpuState's page: so many in the second half of each
#: page, and the offset of the first from CpuState. The registers are in the first half of theirs. Hosts first compare
#: the lowest 12 bits of addresses: a load of a register would wait for the store to a counter that has these, too.
STITCH_COUNTERS = 1 << 14
STITCH_COUNTERS_IN_PAGE_SHIFT = PAGE_SHIFT - 3
STITCH_COUNTERS_OFFSET = PAGE_SIZE + PAGE_SIZE // 2
STITCH_COUNTERS_PAGES = STITCH_COUNTERS >> STITCH_COUNTERS_IN_PAGE_SHIFT
