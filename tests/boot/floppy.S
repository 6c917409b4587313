/* A boot sector on a floppy: reads its last sector and a whole cylinder, writes a sector, says so. */
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

    mov $0x0201, %ax /* one sector: the last one */
    mov last_track, %ch
    mov sectors, %cl
    mov $1, %dh
    mov $0x8000, %bx
    call disk
    mov $0x8000, %si
    call print

    mov $0x02, %ah /* a track */
    mov sectors, %al
    mov $0x0501, %cx
    mov $0, %dh
    mov $0x9000, %bx
    call disk
    mov $0x9000, %si
    call print

    mov $0x0301, %ax
    mov $0x0703, %cx
    mov $1, %dh
    mov $0x7c00, %bx
    call disk
    mov $written, %si
    call print
end:
    mov $0xf4, %dx
    mov $0, %al
    out %al, %dx
    hlt

disk:
    mov drive, %dl
    int $0x13
    jc failed
    ret
failed:
    mov $error, %si
    call print
    jmp end

print: /* the BIOS's own text for the port comes with its timer */
    cli
    mov $0x3f8, %dx
1:  lodsb
    test %al, %al
    jz 2f
    out %al, %dx
    jmp 1b
2:  sti
    ret

drive:   .byte 0
written: .asciz "written\n"
error:   .asciz "floppy error\n"
    .org 506
sectors:    .byte 0 /* in a track; the test fills them in */
last_track: .byte 0
    .org 510
    .word 0xaa55
