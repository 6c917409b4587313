/* What an application processor runs first: in real mode at a copy of this code at 0x8000. */
        .globl ap_start, ap_start_end
        .text
        .code16
ap_start:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   ap_gdtr - ap_start + 0x8000
        mov     %cr0, %eax
        and     $0x9fffffff, %eax       /* caches on, which INIT leaves off */
        or      $0x21, %eax
        mov     %eax, %cr0
#ifdef __x86_64__
        ljmpl   $0x18, $ap_start32
#else
        ljmpl   $0x08, $ap_start32
#endif
        .align 8
ap_gdt: .quad 0
#ifdef __x86_64__
        .quad 0x00af9a000000ffff
#else
        .quad 0x00cf9a000000ffff
#endif
        .quad 0x00cf92000000ffff, 0x00cf9a000000ffff
ap_gdtr:
        .word   31
        .long   ap_gdt - ap_start + 0x8000
ap_start_end:

        .code32
ap_start32:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     ap_cr4, %eax
        mov     %eax, %cr4
#ifdef __x86_64__
        mov     ap_cr3, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000000, %eax
        mov     %eax, %cr0
        ljmp    $0x08, $ap_start64
        .code64
ap_start64:
        mov     ap_stack, %rsp
        lgdt    kernel_gdtr
        pushq   $8
        pushq   $1f
        lretq
1:
#else
        mov     ap_stack, %esp
        lgdt    kernel_gdtr
        ljmp    $8, $1f
1:
#endif
        call    ap_main

        .section .rodata
kernel_gdtr:
        .word   64 * 8 - 1
#ifdef __x86_64__
        .quad   gdt
#else
        .long   gdt
#endif
        .section .note.GNU-stack, "", @progbits
