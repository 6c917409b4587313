/*
 * A vCPU's thread: engine, sleep, park.
 *
 * Sleeping is a futex on vcpu.attention. The sleeper announces itself in `sleeping`, then reads
 * attention and waits for it to change from that value; a waker sets its bit, then reads
 * `sleeping`. Both orders are sequentially consistent, so one of them sees the other.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gdb/gdb.h"
#include "util/error.h"
#include "util/look.h"
#include "vm/vm.h"

static struct vcpu_thread *thread_of(struct vcpu *cpu)
{
    struct tv_vm *vm = container_of(cpu->machine, struct tv_vm, machine);
    return &vm->vcpus[cpu->index];
}

void vcpu_wake(struct vcpu *cpu)
{
    struct vcpu_thread *thread = thread_of(cpu);
    if (atomic_load(&thread->sleeping))
        syscall(SYS_futex, &cpu->attention, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    else if (thread->vm->engine->kick)
        thread->vm->engine->kick(cpu);
}

static void on_intr(void *opaque, bool asserted)
{
    struct vcpu *cpu = opaque;
    atomic_store(&cpu->intr_asserted, asserted);
    if (asserted)
        vcpu_notify(cpu, ATT_INTR);
}

static void on_nmi(void *opaque)
{
    vcpu_notify(opaque, ATT_NMI);
}

static void on_smi(void *opaque)
{
    (void)opaque; /* there is no SMM: firmware-less machine, and SMIs are masked as after reset */
}

static void on_init(void *opaque)
{
    vcpu_notify(opaque, ATT_INIT);
}

static void on_sipi(void *opaque, uint8_t vector)
{
    struct vcpu *cpu = opaque;
    atomic_store(&cpu->sipi_vector, vector);
    vcpu_notify(cpu, ATT_SIPI);
}

const struct lapic_cpu_ops vcpu_lapic_ops = {
    .intr = on_intr, .nmi = on_nmi, .smi = on_smi, .init = on_init, .sipi = on_sipi};

/* Sleep until attention has a bit outside `ignore`, or changes. */
static void sleep_on_attention(struct vcpu_thread *thread, uint32_t ignore)
{
    struct vcpu *cpu = thread->cpu;
    atomic_store(&thread->sleeping, true);
    uint32_t seen = atomic_load(&cpu->attention);
    if (!(seen & ~ignore))
        syscall(SYS_futex, &cpu->attention, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_store(&thread->sleeping, false);
}

/* INIT and start-up IPIs (SDM vol. 3, 8.4). */
static void take_init_and_sipi(struct vcpu_thread *thread, uint32_t attention)
{
    struct vcpu *cpu = thread->cpu;
    const struct engine *engine = thread->vm->engine;
    if (attention & ATT_INIT) {
        atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_INIT);
        if (log_on(&cpu->machine->log, LOG_RESET))
            log_write(&cpu->machine->log, LOG_RESET, "cpu%u INIT", cpu->index);
        cpu_reset(cpu, true);
        lapic_init_reset(cpu->lapic);
        cpu->activity = ACTIVITY_WAIT_SIPI;
        engine->state_changed(cpu);
    }
    if (attention & ATT_SIPI) {
        atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_SIPI);
        if (cpu->activity != ACTIVITY_WAIT_SIPI)
            return;
        uint8_t vector = atomic_load(&cpu->sipi_vector);
        if (log_on(&cpu->machine->log, LOG_RESET))
            log_write(&cpu->machine->log, LOG_RESET, "cpu%u SIPI %02x", cpu->index, vector);
        cpu->seg[CS].selector = (uint16_t)(vector << 8);
        cpu->seg[CS].base = (uint64_t)vector << 12;
        cpu->rip = 0;
        cpu->activity = ACTIVITY_RUNNING;
        engine->state_changed(cpu);
    }
}

/* Does anything end a HLT? Interrupts with IF set, NMI, and all that the thread must look at
 * anyway. */
static void sleep_in_halt(struct vcpu_thread *thread)
{
    struct vcpu *cpu = thread->cpu;
    /* Clear before asking: an interrupt that arrives after the question sets the bit anew. */
    uint32_t old = atomic_fetch_and(&cpu->attention, ~(uint32_t)ATT_INTR);
    if ((cpu->rflags & FLAG_IF) && lapic_has_interrupt(cpu->lapic)) {
        atomic_fetch_or(&cpu->attention, ATT_INTR);
        cpu->activity = ACTIVITY_RUNNING;
    } else if ((old & ATT_NMI) && !cpu->nmi_blocked) {
        cpu->activity = ACTIVITY_RUNNING;
    } else {
        uint32_t ignore = ATT_CACHES | (cpu->nmi_blocked ? ATT_NMI : 0);
        uint64_t start = look_for(&thread->halts, &cpu->attention, ~ignore);
        sleep_on_attention(thread, ignore);
        look_learn(&thread->halts, start);
    }
}

/* The debugger lets others run without this one. */
static bool is_frozen(const struct vcpu_thread *thread)
{
    return thread->vm->machine.debug.frozen >> thread->cpu->index & 1;
}

