/* An option ROM for the entropy device: it says on COM1 that it ran, and returns. The test fills in the checksum. */
    .code16
    .globl _start
_start:
    .byte 0x55, 0xaa, 1 /* a block of 512 bytes */
    jmp init
    .org 0x18
    .word data, 0
init:
    pusha
    pushw %ds
    pushw %cs
    popw %ds
    movw $text, %si
    cld
    call print
    popw %ds
    popa
    lret

print:
    movw $0x3f8, %dx
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  ret

text: .asciz "<rom>"

    .balign 4
data:
    .ascii "PCIR"
    .word 0x1af4, 0x1005, 0, 24 /* the BIOS runs the ROM if these are the device's */
    .byte 0, 0, 0, 0xff
    .word 1, 1
    .byte 0, 0x80               /* for a PC; the last image */
    .word 0
    .org 512
