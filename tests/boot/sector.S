/*
 * A boot sector that SeaBIOS loads from the disk. By the BIOS's disk services it reads the second
 * sector with LBA, the third with CHS, copies the second onto the fourth and reads that back; then
 * it writes what it has found to COM1 and ends the VM through the debug-exit port.
 */
    .code16
    .globl _start
_start:
    ljmp $0, $1f
1:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    movw $hello, %si
    call print

    movb $0x42, %ah /* extended read */
    movw $packet, %si
    call disk
    movw $0x8000, %si
    call print

    movw $0x0201, %ax /* one sector: cylinder 0, head 0, sector 3 */
    movw $3, %cx
    movb $0, %dh
    movw $0x8200, %bx
    call disk
    movw $0x8200, %si
    call print

    movb $3, packet_lba
    movw $0x4300, %ax /* extended write */
    movw $packet, %si
    call disk
    movb $0x84, packet_to + 1
    movb $0x42, %ah
    movw $packet, %si
    call disk
    movw $0x8000, %si
    movw $0x8400, %di
    movw $512, %cx
    repe cmpsb
    jne failed
    movw $0x8400, %si
    call print
    movb $0x10, %al
    jmp end

failed:
    movw $bad, %si
    call print
    movb $1, %al
end:
    movw $0xf4, %dx
    outb %al, %dx
    hlt

disk:
    movb drive, %dl
    int $0x13
    jc failed
    ret

print:
    lodsb
    testb %al, %al
    jz 3f
    movb %al, %bl
    movw $0x3fd, %dx
2:  inb %dx, %al
    testb $0x20, %al
    jz 2b
    movw $0x3f8, %dx
    movb %bl, %al
    outb %al, %dx
    jmp print
3:  ret

hello: .asciz "boot sector\n"
bad:   .asciz "disk error\n"
drive: .byte 0
    .balign 4
packet:
    .byte 16, 0
    .word 1
packet_to:
    .word 0x8000, 0
packet_lba:
    .quad 1
    .org 510
    .word 0xaa55
    .org 512
    .asciz "second sector\n"
    .org 1024
    .asciz "third sector\n"
    .org 8192 * 16
