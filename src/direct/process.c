/*
 * Stub processes.
 *
 * A stub is a process with nothing in it but pages of guest RAM, at the addresses where the guest
 * has them, and the few pages of stub.h. Guest code runs on the bare processor there; every way out
 * of it is a signal, whose handler tells the VMM and waits.
 *
 * Why guest code cannot do harm. It is ring-3 code of an unprivileged process. A filter turns each
 * of its system calls into SIGSYS, but for those of an instruction in the code page of the stub.
 * Guest code that has found that page (its address is random) may jump there: futex and
 * rt_sigreturn can do nothing to others, and arch_prctl no more than set the FS and GS bases. After
 * any other call the next instruction looks at
 * `control.running`, which the guest cannot write and which is set whenever its code may run, and
 * raises a signal. The VMM then unmaps everything before the guest goes on (see direct.c). The
 * filter lets no such call touch the stub's own pages. All that the stub writes is taken for the
 * guest's word: registers that a guest could have had.
 */
#include "direct/process.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mem/physmem.h"
#include "util/error.h"
#include "util/thread_bases.h"
#include "util/util.h"

#define SLOT_SHIFT     21 /* a stub has an aligned slot of this size for itself */
#define SLOT_SIZE      (UINT64_C(1) << SLOT_SHIFT)
#define CALL_SIZE_MAX  SLOT_SIZE
/* Guests' programs, libraries and stacks are elsewhere, as a rule. */
#define BASE_LOW       UINT64_C(0x100000000000)
#define BASE_RANGE     UINT64_C(0x300000000000)

/* ---- The filter ---- */

#define DATA(field)    (uint32_t) offsetof(struct seccomp_data, field)
#define HIGH_WORD(at)  ((at) + 4)
#define LOAD(at)       BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (at))
#define EQUAL(k, t, f) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), (t), (f))
#define ABOVE(k, t, f) BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, (k), (t), (f))
#define AND(k)         BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (k))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))

static unsigned make_filter(struct sock_filter *f, uint64_t base)
{
    const uint32_t low = (uint32_t)base, high = (uint32_t)(base >> 32);
    const struct sock_filter filter[] = {
        LOAD(DATA(arch)),
        EQUAL(AUDIT_ARCH_X86_64, 0, 26),
        LOAD(HIGH_WORD(DATA(instruction_pointer))),
        EQUAL(high, 0, 24),
        LOAD(DATA(instruction_pointer)),
        AND(~UINT32_C(0xfff)),
        EQUAL(low, 0, 21),
        LOAD(DATA(nr)),
        EQUAL(SYS_futex, 20, 0),
        EQUAL(SYS_rt_sigreturn, 19, 0),
        EQUAL(SYS_arch_prctl, 14, 0),
        EQUAL(SYS_mmap, 2, 0),
        EQUAL(SYS_munmap, 1, 0),
        EQUAL(SYS_mprotect, 0, 14),
        /* A length of one slot at the most, neither in our slot nor in the one before it. */
        LOAD(HIGH_WORD(DATA(args[1]))),
        EQUAL(0, 0, 12),
        LOAD(DATA(args[1])),
        ABOVE(CALL_SIZE_MAX, 10, 0),
        LOAD(HIGH_WORD(DATA(args[0]))),
        EQUAL(high, 0, 9),
        LOAD(DATA(args[0])),
        AND(~(uint32_t)(SLOT_SIZE - 1)),
        EQUAL(low, 5, 0),
        EQUAL(low - (uint32_t)SLOT_SIZE, 4, 0),
        RETURN(SECCOMP_RET_ALLOW),
        LOAD(DATA(args[0])),
        EQUAL(ARCH_SET_FS, 2, 0),
        EQUAL(ARCH_SET_GS, 1, 0),
        RETURN(SECCOMP_RET_TRAP),
        RETURN(SECCOMP_RET_ALLOW),
    };
    memcpy(f, filter, sizeof filter);
    return ARRAY_SIZE(filter);
}

/* offsetof(struct user, u_debugreg): its header defines other things by our names. */
#define DEBUG_REGISTER(n) (848 + 8 * (n))

/* ---- Becoming a stub ---- */

struct kernel_sigaction {
    uint64_t handler, flags, restorer, mask;
};
#define SA_RESTORER_FLAG UINT64_C(0x04000000)
#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static const uint8_t signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGUSR1};

/* The C library's restartable sequences are in memory that will be gone, and the kernel writes
 * there whenever it preempts us. */
static bool leave_rseq(void)
{
    return !__rseq_size || syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset,
                                   sizeof(struct rseq), RSEQ_FLAG_UNREGISTER, RSEQ_SIG) == 0;
}

