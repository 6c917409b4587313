/*
 * A small real-mode system, for floppies and hard disks: a boot sector loads it, and it takes commands from the keyboard through the
 * BIOS. It says everything on the screen and on COM1. It takes two interrupts of the BIOS's for itself (the timer's 1Ch and the
 * keyboard's 09h), and goes into protected mode only to get at memory above 1 MiB with a big segment limit.
 */
#define SECTORS 7 /* beside the boot sector */
#define SCRATCH 0x9000
#define LINE 0x8e00 /* what was typed */

    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    mov %dl, drive
    mov $0x0200 + SECTORS, %ax
    mov $0x0002, %cx
    mov $0, %dh
    mov $0x7e00, %bx
    int $0x13
    jc 1f
    ljmp $0, $system
1:  hlt
    jmp 1b
drive: .byte 0
    .org 510
    .word 0xaa55

system:
    mov $0x0003, %ax
    int $0x10
    cli
    mov 4 * 0x09, %eax
    mov %eax, old_keyboard
    movl $keyboard, 4 * 0x09
    movl $timer, 4 * 0x1c
    sti
    mov $banner, %si
    call print
    mov drive, %al
    call hex8
    mov $kilobytes, %si
    call print
    int $0x12
    call hex16
    call newline

prompt:
    mov $sign, %si
    call print
    mov $LINE, %di
1:  mov $0, %ah
    int $0x16
    cmp $'\r', %al
    je 2f
    stosb
    call put
    jmp 1b
2:  movb $0, (%di)
    call newline
    mov $commands, %bx
3:  mov (%bx), %si
    test %si, %si
    jz unknown
    mov $LINE, %di
4:  lodsb
    scasb
    jne 5f
    test %al, %al
    jnz 4b
    call *2(%bx)
    jmp prompt
5:  add $4, %bx
    jmp 3b
unknown:
    mov $what, %si
    call print
    jmp prompt

/* Ten ticks of the timer, awaited in HLT; and the keyboard's interrupts, of which each key made two. */
do_ticks:
    mov ticks, %cx
    add $10, %cx
1:  hlt
    mov ticks, %ax
    cmp %cx, %ax
    jne 1b
    mov $ticked, %si
    call print
    mov keys, %ax
    call hex16
    jmp newline

/* The BIOS's map of memory. */
do_memory:
    xor %ebx, %ebx
1:  mov $0xe820, %eax
    mov $0x534d4150, %edx
    mov $20, %ecx
    mov $SCRATCH, %di
    int $0x15
    jc 2f
    mov SCRATCH + 4, %eax
    call hex32
    mov SCRATCH, %eax
    call hex32
    mov $' ', %al
    call put
    mov SCRATCH + 12, %eax
    call hex32
    mov SCRATCH + 8, %eax
    call hex32
    mov $' ', %al
    call put
    mov SCRATCH + 16, %al
    call hex8
    call newline
    test %ebx, %ebx
    jnz 1b
2:  ret

/* Turn over the bits of a sector on the second cylinder, read it again, and put it back. */
do_disk:
    call sector_in
    call turn
    call sector_out
    call sector_in
    cmpw $~0x6552, SCRATCH /* "Re" */
    jne disk_failed
    call turn
    call sector_out
    mov $disk_well, %si
    jmp print
turn:
    mov $SCRATCH, %si
    mov $256, %cx
1:  notw (%si)
    add $2, %si
    loop 1b
    ret
sector_in:
    mov $0x0201, %ax
    jmp 1f
sector_out:
    mov $0x0301, %ax
1:  mov $0x0103, %cx /* cylinder 1, sector 3 */
    mov $1, %dh
    mov drive, %dl
    mov $SCRATCH, %bx
    int $0x13
    jc disk_failed_deep
    ret
disk_failed_deep:
    pop %ax
disk_failed:
    mov $disk_bad, %si
    jmp print

/* 256 colours: each column one. */
do_graphics:
    mov $0x0013, %ax
    int $0x10
    push %es
    mov $0xa000, %ax
    mov %ax, %es
    xor %di, %di
    xor %ax, %ax
    mov $200, %dx
1:  mov $320, %cx
    mov $0, %al
2:  stosb
    inc %al
    loop 2b
    dec %dx
    jnz 1b
    pop %es
    jmp key_to_text

