/*
 * All code of ours in a stub process. A copy of it is mapped there, so it knows nothing but the
 * pages around it. Guest code may jump to any of its instructions with any register: what keeps
 * that harmless is said in process.c.
 */
#include "direct/stub.h"

#define SYS_mmap          9
#define SYS_munmap        11
#define SYS_rt_sigreturn  15
#define SYS_exit_group    231
#define SYS_prctl         157
#define SYS_futex         202
#define SYS_arch_prctl    158
#define ARCH_SET_GS       0x1001
#define ARCH_SET_FS       0x1002
#define PR_SET_SECCOMP    22
#define FUTEX_WAIT        0
#define FUTEX_WAKE        1

#define CONTROL(field) direct_stub_code+STUB_CONTROL+field(%rip)
#define REPORT(field)  direct_stub_code+STUB_REPORT+field(%rip)

        .section .rodata
        .balign 16
        .globl  direct_stub_code, direct_stub_end, direct_stub_enter, direct_stub_handler
        .globl  direct_stub_probe, direct_stub_rdtsc
        .hidden direct_stub_code, direct_stub_end, direct_stub_enter, direct_stub_handler
        .hidden direct_stub_probe, direct_stub_rdtsc
direct_stub_code:

/* Jumped to once, in the child that is to become the stub: leave nothing mapped but these pages,
 * install the filter, and raise a signal for a first frame to return from. */
direct_stub_enter:
        xor     %edi, %edi
        lea     direct_stub_code(%rip), %rsi
        mov     $SYS_munmap, %eax
        syscall
        lea     direct_stub_code+STUB_SIZE(%rip), %rdi
        mov     $STUB_TASK_END, %rsi
        sub     %rdi, %rsi
        mov     $SYS_munmap, %eax
        syscall
        mov     $PR_SET_SECCOMP, %edi
        mov     $2, %esi
        lea     CONTROL(CONTROL_FILTER), %rdx
        mov     $SYS_prctl, %eax
        syscall
        test    %eax, %eax
        jnz     give_up
        ud2

give_up:
        mov     $1, %edi
        mov     $SYS_exit_group, %eax
        syscall
        ud2

/* Every signal: tell the VMM, and do what it says. */
direct_stub_handler:
        mov     %edi, REPORT(REPORT_SIGNAL)
        mov     %rdx, REPORT(REPORT_CONTEXT)
        mov     %rsp, REPORT(REPORT_STACK)
        rdfsbase %rax
        mov     %rax, REPORT(REPORT_FS_BASE)
        rdgsbase %rax
        mov     %rax, REPORT(REPORT_GS_BASE)
        mov     %ds, %eax
        mov     %ax, REPORT(REPORT_SEGMENTS)
        mov     %es, %eax
        mov     %ax, REPORT(REPORT_SEGMENTS+2)
        mov     %fs, %eax
        mov     %ax, REPORT(REPORT_SEGMENTS+4)
        mov     %gs, %eax
        mov     %ax, REPORT(REPORT_SEGMENTS+6)

report:
        mov     CONTROL(CONTROL_SEQUENCE), %ebx
        movl    $1, REPORT(REPORT_STATE)
        lea     REPORT(REPORT_STATE), %rdi
        mov     $FUTEX_WAKE, %esi
        mov     $1, %edx
        mov     $SYS_futex, %eax
        syscall
wait:
        lea     CONTROL(CONTROL_SEQUENCE), %rdi
        mov     $FUTEX_WAIT, %esi
        mov     %ebx, %edx
        xor     %r10d, %r10d
        mov     $SYS_futex, %eax
        syscall
        cmp     CONTROL(CONTROL_SEQUENCE), %ebx
        je      wait

        movl    $0, REPORT(REPORT_FAILED)
        lea     CONTROL(CONTROL_CALLS), %rbp
        xor     %ebx, %ebx
calls:
        cmp     CONTROL(CONTROL_COUNT), %ebx
        jae     calls_done
        mov     8(%rbp), %rdi
        mov     16(%rbp), %rsi
        mov     24(%rbp), %rdx
        mov     32(%rbp), %r10
        mov     40(%rbp), %r8
        mov     48(%rbp), %r9
        mov     (%rbp), %rax
        inc     %ebx
        add     $CALL_SIZE, %rbp
        syscall
        cmpl    $0, CONTROL(CONTROL_RUNNING)
        jne     trespass
        cmp     $-4096, %rax
        jb      calls
        mov     %ebx, REPORT(REPORT_FAILED)
        jmp     calls
calls_done:
        cmpl    $0, CONTROL(CONTROL_RESUME)
        je      report
        mov     CONTROL(CONTROL_FS_BASE), %rsi
        mov     CONTROL(CONTROL_GS_BASE), %rbx
        cmpl    $0, CONTROL(CONTROL_BASES)
        jne     bases_by_call
        wrfsbase %rsi
        wrgsbase %rbx
resume:
        mov     CONTROL(CONTROL_FRAME), %rsp
        mov     $SYS_rt_sigreturn, %eax
        syscall

/* Guest code that jumps here can set the bases, which is what it may do anyway. */
bases_by_call:
        rdfsbase %rax
        cmp     %rax, %rsi
        je      gs_base_by_call
        mov     $ARCH_SET_FS, %edi
        mov     $SYS_arch_prctl, %eax
        syscall
gs_base_by_call:
        rdgsbase %rax
        cmp     %rax, %rbx
        je      resume
        mov     $ARCH_SET_GS, %edi
        mov     %rbx, %rsi
        mov     $SYS_arch_prctl, %eax
        syscall
        jmp     resume

trespass:
        ud2

/* Run with a breakpoint here: does the host stop in front of it? */
direct_stub_probe:
        nop
        ud2
/* Does this fault? */
direct_stub_rdtsc:
        rdtsc
        ud2
direct_stub_end:

        .section .note.GNU-stack, "", @progbits
