"""Small programs, each for something that regions do in a way of their own. They run 30 rounds, then end."""

from __future__ import annotations

from tests.oracle.programs.machines import RAM_SIZE

#: Runs of these programs are cut so: short, as a slice may end anywhere, and long, as the compiled code would run.
CUTS = (1, 5, 2, 40, 3, 7, 200, 11, 13, 100_000, 1_000_000)

_BODIES = {
    "loads at the end of RAM": """
        and r9, r11, #15 ; sub r9, r9, #8 ; add r9, r9, r10
        ldr r1, [r9] ; ldrh r2, [r9] ; ldrb r3, [r9] ; ldrsh r4, [r9, #-2] ; add r5, r5, r1
        sub r9, r9, #4 ; ldm r9, {r1, r2, r3} ; bic r9, r9, #3 ; ldm r9, {r1, r2, r4} ; ldrd r2, r3, [r9, #4]""",
    "stores at the end of RAM": """
        and r9, r11, #15 ; sub r9, r9, #8 ; add r9, r9, r10
        str r11, [r9] ; strh r11, [r9, #-4] ; strb r11, [r9, #1] ; sub r9, r9, #4 ; stm r9, {r1, r2, r11}
        bic r9, r9, #3 ; stm r9, {r9, r10, r11} ; str r11, [r9, #4] ; str r10, [r9, #8] ; str r9, [r9, #12]""",
    "one store at the end of RAM": """
        and r9, r11, #15 ; sub r9, r9, #8 ; add r9, r9, r10 ; str r11, [r9] ; bic r9, r9, #8 ; ldr r1, [r9, #-4]""",
    "unaligned": """
        and r9, r11, #3 ; add r9, r9, #0x100 ; ldm r9, {r1, r2, r3} ; add r9, r9, #16 ; stm r9, {r2, r3, r11}
        add r9, r9, #16 ; str r11, [r9] ; add r9, r9, #4 ; ldrd r4, r5, [r9] ; add r9, r8, r9 ; ldrex r0, [r9]
        add r6, r6, r1 ; add r9, r9, #8 ; strd r4, r5, [r9]""",
    "a dense table": """
        and r9, r11, #6 ; ldr pc, [pc, r9, lsl #1] ; nop ; .word one, two, one, two
        one: add r1, r1, r11 ; b over ; two: add r2, r2, r11 ; over:""",
    "around the end of a page": """
        and r9, r11, #31 ; add r9, r9, #0xf00 ; add r9, r9, #0xe0 ; add r9, r9, r8
        ldr r1, [r9] ; ldr r2, [r9, #4] ; ldr r3, [r9, #8] ; strh r11, [r9, #2] ; ldrsh r4, [r9, #2]
        stmdb r9, {r1, r2, r3} ; ldmib r9, {r1, r2, r3} ; str r2, [r9] ; str r11, [r9, #4] ; ldrd r2, r3, [r9, #8]""",
    "a base that changes": """
        add r9, r8, #64 ; ldr r1, [r9] ; ldr r2, [r9, #4] ; add r9, r9, #4 ; ldr r3, [r9, #4] ; str r11, [r9]
        str r1, [r9, #4]! ; str r2, [r9, #4] ; tst r11, #2 ; addne r9, r9, #8 ; str r3, [r9, #4] ; str r9, [r9, #8]
        ldr r9, [r9, #8] ; ldr r4, [r9, #4] ; add r7, r7, r4 ; ldm r9, {r1, r9} ; add r7, r7, r9
        add r9, r8, #64 ; ldr r1, [r9], #4 ; ldr r2, [r9] ; add r7, r7, r2, ror r1""",
    "some registers": """
        tst r11, #1 ; moveq r1, r11 ; beq even ; mov r2, r11 ; ldmia r8, {r3, r4, r6} ; even: addne r5, r5, r1
        tst r11, #6 ; ldmiaeq r8!, {r0, r7} ; ldrne r12, [r8] ; str r11, [r8] ; str r11, [r8, #4]""",
    "lists": """
        add r9, r8, #32 ; stmia r9!, {r0, r3, r11} ; stmdb r9!, {r1, r8, r11} ; ldmib r9, {r2, r5}
        ldmda r9, {r0, r4, r12} ; push {r1, r11, lr} ; pop {r3, r6, lr} ; add r1, r1, r5 ; add r0, r0, r11""",
    "a switch": """
        and r9, r11, #7 ; cmp r9, #4 ; ldrls pc, [pc, r9, lsl #2] ; b other
        table: .word case0, case1, case2, case3, case2
        case0: add r1, r1, #1 ; b end ; case1: add r2, r2, r11 ; b end ; case2: eor r3, r3, r11 ; b end
        case3: sub r4, r4, r11 ; b end ; other: add r5, r5, r11, lsl #3 ; end:""",
    "a table changes": """
        and r9, r11, #3 ; cmp r9, #3 ; ldrls pc, [pc, r9, lsl #2] ; b other
        table: .word case0, case1, case2, case1
        case0: add r1, r1, #1 ; b end ; case1: add r2, r2, r11 ; b end ; case2: eor r3, r3, r11 ; b end
        other: nop ; end: adr r12, table ; ldr r9, [r12, #4] ; ldr r0, [r12, #8]
        cmp r11, #9 ; cmpne r11, #22 ; streq r0, [r12, #4] ; streq r9, [r12, #8]""",
    "a literal changes": """
        ldr r1, word ; add r2, r2, r1 ; adr r9, word ; tst r11, #7 ; streq r11, [r9] ; b over
        word: .word 0x12345678 ; over:""",
    "a byte of a literal": """
        ldr r1, word ; add r2, r2, r1 ; ldrb r3, word ; add r4, r4, r3 ; adr r9, word ; cmp r11, #9
        strbeq r11, [r9, #3] ; b over
        word: .word 0x12345678 ; over:""",
    "a halfword of code that changes": """
        patched: add r2, r2, #1 ; adr r9, patched ; cmp r11, #9 ; ldrheq r1, [r9] ; eoreq r1, r1, #4 ; strheq r1, [r9]
        cmp r11, #20 ; ldrbeq r1, [r9, #2] ; eoreq r1, r1, #1 ; strbeq r1, [r9, #2]""",
    "shared code changes": """
        mov r9, #9 ; first: add r1, r1, #1 ; subs r9, r9, #1 ; bne first ; mov r9, #9
        second: add r2, r2, r1 ; bl shared ; subs r9, r9, #1 ; bne second ; mov r9, #9
        third: bl shared ; subs r9, r9, #1 ; bne third ; b over
        shared: patched: add r3, r3, #1 ; bx lr
        over: adr r12, patched ; tst r11, #3 ; ldrbeq r4, [r12] ; eoreq r4, r4, #6 ; strbeq r4, [r12]""",
    "jumps by literals": """
        ldr pc, word ; word: .word one ; two: add r2, r2, #1 ; b over ; one: add r1, r1, #1 ; over:
        tst r11, #7 ; bne skip ; ldr pc, thumb ; thumb: .word main + 1 ; skip: adr r9, word
        ldr r3, other ; ldr r4, [r9] ; cmp r11, #12 ; streq r3, [r9] ; b round ; other: .word two ; round:""",
    "calls of calls": """
        bl f1 ; bl f2 ; tst r11, #1 ; blne f1 ; b over ; f1: push {r9, lr} ; add r9, r11, #1 ; bl f2 ; pop {r9, pc}
        f2: add r1, r1, r11 ; push {lr} ; tst r1, #1 ; bleq f3 ; pop {pc} ; f3: eor r2, r2, r1 ; mov pc, lr ; over:""",
    "returns to elsewhere": """
        bl f1 ; elsewhere: add r2, r2, #1 ; b over ; f1: adr r9, elsewhere ; tst r11, #3 ; moveq lr, r9
        addne r3, r3, #1 ; add lr, lr, #4 ; subne lr, lr, #4 ; bx lr ; over: nop""",
    "arithmetic of 64 bits": """
        adds r1, r1, r1 ; adc r2, r2, r11 ; cmp r1, r3 ; sbcs r0, r2, r4 ; blo less ; subs r1, r1, r3 ; sbc r2, r2, r4
        less: rsbs r3, r1, #5 ; rsc r4, r4, #0 ; cmp r3, r1 ; sbcs r0, r4, r2 ; addge r7, r7, #1 ; rsc r0, r0, r2
        rsb r9, r11, #32 ; sub r12, r11, #32 ; lsl r5, r2, r11 ; orr r5, r5, r1, lsl r12 ; orr r5, r5, r1, lsr r9
        asr r6, r2, r12 ; adds r5, r5, r3 ; adcs r6, r6, r4 ; bcs carry ; adc r7, r7, r7 ; carry: sbcs r7, r7, r6""",
    "digits of a quotient": """
        mov r9, #9 ; orr r1, r1, r11, lsl #28 ; digit: adds r3, r3, r3 ; adc r4, r4, r4 ; cmp r1, #5 ; sbcs r0, r2, r11
        blo less ; subs r1, r1, #5 ; orr r3, r3, #1 ; sbc r2, r2, r11 ; less: adds r1, r1, r1 ; adc r2, r2, r2
        subs r9, r9, #1 ; bne digit ; mov r9, #9 ; next: cmp r2, r11 ; bhs more ; sub r2, r2, r11, ror #3
        more: adc r5, r5, #0 ; addvs r5, r5, #1 ; subs r9, r9, #1 ; bne next""",
    "two ways to a digit": """
        mov r9, #9 ; mov r4, r11 ; add r5, r5, r11, lsl #9 ; b head ; more: subs r5, r5, r4 ; sbc r6, r6, r11
        adds r5, r5, r5 ; adcs r6, r6, r6 ; sub r9, r9, #1 ; teq r9, #0 ; beq done ; head: cmp r5, r4 ; sbcs r7, r6, r11
        bcs more ; adds r5, r5, r5 ; adc r6, r6, r6 ; sub r9, r9, #1 ; teq r9, #0 ; bne head ; done: adc r7, r7, r5
        mov r9, #9 ; root: cmp r5, r4 ; bcs one ; mov r4, r4, lsr #1 ; b both ; one: sub r5, r5, r4 ; adds r4, r4, #9
        both: rrx r4, r4 ; subs r9, r9, #1 ; bne root""",
    "a digit from the stack": """
        add r13, r8, #64 ; tst r11, #3 ; addeq r13, r13, #2 ; cmp r11, #9 ; moveq r13, #0x40000000 ; cmp r11, #22
        moveq r13, #0x10000000 ; mov r5, #20 ; mov r9, #9 ; digit: cmp r5, r11 ; blo less ; ldr r1, [r13]
        sub r5, r5, #3 ; ldr r2, [r13, #4]! ; add r5, r5, r2, lsr #31 ; less: add r5, r5, r2, lsr #29
        subs r9, r9, #1 ; bne digit
        add r6, r6, r1 ; str r11, [r8, #68] ; str r6, [r8, #72]""",
    "alignment checks": """
        mrc p15, 0, r9, c1, c0, 0 ; tst r11, #4 ; orreq r9, r9, #2 ; bicne r9, r9, #2 ; mcr p15, 0, r9, c1, c0, 0
        mov r9, #9 ; inner: add r1, r8, r9 ; ldr r2, [r1, #1] ; ldrh r3, [r1, #4] ; add r4, r4, r2 ; str r4, [r1, #8]
        ldr r5, [r1, #12] ; strh r5, [r1] ; subs r9, r9, #1 ; bne inner""",
    "a fault in the middle": """
        tst r11, #3 ; mov r9, r8 ; moveq r9, #0x40000000 ; add r1, r1, #1 ; str r1, [r8] ; ldr r2, [r9, #4]!
        add r3, r3, #1 ; stmia r9!, {r1, r3} ; cmp r3, r1 ; ldrhi r4, [r9] ; adc r5, r5, r3""",
    "a device in the middle": """
        tst r11, #3 ; mov r9, r8 ; moveq r9, #0x10000000 ; cmp r11, r1 ; ldr r1, [r9] ; adc r2, r2, r1
        strgt r2, [r9, #4] ; ldm r9, {r1, r3} ; movlt r4, r3 ; subs r5, r5, r1 ; str r5, [r9] ; sbcs r6, r6, r5""",
}


def _program(body: str) -> str:
    start = f"movw r8, #0x0 \n movt r8, #1 \n movw r10, #{RAM_SIZE & 0xFFFF} \n movt r10, #{RAM_SIZE >> 16}"
    return "\n".join(
        [start, "mov r11, #30", "main:", *body.replace("\n", ";").split(";"), "subs r11, r11, #1", "bne main", "svc #0"]
    )


MECHANISM_PROGRAMS = {name: _program(body) for name, body in _BODIES.items()}