/* 16 colours in planes: bands of 30 lines, with write mode 2 and, in the middle third, XOR with 15. */
do_planes:
    mov $0x0012, %ax
    int $0x10
    push %es
    mov $0xa000, %ax
    mov %ax, %es
    mov $0x3ce, %dx
    mov $0x0205, %ax /* mode register: write mode 2 */
    out %ax, %dx
    xor %di, %di
    mov $0, %al
1:  mov $80 * 30, %cx
    rep stosb
    inc %al
    cmp $16, %al
    jne 1b
    mov $0x1803, %ax /* rotate register: XOR */
    out %ax, %dx
    mov $80 * 160, %di
    mov $80 * 160, %cx
2:  mov %es:(%di), %al /* into the latches */
    mov $15, %al
    stosb
    loop 2b
    mov $0x0003, %ax
    out %ax, %dx
    mov $0x0005, %ax
    out %ax, %dx
    pop %es
key_to_text:
    mov $0, %ah
    int $0x16
    mov $0x0003, %ax
    int $0x10
    mov $text_again, %si
    jmp print

/* Memory at 1 MiB through a segment whose limit was raised in protected mode. */
do_high:
    mov $0x2401, %ax /* the A20 line */
    int $0x15
    jc 1f
    cli
    lgdt gdt_pointer
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    jmp 2f
2:  mov $8, %bx
    mov %bx, %fs
    and $0xfe, %al
    mov %eax, %cr0
    jmp 3f
3:  xor %bx, %bx
    mov %bx, %fs
    sti
    mov $0x100000, %edi
    mov 0, %ecx /* where that would be without the A20 line */
    movl $0x12345678, %fs:(%edi)
    cmpl $0x12345678, %fs:(%edi)
    jne 1f
    cmp %ecx, 0
    mov $high_well, %si
    je 4f
1:  mov $high_bad, %si
4:  jmp print

/* Off, through the BIOS's APM. */
do_off:
    mov $0x5301, %ax
    xor %bx, %bx
    int $0x15
    mov $0x530e, %ax
    mov $0x0102, %cx
    int $0x15
    mov $0x5307, %ax
    mov $1, %bx
    mov $3, %cx
    int $0x15
    ret

timer:
    incw %cs:ticks
    iret
keyboard:
    incw %cs:keys
    ljmp *%cs:old_keyboard

print:
    lodsb
    test %al, %al
    jz 1f
    call put
    jmp print
newline:
    mov $'\r', %al
    call put
    mov $'\n', %al
put:
    push %bx
    push %dx
    mov $0x3f8, %dx
    out %al, %dx
    mov $7, %bx
    mov $0x0e, %ah
    int $0x10
    pop %dx
    pop %bx
1:  ret

hex32:
    push %eax
    shr $16, %eax
    call hex16
    pop %eax
hex16:
    push %ax
    mov %ah, %al
    call hex8
    pop %ax
hex8:
    push %ax
    shr $4, %al
    call 1f
    pop %ax
    and $15, %al
1:  add $'0', %al
    cmp $'9', %al
    jbe put
    add $'a' - '9' - 1, %al
    jmp put

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf92000000ffff
gdt_pointer:
    .word 15
    .long gdt
old_keyboard: .long 0
ticks: .word 0
keys:  .word 0

commands:
    .word name_ticks, do_ticks, name_memory, do_memory, name_disk, do_disk, name_graphics, do_graphics
    .word name_planes, do_planes, name_high, do_high, name_off, do_off, 0
name_ticks:    .asciz "ticks"
name_memory:   .asciz "memory"
name_disk:     .asciz "disk"
name_graphics: .asciz "graphics"
name_planes:   .asciz "planes"
name_high:     .asciz "high"
name_off:      .asciz "off"
banner:     .asciz "Real-mode system, drive "
kilobytes:  .asciz ", KiB below 640: "
sign:       .asciz "> "
what:       .asciz "no such command\r\n"
ticked:     .asciz "ten ticks; key interrupts: "
disk_well:  .asciz "the disk is well\r\n"
disk_bad:   .asciz "the disk is not well\r\n"
text_again: .asciz "text again\r\n"
high_well:  .asciz "high memory is well\r\n"
high_bad:   .asciz "high memory is not well\r\n"
    .org 512 * (SECTORS + 1)
