/* Virtual-8086 mode: 8086 segments, IOPL-sensitive instructions, the I/O bitmap, faults and
 * software interrupts into ring 0 and the frame that they push, what is undefined there. QEMU 7.2
 * checks no segment limit. */
#include "lib/guest.h"

#define CODE 0x1000u /* linear; the segment is CODE >> 4 */
#define VM   0x20000u

static u32 v86_iopl;

/* Run `length` bytes of 16-bit code in virtual-8086 mode until something happens. */
static void run(const u8 *code, unsigned length)
{
    memset((void *)CODE, 0xf4, 256); /* HLT: #GP ends it */
    memcpy((void *)CODE, code, length);
    fault.vector = VECTOR_NONE;
    asm volatile(PUSH_ALL_ ARM_
                 "88: movl $0, resume+12\n"
                 "push $0x500; push $0x400; push $0x300; push $0x200\n" /* GS FS DS ES */
                 "push $0x600; push $0x800; push %0; push $0x100; push $0; iret\n" DISARM_ POP_ALL_
                 :
                 : "r"(VM | 2 | v86_iopl << 12), "a"(0), "b"(0)
                 : "memory", "cc");
}

static void show(const char *name)
{
    printf("%s: ", name);
    print_fault();
    const struct frame *f = &fault.frame;
    printf(" VM %lx cs %lx sp %lx ss %lx ax %lx\n", f->flags >> 17 & 1, f->cs, f->sp, f->ss,
           f->ax & 0xffff);
}

#define V86(...)                                                                                   \
    do {                                                                                           \
        static const u8 code_[] = {__VA_ARGS__};                                                   \
        run(code_, sizeof(code_));                                                                 \
        show(#__VA_ARGS__);                                                                        \
    } while (0)

static void sensitive(void)
{
    for (v86_iopl = 0; v86_iopl < 4; v86_iopl += 3) {
        printf("IOPL %u\n", v86_iopl);
        V86(0xfa);             /* CLI */
        V86(0xfb);             /* STI */
        V86(0x9c, 0x58);       /* PUSHF; POP AX */
        V86(0x6a, 0x02, 0x9d); /* PUSH 2; POPF */
        V86(0xcd, 0x20);       /* INT 20h: gate DPL 0 */
        V86(0xcd, 0x80);       /* INT 80h: gate DPL 3 */
        V86(0xcc);             /* INT3: not sensitive to IOPL, DPL 0 gate */
        V86(0xe4, 0x21);       /* IN: the bitmap counts, not IOPL */
        V86(0xe4, 0x20);
        V86(0x9c, 0x0e, 0x68, 0x10, 0x00, 0xcf); /* IRET to 10h */
    }
    v86_iopl = 0;
}

static void undefined(void)
{
    V86(0xf4);                         /* HLT */
    V86(0x0f, 0x20, 0xc0);             /* MOV EAX, CR0 */
    V86(0x0f, 0x01, 0xe0);             /* SMSW AX: allowed */
    V86(0x0f, 0x00, 0xc0);             /* SLDT */
    V86(0x0f, 0x00, 0xd8);             /* LTR */
    V86(0x0f, 0x02, 0xc0);             /* LAR */
    V86(0x63, 0xc0);                   /* ARPL */
    V86(0x0f, 0x00, 0xe0);             /* VERR */
    V86(0x0f, 0x01, 0x16, 0x00, 0x00); /* LGDT */
    V86(0x0f, 0x06);                   /* CLTS */
}

static void memory(void)
{
    /* MOV AX, 1234h; MOV DS, AX: base = selector * 16 */
    *(u16 *)0x3458 = 0x5aa5;
    V86(0xb8, 0x45, 0x03, 0x8e, 0xd8, 0xa1, 0x08, 0x00);
    V86(0x66, 0xbb, 0x00, 0x00, 0x01, 0x00, 0x67, 0x8a, 0x03); /* MOV EBX, 10000h; MOV AL, [EBX] */
    V86(0x66, 0xbc, 0xff, 0xff, 0x00, 0x00, 0x58);             /* MOV ESP, FFFFh; POP AX */
    V86(0xa1, 0xff, 0xff);                                     /* MOV AX, [FFFFh] */
    V86(0x9a, 0x00, 0x00, 0x10, 0x01);                         /* CALL 0110:0000 */
}

void guest_main(void)
{
    pic_init(); /* port 21h reads as FFh */
    tss_area.bitmap[0x21 / 8] &= (u8) ~(1u << (0x21 % 8));
    memset((void *)0x2000, 0, 0x4000);
    *(u8 *)0x1100 = 0xf4;
    sensitive();
    undefined();
    memory();
    printf("frame: es %lx ds %lx fs %lx gs %lx\n", fault.frame.v86_es, fault.frame.v86_ds,
           fault.frame.v86_fs, fault.frame.v86_gs);
    check("the frame has 9 words", fault.handler_sp == (word)kernel_stack_top);
}
