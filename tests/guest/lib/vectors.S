/* One 16-byte stub for each vector, which makes all frames alike: error code (0 where the processor
 * pushes none), vector. Then the general registers, then dispatch() in fault.c. */
        .globl vector_stubs
        .text
        .align 16
vector_stubs:
        .set vector, 0
        .rept 256
        .set has_error, 0
        .if     vector < 32
        .set has_error, (0x27d00 >> vector) & 1
        .endif
        .if     has_error == 0
        push    $0
        .endif
#ifdef __x86_64__
        .byte   0x68
        .long   vector
        jmp     save64
#else
        .byte   0x68
        .long   vector
        jmp     save32
#endif
        .align 16
        .set vector, vector + 1
        .endr

#ifdef __x86_64__
        .macro POP_REGISTERS
        .irp r, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
        pop     %\r
        .endr
        .endm

save64:
        push    %rax
        push    %rcx
        push    %rdx
        push    %rbx
        push    %rbp
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        cld
        mov     %rsp, %rdi
        mov     %rsp, %rbp
        and     $-16, %rsp
        call    dispatch
        mov     %rbp, %rsp
        test    %al, %al
        jnz     1f
        POP_REGISTERS
        add     $16, %rsp
        iretq
1:      mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        POP_REGISTERS
        mov     resume + 16, %rbp
        mov     resume + 8, %rsp
        pushq   $2
        popfq
        jmp     *resume
#else
save32:
        pusha
        push    %ds
        push    %es
        push    %fs
        push    %gs
        mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        cld
        push    %esp
        call    dispatch
        add     $4, %esp
        test    %al, %al
        jnz     1f
        pop     %gs
        pop     %fs
        pop     %es
        pop     %ds
        popa
        add     $8, %esp
        iret
1:      mov     $16, %eax
        mov     %eax, %ss
        add     $16, %esp
        popa
        mov     resume + 8, %ebp
        mov     resume + 4, %esp
        pushl   $2
        popfl
        jmp     *resume
#endif
        .section .note.GNU-stack, "", @progbits
