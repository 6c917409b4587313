/* From 32-bit protected mode to real mode and back. The 16-bit part of the way is copied to 0x7000. */
#ifndef __x86_64__
        .set    WAY, 0x7000
        .globl  real_enter
        .text
real_enter:
        pusha
        mov     $way, %esi
        mov     $WAY, %edi
        mov     $way_end - way, %ecx
        rep movsb
        mov     %esp, saved_sp
        lidt    real_idtr
        ljmp    $0x48, $WAY             /* SEL_CODE16: base 0 */

        .code16
way:    mov     $0x50, %ax              /* SEL_DATA16: limits back to 64 KiB */
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %fs
        mov     %ax, %gs
        mov     %ax, %ss
        mov     %cr0, %eax
        and     $~1, %eax
        mov     %eax, %cr0
        ljmp    $0, $WAY + 1f - way
1:      mov     $0x100, %ax             /* REAL_CODE >> 4 */
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $0x6000, %sp
        lcall   $0x100, $0
        cli
        cld
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   WAY + gdtr - way
        mov     %cr0, %eax
        or      $1, %eax
        mov     %eax, %cr0
        ljmpl   $8, $back
gdtr:   .word   64 * 8 - 1
        .long   gdt
way_end:
        .code32
back:   mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     saved_sp, %esp
        popa
        ret

        .lcomm  saved_sp, 4
        .section .rodata
real_idtr:
        .word   0x3ff
        .long   0
#endif
        .section .note.GNU-stack, "", @progbits
