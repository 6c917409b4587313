/*
 * Real-mode workloads on a floppy's boot sector, for bench/real16.py: a sieve of bytes, a sum over an array behind a segment of its
 * own, a recursive function, a copy by LODSB and STOSB, one by REP MOVSW, and calls of the BIOS. Each writes its letter to COM1
 * when it ends, after the letter that starts it.
 */
#define WORK 0x2000 /* a segment */
#define FAR 0x3000  /* another */
#define STACK 0x7000 /* not in a page with code */

    .macro between /* DS:SI and ES:DI, of which the caller's are on the stack */
    push %ds
    push %es
    push $WORK
    pop %ds
    push $FAR
    pop %es
    xor %si, %si
    xor %di, %di
    .endm

    .code16
    .globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ss
    mov $STACK, %sp
    mov %ax, %ds
    sti
    cld
    ljmp $0, $1f
1:  mov $workloads, %bx
    mov $'.', %al
    call say
2:  mov (%bx), %ax
    test %ax, %ax
    jz 4f
    mov 2(%bx), %bp /* rounds */
3:  push %bp
    push %bx
    call *(%bx)
    pop %bx
    pop %bp
    dec %bp
    jnz 3b
    mov 4(%bx), %al
    call say
    add $6, %bx
    jmp 2b
4:  mov $'!', %al
    call say
5:  hlt
    jmp 5b

say:
    mov $0x3f8, %dx
    out %al, %dx
    ret

/* Odd numbers below 2 * 8192. */
sieve:
    push $WORK
    pop %es
    xor %di, %di
    mov $8192, %cx
    mov $1, %al
    rep stosb
    mov $3, %bx
1:  mov %bx, %si
    shr $1, %si
    cmpb $0, %es:(%si)
    je 3f
    mov %bx, %ax
    add %si, %ax
2:  cmp $8192, %ax
    jae 3f
    mov %ax, %di
    movb $0, %es:(%di)
    add %bx, %ax
    jmp 2b
3:  add $2, %bx
    cmp $128, %bx
    jb 1b
    ret

/* 16384 words behind DS, with an index in BX and a 32-bit sum in DX:AX. */
sum:
    push %ds
    push $WORK
    pop %ds
    xor %ax, %ax
    xor %dx, %dx
    xor %bx, %bx
    mov $16384, %cx
1:  add (%bx), %ax
    adc $0, %dx
    xor %dx, 4(%bx)
    add $2, %bx
    loop 1b
    pop %ds
    ret

/* Fibonacci numbers, with arguments on the stack. */
recursive:
    push $16
    call fibonacci
    add $2, %sp
    ret
fibonacci:
    push %bp
    mov %sp, %bp
    mov 4(%bp), %ax
    cmp $2, %ax
    jb 1f
    dec %ax
    push %ax
    call fibonacci
    add $2, %sp
    push %ax
    mov 4(%bp), %ax
    sub $2, %ax
    push %ax
    call fibonacci
    add $2, %sp
    pop %dx
    add %dx, %ax
1:  pop %bp
    ret

letters:
    between
    mov $8192, %cx
1:  lodsb
    cmp $'a', %al
    jb 2f
    and $0xdf, %al
2:  stosb
    loop 1b
    pop %es
    pop %ds
    ret

copy:
    between
    mov $16384, %cx
    rep movsw
    pop %es
    pop %ds
    ret

/* Memory size and the time of day. */
bios:
    int $0x12
    mov $0, %ah
    int $0x1a
    ret

    .balign 2
workloads:
    .word sieve, 5000, 's'
    .word sum, 3000, 'm'
    .word recursive, 5000, 'r'
    .word letters, 3000, 'l'
    .word copy, 30000, 'c'
    .word bios, 60000, 'b'
    .word 0
    .org 510
    .word 0xaa55