/* The child: only system calls from here on. */
static _Noreturn void become_stub(const struct stub *stub, int shared_fd, int ram_fd)
{
    uint64_t at = stub->base;
    void *code = (void *)at; /* NOLINT(performance-no-int-to-ptr) */
    /* Files: guest RAM, nothing else. */
    if (syscall(SYS_dup3, shared_fd, STUB_RAM_FD + 1, 0) < 0 && errno != EINVAL)
        _exit(1);
    if (shared_fd == STUB_RAM_FD || ram_fd == STUB_RAM_FD + 1)
        _exit(1); /* the parent sees to that */
    if (syscall(SYS_dup2, ram_fd, STUB_RAM_FD) < 0)
        _exit(1);
    syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    syscall(SYS_prctl, PR_SET_NAME, "guest-code", 0, 0, 0);
    const struct {
        uint64_t offset, size;
        int protection;
    } parts[] = {
        {0, STUB_CONTROL, PROT_READ | PROT_EXEC},
        {STUB_CONTROL, STUB_REPORT - STUB_CONTROL, PROT_READ},
        {STUB_REPORT, STUB_SIZE - STUB_REPORT, PROT_READ | PROT_WRITE},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        if (syscall(SYS_mmap, at + parts[i].offset, parts[i].size, parts[i].protection,
                    MAP_SHARED | MAP_FIXED_NOREPLACE, STUB_RAM_FD + 1,
                    parts[i].offset) != (long)(at + parts[i].offset))
            _exit(1);
    syscall(SYS_close_range, STUB_RAM_FD + 1, ~0U, 0);
    syscall(SYS_close_range, 0, STUB_RAM_FD - 1, 0);
    stack_t stack = {.ss_sp = (uint8_t *)code + STUB_STACK,
                     .ss_size = STUB_SIZE - STUB_STACK,
                     .ss_flags = (int)SS_AUTODISARM};
    if (syscall(SYS_sigaltstack, &stack, NULL) < 0)
        _exit(1);
    struct kernel_sigaction action = {.handler =
                                          at + (uint64_t)(direct_stub_handler - direct_stub_code),
                                      .flags = SA_SIGINFO | SA_ONSTACK | SA_RESTORER_FLAG,
                                      .restorer = at,
                                      .mask = ~UINT64_C(0)};
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        if (syscall(SYS_rt_sigaction, signals[i], &action, NULL, 8) < 0)
            _exit(1);
    uint64_t none = 0;
    if (!leave_rseq() || syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8) < 0 ||
        syscall(SYS_prctl, PR_SET_TSC, PR_TSC_SIGSEGV, 0, 0, 0) < 0 ||
        syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        _exit(1);
    __asm__ volatile("jmp *%0"
                     :
                     : "r"(at + (uint64_t)(direct_stub_enter - direct_stub_code))
                     : "memory");
    __builtin_unreachable();
}

/* ---- Waiting ---- */

static void futex_wake(const volatile uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Until the stub reports. False: it is gone. */
static bool wait_for_report(struct stub *stub)
{
    const volatile uint32_t *state = &stub_report(stub)->state;
    while (!__atomic_load_n(state, __ATOMIC_ACQUIRE)) {
        const struct timespec limit = {.tv_sec = 1};
        if (syscall(SYS_futex, state, FUTEX_WAIT, 0, &limit, NULL, 0) == 0 || errno != ETIMEDOUT)
            continue;
        if (waitpid(stub->pid, NULL, WNOHANG | __WALL) != 0) {
            stub->pid = 0;
            return false;
        }
    }
    return true;
}

static bool hand_over(struct stub *stub)
{
    struct stub_control *c = stub_control(stub);
    __atomic_store_n((uint32_t *)(void *)(stub->shared + STUB_REPORT), 0, __ATOMIC_RELAXED);
    __atomic_fetch_add(&c->sequence, 1, __ATOMIC_SEQ_CST);
    futex_wake(&c->sequence);
    bool there = wait_for_report(stub);
    c->running = 0;
    c->resume = 0;
    return there;
}

/* ---- Calls ---- */

bool stub_flush(struct stub *stub, bool *failed)
{
    struct stub_control *c = stub_control(stub);
    if (!c->count)
        return true;
    bool there = hand_over(stub);
    c->count = 0;
    if (there && stub_report(stub)->failed)
        *failed = true;
    return there;
}

static bool add_call(struct stub *stub, int64_t number, uint64_t address, uint64_t size,
                     int protection, uint64_t offset)
{
    struct stub_control *c = stub_control(stub);
    bool failed;
    if (c->count == CALLS_MAX && !stub_flush(stub, &failed))
        return false;
    c->calls[c->count++] = (struct stub_call){
        number, {address, size, (uint64_t)protection, MAP_SHARED | MAP_FIXED, STUB_RAM_FD, offset}};
    return true;
}

bool stub_map(struct stub *stub, uint64_t address, uint64_t size, int protection, uint64_t offset)
{
    return add_call(stub, SYS_mmap, address, size, protection, offset);
}

bool stub_protect(struct stub *stub, uint64_t address, uint64_t size, int protection)
{
    return add_call(stub, SYS_mprotect, address, size, protection, 0);
}

bool stub_unmap(struct stub *stub, uint64_t address, uint64_t size)
{
    return add_call(stub, SYS_munmap, address, size, 0, 0);
}

bool stub_resume(struct stub *stub)
{
    struct stub_control *c = stub_control(stub);
    c->resume = 1;
    c->running = 1;
    return hand_over(stub);
}

/* Debug registers belong to debuggers: be one for a moment. They stay as they are. */
bool stub_break_at(struct stub *stub, const uint64_t *sites, unsigned count)
{
    int status;
    uint64_t enable = 0;
    if (ptrace(PTRACE_SEIZE, stub->pid, NULL, NULL) < 0)
        return false;
    bool done = ptrace(PTRACE_INTERRUPT, stub->pid, NULL, NULL) == 0 &&
                waitpid(stub->pid, &status, __WALL) == stub->pid && WIFSTOPPED(status) &&
                ptrace(PTRACE_POKEUSER, stub->pid, DEBUG_REGISTER(7), NULL) == 0;
    for (unsigned i = 0; i < STUB_SITES; i++) {
        stub->sites[i] = i < count ? sites[i] : 0;
        enable |= i < count ? UINT64_C(1) << 2 * i : 0;
        done = done && ptrace(PTRACE_POKEUSER, stub->pid, DEBUG_REGISTER(i), stub->sites[i]) == 0;
    }
    done = done && ptrace(PTRACE_POKEUSER, stub->pid, DEBUG_REGISTER(7), enable) == 0;
    return ptrace(PTRACE_DETACH, stub->pid, NULL, NULL) == 0 && done;
}

void stub_follow(struct stub *stub)
{
    unsigned cpu = (unsigned)sched_getcpu() + 1;
    if (cpu == stub->cpu || cpu == 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu - 1, &set);
    if (sched_setaffinity(stub->pid, sizeof set, &set) == 0)
        stub->cpu = cpu;
}

void stub_roam(struct stub *stub)
{
    cpu_set_t set;
    if (stub->cpu && sched_getaffinity(0, sizeof set, &set) == 0 &&
        sched_setaffinity(stub->pid, sizeof set, &set) == 0)
        stub->cpu = 0;
}

void stub_kick(pid_t pid)
{
    syscall(SYS_tgkill, pid, pid, SIGUSR1);
}

/* ---- Life ---- */

static void fill_shared(struct stub *stub)
{
    memcpy(stub->shared, direct_stub_code, (size_t)(direct_stub_end - direct_stub_code));
    struct stub_control *c = stub_control(stub);
    c->bases_by_call = !host_keeps_bases();
    struct sock_fprog *program = (struct sock_fprog *)(void *)&c->filter;
    struct sock_filter *filter = (struct sock_filter *)(void *)c->calls;
    program->len = (unsigned short)make_filter(filter, stub->base);
    program->filter = (struct sock_filter *)(stub->base + STUB_CONTROL + CONTROL_CALLS); // NOLINT
}

int stub_start(struct stub *stub, const struct physmem *mem, struct tv_error *err)
{
    *stub = (struct stub){.mem = mem};
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return tv_fail_errno(err, errno, "no random number");
    /* Never the first slot of 4 GiB: make_filter() compares words. */
    stub->base = ((BASE_LOW + random % BASE_RANGE) & ~(SLOT_SIZE - 1)) | SLOT_SIZE;
    /* Numbers that become_stub() does not run into. */
    int shared_fd = memfd_create("guest-code", MFD_CLOEXEC);
    int high = shared_fd < 0 ? -1 : fcntl(shared_fd, F_DUPFD_CLOEXEC, 16);
    if (shared_fd >= 0)
        close(shared_fd);
    int ram_fd = high < 0 ? -1 : fcntl(mem->memfd, F_DUPFD_CLOEXEC, 16);
    void *shared = MAP_FAILED;
    if (ram_fd >= 0 && ftruncate(high, STUB_SIZE) == 0)
        shared = mmap(NULL, STUB_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, high, 0);
    int error = errno;
    if (shared != MAP_FAILED) {
        stub->shared = shared;
        fill_shared(stub);
        /* Without CLONE_VM, and without libc's bookkeeping: other threads hold its locks. */
        long pid = syscall(SYS_clone, 0, NULL, NULL, NULL, NULL);
        if (pid == 0)
            become_stub(stub, high, ram_fd);
        error = errno;
        stub->pid = pid > 0 ? (pid_t)pid : 0;
    }
    if (high >= 0)
        close(high);
    if (ram_fd >= 0)
        close(ram_fd);
    if (!stub->pid || !wait_for_report(stub)) {
        stub_end(stub);
        return tv_fail_errno(err, error, "cannot start a process for direct execution");
    }
    return 0;
}

void stub_end(struct stub *stub)
{
    if (stub->pid) {
        kill(stub->pid, SIGKILL);
        waitpid(stub->pid, NULL, __WALL);
    }
    if (stub->shared)
        munmap(stub->shared, STUB_SIZE);
    *stub = (struct stub){0};
}
