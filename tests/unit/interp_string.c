/* Repeated string instructions: interrupted, faulting, overlapping, and over code. */
#include "bare.h"

#define RW (PTE_P | PTE_RW)

GUEST(movsb, "cld\n 1: rep movsb\n hlt\n");
GUEST(movsq, "cld\n rep movsq\n hlt\n");
GUEST(movsb_down, "std\n rep movsb\n cld\n hlt\n");
GUEST(stosq, "cld\n rep stosq\n hlt\n");
GUEST(scasb, "cld\n repne scasb\n hlt\n");

static void set(struct vcpu *cpu, uint64_t rsi, uint64_t rdi, uint64_t rcx)
{
    cpu->gpr[RSI] = rsi;
    cpu->gpr[RDI] = rdi;
    cpu->gpr[RCX] = rcx;
    cpu->gpr[RSP] = BARE_STACK;
}

static uint8_t *ram(struct bare *b, uint64_t gpa)
{
    return physmem_host(b->m->mem, gpa, 1);
}

static void test_interrupted(void)
{
    struct bare *b = bare_new();
    struct tv_error err;
    bare_load(b, BARE_CODE, movsb);
    for (unsigned i = 0; i < 300000; i++)
        ram(b, BARE_DATA)[i] = (uint8_t)(i * 7);
    set(b->cpu, BARE_DATA, BARE_DATA + 0x100000, 300000);
    b->cpu->rip = BARE_CODE;
    b->cpu->activity = ACTIVITY_RUNNING;
    unsigned stops = 0;
    for (; stops < 1000; stops++) {
        /* The vCPU is asked to stop again and again; it gets on all the same. */
        atomic_store(&b->cpu->attention, ATT_STOP);
        enum vcpu_exit exit = interp_step(b->cpu);
        if (exit == VCPU_EXIT_HALT || b->cpu->activity == ACTIVITY_HALTED)
            break;
        CHECK(interp_engine.run(b->cpu, &err) == VCPU_EXIT_ATTENTION);
        atomic_store(&b->cpu->attention, 0);
        uint64_t done = 300000 - b->cpu->gpr[RCX];
        CHECK(b->cpu->gpr[RSI] == BARE_DATA + done);
        CHECK(b->cpu->gpr[RDI] == BARE_DATA + 0x100000 + done);
        CHECK(b->cpu->rip == BARE_CODE + 1 || done == 300000);
    }
    CHECK(stops > 10 && b->cpu->gpr[RCX] == 0);
    CHECK(!memcmp(ram(b, BARE_DATA), ram(b, BARE_DATA + 0x100000), 300000));
    bare_free(b);
}

/* A fault in the middle leaves the registers at the element that faulted. */
static void test_fault(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, movsb);
    bare_map(b, BARE_FREE, 0x600000, RW);
    set(b->cpu, BARE_DATA, BARE_FREE + 100, PAGE_SIZE);
    CHECK(bare_run(b, BARE_CODE) == VEC_PF);
    CHECK(bare_fault_error(b) == PF_W && bare_fault_rip(b, true) == BARE_CODE + 1);
    CHECK(b->cpu->cr2 == BARE_FREE + PAGE_SIZE);
    CHECK(b->cpu->gpr[RCX] == 100);
    CHECK(b->cpu->gpr[RDI] == BARE_FREE + PAGE_SIZE);
    CHECK(b->cpu->gpr[RSI] == BARE_DATA + PAGE_SIZE - 100);
    bare_free(b);
}

static void test_overlap(void)
{
    struct bare *b = bare_new();
    uint8_t *data = ram(b, BARE_DATA);
    bare_load(b, BARE_CODE, movsb);
    bare_load(b, BARE_CODE + 0x100, movsb_down);
    bare_load(b, BARE_CODE + 0x200, movsq);

    /* Upward by one: the first byte smears. */
    for (unsigned i = 0; i < 3000; i++)
        data[i] = (uint8_t)i;
    set(b->cpu, BARE_DATA, BARE_DATA + 1, 2999);
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 3000; i++)
        wrong += data[i] != 0;
    CHECK(!wrong);

    /* Downward: a plain move. */
    for (unsigned i = 0; i < 3000; i++)
        data[i] = (uint8_t)i;
    set(b->cpu, BARE_DATA + 2999, BARE_DATA + 3001, 3000);
    CHECK(bare_run(b, BARE_CODE + 0x100) == NO_VECTOR);
    for (unsigned i = 0; i < 3000; i++)
        wrong += data[i + 2] != (uint8_t)i;
    CHECK(!wrong && b->cpu->gpr[RSI] == BARE_DATA - 1);

    /* Quadwords by one byte: each element is loaded whole before it is stored. */
    uint8_t model[4096 + 16];
    for (unsigned i = 0; i < sizeof model; i++)
        data[i] = model[i] = (uint8_t)(i * 13);
    for (unsigned i = 0; i < 500; i++) {
        uint64_t v;
        memcpy(&v, model + 8 * i, 8);
        memcpy(model + 8 * i + 1, &v, 8);
    }
    set(b->cpu, BARE_DATA, BARE_DATA + 1, 500);
    CHECK(bare_run(b, BARE_CODE + 0x200) == NO_VECTOR);
    CHECK(!memcmp(data, model, sizeof model));
    bare_free(b);
}

static void test_fill_and_scan(void)
{
    struct bare *b = bare_new();
    bare_load(b, BARE_CODE, stosq);
    bare_load(b, BARE_CODE + 0x100, scasb);
    b->cpu->gpr[RAX] = UINT64_C(0x0102030405060708);
    set(b->cpu, 0, BARE_DATA + 5, 2000);
    CHECK(bare_run(b, BARE_CODE) == NO_VECTOR);
    CHECK(b->cpu->gpr[RDI] == BARE_DATA + 5 + 16000 && b->cpu->gpr[RCX] == 0);
    unsigned wrong = 0;
    for (unsigned i = 0; i < 2000; i++)
        wrong += memcmp(ram(b, BARE_DATA + 5 + 8 * i), "\x08\x07\x06\x05\x04\x03\x02\x01", 8) != 0;
    CHECK(!wrong);

    ram(b, BARE_DATA + 5)[12345] = 0xaa;
    b->cpu->gpr[RAX] = 0xaa;
    set(b->cpu, 0, BARE_DATA + 5, 16000);
    CHECK(bare_run(b, BARE_CODE + 0x100) == NO_VECTOR);
    CHECK(b->cpu->gpr[RDI] == BARE_DATA + 5 + 12346 && b->cpu->gpr[RCX] == 16000 - 12346);
    CHECK(b->cpu->cc & FLAG_ZF);
    bare_free(b);
}

int main(void)
{
    test_interrupted();
    test_fault();
    test_overlap();
    test_fill_and_scan();
    return check_result();
}
