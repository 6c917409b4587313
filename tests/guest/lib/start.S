/* Entry from the Multiboot loader: 32-bit protected mode, flat segments, no paging. */
        .section .multiboot, "a"
        .align 4
        .long 0x1badb002, 3, -(0x1badb002 + 3)

        .section .text.start, "ax"
        .code32
        .globl start, stack_top, kernel_stack_top
start:
        cli
        cld
        mov     $stack_top, %esp
        mov     %eax, boot_magic
        mov     %ebx, boot_info
#ifdef __x86_64__
        mov     $pml4, %edi
        movl    $pdpt + 7, (%edi)
        mov     $4, %ecx
        mov     $pdpt, %edi
        mov     $pd + 7, %eax
1:      mov     %eax, (%edi)
        add     $4096, %eax
        add     $8, %edi
        loop    1b
        mov     $4 * 512, %ecx
        mov     $pd, %edi
        mov     $0x87, %eax             /* present, writable, user, 2 MiB */
1:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        loop    1b
        mov     %cr4, %eax
        or      $0x6a0, %eax            /* PAE, PGE, OSFXSR, OSXMMEXCPT */
        mov     %eax, %cr4
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x100, %eax            /* LME */
        wrmsr
        mov     %cr0, %eax
        or      $0x80000020, %eax       /* PG, NE */
        mov     %eax, %cr0
        lgdt    boot_gdtr
        ljmp    $8, $start64
        .code64
start64:
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $stack_top, %rsp
#else
        mov     %cr0, %eax
        or      $0x20, %eax             /* NE */
        mov     %eax, %cr0
#endif
        call    load_gdt
        call    load_idt
        call    guest_main
#ifdef __x86_64__
        xor     %edi, %edi
#else
        push    $0
#endif
        call    debug_exit

        .section .rodata
        .align 8
boot_gdt:
        .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff
boot_gdtr:
        .word . - boot_gdt - 1
        .long boot_gdt, 0

        .bss
        .globl boot_magic, boot_info, pml4, pdpt, pd
        .lcomm boot_words, 8
        .set boot_magic, boot_words
        .set boot_info, boot_words + 4
        .align 4096
pml4:   .skip 4096
pdpt:   .skip 4096
pd:     .skip 4 * 4096
        .skip 16384
stack_top:
        .skip 16384
kernel_stack_top:

        .section .note.GNU-stack, "", @progbits
