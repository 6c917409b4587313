/* A PVH guest for the debugger's test: 32-bit code that counts to a thousand in memory and ends with status 1. */
    .section .note.pvh, "a"
    .long 4, 4, 18
    .asciz "Xen"
    .long start

    .text
    .code32
    .globl start, again, counter, done
start:
    xorl %ecx, %ecx
    movl $counter, %ebx
loop:
    incl %ecx
    movl %ecx, (%ebx)
again:
    nop
    cmpl $1000, %ecx
    jb loop
done:
    xorl %eax, %eax
    movw $0xf4, %dx
    outb %al, %dx
1:  hlt
    jmp 1b

    .data
    .balign 8
counter:
    .long 0
    .section .note.GNU-stack, "", @progbits
