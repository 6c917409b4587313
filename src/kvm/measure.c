/*
 * What an instruction of ring-0 code costs under this host's KVM. Hosts that are virtual machines
 * themselves may have /dev/kvm and yet emulate every instruction of a guest's kernel, a thousand
 * times slower than a processor: nothing but the clock tells them apart.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kvm/internal.h"
#include "util/clock.h"
#include "util/error.h"

#define CODE_AT       0x1000
#define LOOP_INSNS    4
#define FIRST_ROUNDS  150     /* 600 instructions: 1.5 ms where each is emulated */
#define SECOND_ROUNDS 1000000 /* some milliseconds at a processor's own speed */
#define FAST_NS       100000  /* the first loop took less: measure properly */
#define LIMIT_NS      20000000

/* 32-bit code:  1: add eax, edx;  xor edx, eax;  dec ecx;  jnz 1b;  hlt */
static const uint8_t code[] = {0x01, 0xd0, 0x31, 0xc2, 0x49, 0x75, 0xf9, 0xf4};

struct bench {
    int dev_fd, vm_fd, fd;
    void *ram;
    struct kvm_run *run;
    size_t run_size;
    timer_t timer;
    bool has_timer;
};

static int build(struct bench *b, struct tv_error *err)
{
    b->dev_fd = kvm_open(err);
    if (b->dev_fd < 0)
        return -1;
    b->vm_fd = kvm_ioctl(b->dev_fd, KVM_CREATE_VM, NULL);
    if (b->vm_fd < 0)
        return tv_fail_errno(err, errno, "KVM does not create a virtual machine");
    uint64_t identity = 0xfffbc000;
    kvm_ioctl(b->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
    ioctl(b->vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000UL);
    b->ram = mmap(NULL, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b->ram == MAP_FAILED)
        return tv_fail(err, "out of memory");
    memcpy((uint8_t *)b->ram + CODE_AT, code, sizeof code);
    struct kvm_userspace_memory_region region = {.memory_size = 2 * PAGE_SIZE,
                                                 .userspace_addr = (uintptr_t)b->ram};
    if (kvm_ioctl(b->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return tv_fail_errno(err, errno, "KVM does not take guest memory");
    b->fd = ioctl(b->vm_fd, KVM_CREATE_VCPU, 0);
    if (b->fd < 0)
        return tv_fail_errno(err, errno, "KVM does not create a vCPU");
    b->run_size = (size_t)ioctl(b->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    b->run = mmap(NULL, b->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, b->fd, 0);
    if (b->run == MAP_FAILED)
        return tv_fail_errno(err, errno, "cannot map a vCPU");

    struct kvm_sregs s;
    if (kvm_ioctl(b->fd, KVM_GET_SREGS, &s) < 0)
        return tv_fail_errno(err, errno, "KVM does not give system registers");
    struct kvm_segment flat = {
        .limit = 0xffffffff, .selector = 16, .type = 3, .s = 1, .present = 1, .db = 1, .g = 1};
    s.ds = s.es = s.ss = s.fs = s.gs = flat;
    flat.selector = 8;
    flat.type = 11;
    s.cs = flat;
    s.cr0 = CR0_PE | CR0_ET | CR0_NE;
    if (kvm_ioctl(b->fd, KVM_SET_SREGS, &s) < 0)
        return tv_fail_errno(err, errno, "KVM does not take system registers");
    return 0;
}

/* The abort timer's signal, blocked outside KVM_RUN. */
static int set_timer(struct bench *b, struct tv_error *err)
{
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    sigdelset(&now, KICK_SIGNAL);
    struct {
        struct kvm_signal_mask mask;
        uint8_t set[8];
    } arg = {.mask.len = 8};
    memcpy(arg.mask.sigset, &now, 8);
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK_SIGNAL};
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (kvm_ioctl(b->fd, KVM_SET_SIGNAL_MASK, &arg) < 0 ||
        timer_create(CLOCK_MONOTONIC, &event, &b->timer) < 0)
        return tv_fail_errno(err, errno, "cannot set a timer for the measurement");
    b->has_timer = true;
    return 0;
}

/* Run the loop `rounds` times, or until the timer rings. Nanoseconds, and how many rounds it did.
 */
static int run_loop(struct bench *b, uint32_t rounds, uint64_t *ns, uint32_t *done,
                    struct tv_error *err)
{
    struct kvm_regs r = {.rip = CODE_AT, .rcx = rounds, .rflags = 2, .rax = 1, .rdx = 1};
    if (kvm_ioctl(b->fd, KVM_SET_REGS, &r) < 0)
        return tv_fail_errno(err, errno, "KVM does not take registers");
    const struct itimerspec limit = {.it_value.tv_nsec = LIMIT_NS};
    timer_settime(b->timer, 0, &limit, NULL);
    uint64_t start = host_ns();
    int result;
    do {
        result = ioctl(b->fd, KVM_RUN, 0);
    } while (result < 0 && errno == EAGAIN);
    *ns = host_ns() - start;
    if (result < 0 && errno != EINTR)
        return tv_fail_errno(err, errno, "KVM does not run code");
    if (result == 0 && b->run->exit_reason != KVM_EXIT_HLT)
        return tv_fail(err, "KVM cannot run a simple loop (exit reason %u)", b->run->exit_reason);
    if (kvm_ioctl(b->fd, KVM_GET_REGS, &r) < 0)
        return tv_fail_errno(err, errno, "KVM does not give registers");
    *done = rounds - (uint32_t)MIN(r.rcx, rounds - 1);
    return 0;
}

static int measure(struct bench *b, double *ns_per_instruction, struct tv_error *err)
{
    uint64_t ns;
    uint32_t rounds;
    if (build(b, err) < 0 || set_timer(b, err) < 0 ||
        run_loop(b, FIRST_ROUNDS, &ns, &rounds, err) < 0)
        return -1;
    /* Entering and the first page fault hide what a fast loop costs. */
    if (ns < FAST_NS && run_loop(b, SECOND_ROUNDS, &ns, &rounds, err) < 0)
        return -1;
    *ns_per_instruction = (double)ns / ((double)rounds * LOOP_INSNS);
    return 0;
}

int kvm_measure(double *ns_per_instruction, struct tv_error *err)
{
    struct bench b = {.dev_fd = -1, .vm_fd = -1, .fd = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
    sigset_t kick, before;
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &kick, &before);

    int result = measure(&b, ns_per_instruction, err);

    if (b.has_timer)
        timer_delete(b.timer);
    const struct timespec zero = {0, 0};
    while (sigtimedwait(&kick, NULL, &zero) > 0)
        ;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (b.run != MAP_FAILED)
        munmap(b.run, b.run_size);
    if (b.ram != MAP_FAILED)
        munmap(b.ram, 2 * PAGE_SIZE);
    if (b.fd >= 0)
        close(b.fd);
    if (b.vm_fd >= 0)
        close(b.vm_fd);
    if (b.dev_fd >= 0)
        close(b.dev_fd);
    return result;
}