/* Park while the VM is paused. False: the VM ends. */
static bool checkpoint(struct vcpu_thread *thread)
{
    struct tv_vm *vm = thread->vm;
    if (!(atomic_load(&thread->cpu->attention) & ATT_STOP))
        return true;
    pthread_mutex_lock(&vm->lock);
    atomic_fetch_and(&thread->cpu->attention, ~(uint32_t)ATT_STOP);
    thread->parked = true;
    pthread_cond_broadcast(&vm->changed);
    while ((vm->paused || is_frozen(thread)) && !vm->ending)
        pthread_cond_wait(&vm->changed, &vm->lock);
    thread->parked = false;
    bool go_on = !vm->ending;
    pthread_mutex_unlock(&vm->lock);
    return go_on;
}

static void run(struct vcpu_thread *thread)
{
    struct tv_vm *vm = thread->vm;
    struct vcpu *cpu = thread->cpu;
    struct tv_error err = {""};
    switch (vm->engine->run(cpu, &err)) {
    case VCPU_EXIT_ATTENTION:
    case VCPU_EXIT_HALT:
        break;
    case VCPU_EXIT_SHUTDOWN:
        cpu->activity = ACTIVITY_SHUTDOWN;
        if (log_on(&cpu->machine->log, LOG_RESET))
            log_write(&cpu->machine->log, LOG_RESET, "cpu%u triple fault at rip %#llx", cpu->index,
                      (unsigned long long)cpu->rip);
        if (vm->config.no_reboot)
            vm_end(vm, TV_EXIT_TRIPLE_FAULT, 3,
                   "triple fault on vCPU %u at cs:rip %04x:%016llx (run without --no-reboot to "
                   "reset instead)",
                   cpu->index, cpu->seg[CS].selector, (unsigned long long)cpu->rip);
        else
            vm_request(vm, REQUEST_RESET);
        break;
    case VCPU_EXIT_DEBUG:
        pthread_mutex_lock(&vm->lock);
        vm->debug_vcpu = cpu->index;
        vm->paused = true;
        pthread_mutex_unlock(&vm->lock);
        atomic_fetch_or(&cpu->attention, ATT_STOP);
        vm_request(vm, REQUEST_DEBUG_STOP);
        break;
    case VCPU_EXIT_ERROR:
        cpu->activity = ACTIVITY_SHUTDOWN;
        vm_end(vm, TV_EXIT_ERROR, 1, "%s", err.message);
        break;
    }
}

/* A thread that has ended counts as parked: nobody waits for it. */
static void leave(struct vcpu_thread *thread)
{
    pthread_mutex_lock(&thread->vm->lock);
    thread->parked = true;
    pthread_cond_broadcast(&thread->vm->changed);
    pthread_mutex_unlock(&thread->vm->lock);
}

static void *vcpu_main(void *opaque)
{
    struct vcpu_thread *thread = opaque;
    struct tv_vm *vm = thread->vm;
    struct vcpu *cpu = thread->cpu;
    struct tv_error err;

    if (vm->engine->vcpu_init && vm->engine->vcpu_init(cpu, &err) < 0) {
        vm_end(vm, TV_EXIT_ERROR, 1, "%s", err.message);
        leave(thread);
        return NULL;
    }
    while (checkpoint(thread)) {
        uint32_t attention = atomic_load(&cpu->attention);
        if (attention & (ATT_INIT | ATT_SIPI))
            take_init_and_sipi(thread, attention);
        switch (cpu->activity) {
        case ACTIVITY_RUNNING:
            run(thread);
            break;
        case ACTIVITY_HALTED:
            sleep_in_halt(thread);
            break;
        case ACTIVITY_WAIT_SIPI:
        case ACTIVITY_SHUTDOWN:
            sleep_on_attention(thread, ~(uint32_t)(ATT_STOP | ATT_INIT | ATT_SIPI));
            break;
        }
    }
    leave(thread);
    return NULL;
}

int vcpu_threads_start(struct tv_vm *vm, struct tv_error *err)
{
    for (unsigned i = 0; i < vm->machine.vcpu_count; i++) {
        struct vcpu_thread *thread = &vm->vcpus[i];
        int error = pthread_create(&thread->thread, NULL, vcpu_main, thread);
        if (error)
            return tv_fail_errno(err, error, "cannot create a thread for vCPU %u", i);
        thread->started = true;
        char name[16];
        snprintf(name, sizeof name, "vcpu%u", i % 1000);
        pthread_setname_np(thread->thread, name);
    }
    return 0;
}

static void notify_all(struct tv_vm *vm)
{
    for (unsigned i = 0; i < vm->machine.vcpu_count; i++)
        if (vm->vcpus[i].started)
            vcpu_notify(vm->vcpus[i].cpu, ATT_STOP);
}

static bool all_parked(const struct tv_vm *vm)
{
    for (unsigned i = 0; i < vm->machine.vcpu_count; i++)
        if (vm->vcpus[i].started && !vm->vcpus[i].parked)
            return false;
    return true;
}

void vcpu_threads_park(struct tv_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->paused = true;
    notify_all(vm);
    while (!all_parked(vm) && !vm->ending)
        pthread_cond_wait(&vm->changed, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
    vclock_pause(&vm->machine.clock);
    timers_kick(vm->env.timers);
}

void vcpu_threads_release(struct tv_vm *vm)
{
    vclock_resume(&vm->machine.clock);
    timers_kick(vm->env.timers);
    pthread_mutex_lock(&vm->lock);
    vm->paused = false;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

void vcpu_threads_join(struct tv_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->ending = true;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
    notify_all(vm);
    for (unsigned i = 0; i < vm->machine.vcpu_count; i++) {
        if (vm->vcpus[i].started)
            pthread_join(vm->vcpus[i].thread, NULL);
        vm->vcpus[i].started = false;
    }
}
