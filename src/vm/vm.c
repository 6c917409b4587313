/* The public API: the life of a VM from configuration to tear-down, and the supervisor thread. */
#include "vm/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bt/options.h"
#include "bt/perf_map.h"
#include "gdb/gdb.h"
#include "mgmt/monitor.h"
#include "util/error.h"
#include "vm/boot_order.h"
#include "vm/drives.h"
#include "vm/modes.h"
#include "vm/screen.h"
#include "vm/uefi.h"

#define DEFAULT_MEMORY (UINT64_C(128) << 20)
#define MEMORY_MAX     (UINT64_C(1) << 40)
#define MIB            (UINT64_C(1) << 20)
#define SPACE_SECONDS  1 /* between two looks whether the host has space again */

const char *tv_version(void)
{
    return TRIVISOR_VERSION;
}

void vm_request(struct tv_vm *vm, unsigned request)
{
    pthread_mutex_lock(&vm->lock);
    vm->requests |= request;
    pthread_cond_broadcast(&vm->changed);
    pthread_mutex_unlock(&vm->lock);
}

void vm_end(struct tv_vm *vm, enum tv_exit_reason reason, int status, const char *fmt, ...)
{
    pthread_mutex_lock(&vm->lock);
    if (!(vm->requests & REQUEST_END) && !vm->ended) {
        va_list ap;
        va_start(ap, fmt);
        vm->exit.reason = reason;
        vm->exit.status = status;
        vsnprintf(vm->exit.message, sizeof vm->exit.message, fmt, ap);
        va_end(ap);
        vm->requests |= REQUEST_END;
        pthread_cond_broadcast(&vm->changed);
    }
    pthread_mutex_unlock(&vm->lock);
}

/* ---- What devices and the debugger ask for ---- */

static void on_reset(void *opaque, const char *why)
{
    struct tv_vm *vm = opaque;
    if (log_on(&vm->machine.log, LOG_RESET))
        log_write(&vm->machine.log, LOG_RESET, "reset: %s", why);
    if (vm->config.no_reboot)
        vm_end(vm, TV_EXIT_RESET, 3, "the guest asked for a reset (%s) and --no-reboot is set",
               why);
    else
        vm_request(vm, REQUEST_RESET);
}

static void on_poweroff(void *opaque)
{
    vm_end(opaque, TV_EXIT_POWEROFF, 0, "%s", "");
}

static void on_exit_request(void *opaque, int status)
{
    vm_end(opaque, TV_EXIT_DEBUG_EXIT, status, "%s", "");
}

static void on_panic(void *opaque, const char *notice)
{
    struct tv_vm *vm = opaque;
    if (vm->config.on_panic == TV_PANIC_EXIT)
        vm_end(vm, TV_EXIT_PANIC, 4, "%s", notice);
    else if (vm->config.notify)
        vm->config.notify(vm->config.notify_opaque, notice);
}

/* Device lock held, or no vCPU runs. */
static void on_memory_changed(void *opaque)
{
    struct tv_vm *vm = opaque;
    struct machine *m = &vm->machine;
    if (vm->engine->memory_changed) {
        if (vm->engine_ready)
            vm->engine->memory_changed(m);
        return;
    }
    for (unsigned i = 0; i < m->vcpu_count; i++)
        vcpu_notify(m->vcpus[i], ATT_MEMORY);
}

static int gdb_pause(void *vm)
{
    return tv_vm_pause(vm, NULL);
}
static int gdb_resume(void *vm)
{
    return tv_vm_resume(vm, NULL);
}
static void gdb_quit(void *vm)
{
    vm_end(vm, TV_EXIT_STOPPED, 0, "%s", "");
}
static void gdb_reset(void *vm)
{
    vm_request(vm, REQUEST_RESET);
}

static void gdb_state_changed(struct vcpu *cpu)
{
    struct tv_vm *vm = container_of(cpu->machine, struct tv_vm, machine);
    vm->engine->state_changed(cpu);
}

static const struct gdb_vm_ops gdb_ops = {.pause = gdb_pause,
                                          .resume = gdb_resume,
                                          .quit = gdb_quit,
                                          .reset = gdb_reset,
                                          .state_changed = gdb_state_changed};

/* ---- Supervisor ---- */

static void park(struct tv_vm *vm)
{
    pthread_mutex_lock(&vm->park_lock);
    vcpu_threads_park(vm);
    pthread_mutex_unlock(&vm->park_lock);
}

static void reset_machine(struct tv_vm *vm)
{
    struct tv_error err;
    pthread_mutex_lock(&vm->park_lock);
    bool was_paused = vm->paused;
    vcpu_threads_park(vm);
    if (pc_reset(vm, &err) < 0)
        vm_end(vm, TV_EXIT_ERROR, 1, "%s", err.message);
    if (!was_paused)
        vcpu_threads_release(vm);
    pthread_mutex_unlock(&vm->park_lock);
}

/* A write found no space on the host: all vCPUs park; the supervisor tries again now and then. */
static void pause_for_space(struct tv_vm *vm)
{
    pthread_mutex_lock(&vm->park_lock);
    pthread_mutex_lock(&vm->lock);
    vm->paused_before = vm->paused;
    vm->waits_for_space = true;
    pthread_mutex_unlock(&vm->lock);
    vcpu_threads_park(vm);
    pthread_mutex_unlock(&vm->park_lock);
}

static void try_for_space(struct tv_vm *vm)
{
    if (!drives_retry(vm))
        return;
    if (vm->config.notify)
        vm->config.notify(vm->config.notify_opaque, "there is space on the host again; going on");
    pthread_mutex_lock(&vm->park_lock);
    pthread_mutex_lock(&vm->lock);
    vm->waits_for_space = vm->out_of_space = false;
    bool go_on = !vm->paused_before;
    pthread_mutex_unlock(&vm->lock);
    if (go_on)
        vcpu_threads_release(vm);
    pthread_mutex_unlock(&vm->park_lock);
}

/* With vm->lock: wait until somebody changes something. False: it is time to try for space. */
static bool wait_for_change(struct tv_vm *vm)
{
    struct timespec until;
    if (!vm->waits_for_space) {
        pthread_cond_wait(&vm->changed, &vm->lock);
        return true;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += SPACE_SECONDS;
    return pthread_cond_timedwait(&vm->changed, &vm->lock, &until) != ETIMEDOUT;
}

static void *supervisor_main(void *opaque)
{
    struct tv_vm *vm = opaque;
    pthread_mutex_lock(&vm->lock);
    while (!vm->ended) {
        unsigned requests = vm->requests;
        if (!requests) {
            if (!wait_for_change(vm)) {
                pthread_mutex_unlock(&vm->lock);
                try_for_space(vm);
                pthread_mutex_lock(&vm->lock);
            }
            continue;
        }
        vm->requests &= REQUEST_END;
        pthread_mutex_unlock(&vm->lock);
        if (requests & REQUEST_END) {
            vcpu_threads_join(vm);
            pthread_mutex_lock(&vm->lock);
            vm->ended = true;
            pthread_cond_broadcast(&vm->changed);
            continue;
        }
        if (requests & REQUEST_RESET)
            reset_machine(vm);
        if (requests & REQUEST_NO_SPACE)
            pause_for_space(vm);
        if (requests & REQUEST_DEBUG_STOP) {
            park(vm);
            gdb_vcpu_stopped(vm->gdb, vm->debug_vcpu);
        }
        pthread_mutex_lock(&vm->lock);
    }
    pthread_mutex_unlock(&vm->lock);
    return NULL;
}

/* ---- Configuration ---- */

static char *copy_string(const char *text)
{
    return text ? strdup(text) : NULL;
}

static void free_config(struct tv_config *c)
{
    free((char *)c->cpu_model);
    free((char *)c->bt_opt);
    free((char *)c->kernel);
    free((char *)c->append);
    free((char *)c->bios);
    free((char *)c->uefi_vars);
    free((char *)c->boot);
    free((char *)c->option_rom);
    for (size_t i = 0; i < c->drive_count; i++) {
        free((char *)c->drives[i].path);
        free((char *)c->drives[i].format);
    }
    free((void *)c->drives);
    free((char *)c->serial_path);
    free((char *)c->log);
    free((char *)c->perf_map);
    free((char *)c->symbols);
    free((char *)c->gdb);
    free((char *)c->monitor);
    free((char *)c->display_address);
    free((char *)c->vnc_password);
    free((char *)c->vnc_password_text);
    free((char *)c->name);
    free((char *)c->keyboard);
    for (size_t i = 0; c->initrds && c->initrds[i]; i++)
        free((char *)c->initrds[i]);
    free((void *)c->initrds);
}

static void copy_config(struct tv_config *to, const struct tv_config *from)
{
    *to = *from;
    to->cpu_model = copy_string(from->cpu_model ? from->cpu_model : "host");
    to->kernel = copy_string(from->kernel);
    to->append = copy_string(from->append ? from->append : "");
    to->serial_path = copy_string(from->serial_path);
    to->log = copy_string(from->log);
    to->perf_map = copy_string(from->perf_map);
    to->symbols = copy_string(from->symbols);
    to->bt_opt = copy_string(from->bt_opt);
    to->gdb = copy_string(from->gdb);
    to->monitor = copy_string(from->monitor);
    to->display_address = copy_string(from->display_address);
    to->vnc_password = copy_string(from->vnc_password);
    to->vnc_password_text = copy_string(from->vnc_password_text);
    to->name = copy_string(from->name ? from->name : "Trivisor");
    to->keyboard = copy_string(from->keyboard);
    to->bios = copy_string(from->bios);
    to->uefi_vars = copy_string(from->uefi_vars);
    to->boot = copy_string(from->boot);
    to->option_rom = copy_string(from->option_rom);
    struct tv_drive *drives = calloc(from->drive_count + 1, sizeof *drives);
    to->drive_count = drives ? from->drive_count : 0;
    for (size_t i = 0; i < to->drive_count; i++) {
        drives[i] = from->drives[i];
        drives[i].path = copy_string(from->drives[i].path);
        drives[i].format = copy_string(from->drives[i].format);
    }
    to->drives = drives;
    size_t count = 0;
    while (from->initrds && from->initrds[count])
        count++;
    const char **list = calloc(count + 1, sizeof *list);
    for (size_t i = 0; list && i < count; i++)
        list[i] = copy_string(from->initrds[i]);
    to->initrds = list;
    if (!to->memory_size)
        to->memory_size = DEFAULT_MEMORY;
    if (!to->vcpus)
        to->vcpus = 1;
}

static int check_config(const struct tv_config *c, struct tv_error *err)
{
    if (!c->kernel && !c->bios && !c->uefi && !c->drive_count)
        return tv_fail(err, "no kernel given; use --kernel FILE, or boot with --disk, --cdrom or "
                            "--floppy FILE");
    struct boot_choice boot;
    if (boot_choice_parse(c, &boot, err) < 0)
        return -1;
    if (c->memory_size % MIB || c->memory_size < MIB || c->memory_size > MEMORY_MAX)
        return tv_fail(err,
                       "memory of %" PRIu64 " bytes: want a whole number of MiB, from 1M to 1T",
                       c->memory_size);
    if (c->vcpus > VCPUS_MAX)
        return tv_fail(err, "%u CPUs: at most %d are possible", c->vcpus, VCPUS_MAX);
    if (c->tcache && (c->tcache < BT_TCACHE_MIN || c->tcache > BT_TCACHE_MAX))
        return tv_fail(err, "translation cache of %" PRIu64 " bytes: want 256K to 1G", c->tcache);
    if (c->debug_exit_port < 0 || c->debug_exit_port > 0xffff)
        return tv_fail(err, "debug-exit port %#x: want 1 to 0xffff", (unsigned)c->debug_exit_port);
    return 0;
}

/* ---- Life ---- */

static int create_vcpus(struct tv_vm *vm, struct tv_error *err)
{
    struct machine *m = &vm->machine;
    m->vcpu_count = vm->config.vcpus;
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        struct vcpu *cpu = vcpu_create(m, i);
        if (!cpu)
            return tv_fail(err, "out of memory");
        cpu->wake = vcpu_wake;
        m->vcpus[i] = cpu;
        vm->vcpus[i].cpu = cpu;
        vm->vcpus[i].vm = vm;
    }
    return 0;
}

static int build(struct tv_vm *vm, struct tv_error *err)
{
    struct machine *m = &vm->machine;
    const struct tv_config *c = &vm->config;

    if (check_config(c, err) < 0)
        return -1;
    if (c->log && log_open(&m->log, c->log, err) < 0)
        return -1;

    enum tv_mode wanted = c->mode == TV_MODE_AUTO ? c->require : c->mode;
    if (c->require != TV_MODE_AUTO && wanted != c->require)
        return tv_fail(err, "--mode and --require name different modes");
    enum tv_mode mode = modes_choose(wanted, vm->mode_line, sizeof vm->mode_line, err);
    if (mode == TV_MODE_AUTO)
        return -1;
    vm->engine = modes_engine(mode);

    m->verify = c->verify;
    m->count = c->count;
    if (c->verify && !c->log && log_open(&m->log, "verify:-", err) < 0)
        return -1;
    if (c->verify)
        m->log.mask |= 1u << LOG_VERIFY;
    m->tcache = c->tcache;
    if (c->perf_map && mode != TV_MODE_BT)
        return tv_fail(err, "--log perfmap: this mode translates nothing; add --mode bt");
    if (c->perf_map &&
        !(m->perf_map = perf_map_create(c->perf_map[0] ? c->perf_map : NULL, c->symbols, err)))
        return -1;
    if (c->bt_opt && bt_parse_options(c->bt_opt, &m->bt_off, err) < 0)
        return -1;
    vclock_init(&m->clock);
    bus_init(&m->pio, &vm->device_lock);
    bus_init(&m->mmio, &vm->device_lock);
    if (cpuid_build(&m->cpuid, c->cpu_model, mode == TV_MODE_HW ? CPUID_FOR_KVM : CPUID_FOR_INTERP,
                    c->vcpus, m->clock.tsc_hz, err) < 0)
        return -1;
    cpuid_set_hypervisor(&m->cpuid, c->hypervisor, m->clock.tsc_hz);
    m->mem = physmem_create(c->memory_size, c->vcpus > 1, err);
    if (!m->mem || create_vcpus(vm, err) < 0)
        return -1;
    m->mem->changed = on_memory_changed;
    m->mem->changed_opaque = vm;

    vm->env = (struct device_env){.pio = &m->pio,
                                  .mmio = &m->mmio,
                                  .mem = m->mem,
                                  .clock = &m->clock,
                                  .log = &m->log,
                                  .lock = &vm->device_lock,
                                  .request_reset = on_reset,
                                  .request_poweroff = on_poweroff,
                                  .request_exit = on_exit_request,
                                  .guest_panicked = on_panic,
                                  .vm = vm};
    vm->env.timers = timers_create(&m->clock, &vm->device_lock);
    if (!vm->env.timers)
        return tv_fail(err, "out of memory");
    if (pc_build(vm, err) < 0)
        return -1;
    if (vm->engine->machine_init && vm->engine->machine_init(m, err) < 0)
        return -1;
    vm->engine_ready = true;
    return pc_reset(vm, err);
}

struct tv_vm *tv_vm_create(const struct tv_config *config, struct tv_error *err)
{
    struct tv_vm *vm = calloc(1, sizeof *vm);
    if (!vm) {
        tv_fail(err, "out of memory");
        return NULL;
    }
    pthread_mutex_init(&vm->lock, NULL);
    pthread_mutex_init(&vm->park_lock, NULL);
    pthread_mutex_init(&vm->media_lock, NULL);
    pthread_mutex_init(&vm->device_lock, NULL);
    pthread_cond_init(&vm->changed, NULL);
    copy_config(&vm->config, config);
    if (build(vm, err) < 0) {
        tv_vm_destroy(vm);
        return NULL;
    }
    return vm;
}

const char *tv_vm_mode_line(const struct tv_vm *vm)
{
    return vm->mode_line;
}

const char *tv_vm_serial_name(const struct tv_vm *vm)
{
    return vm->serial ? chardev_name(vm->serial) : NULL;
}

int tv_vm_start(struct tv_vm *vm, struct tv_error *err)
{
    if (timers_start(vm->env.timers, err) < 0)
        return -1;
    /* With a debugger, the vCPUs start parked. */
    vm->paused = vm->config.gdb != NULL;
    if (vm->paused)
        for (unsigned i = 0; i < vm->machine.vcpu_count; i++)
            atomic_fetch_or(&vm->machine.vcpus[i]->attention, ATT_STOP);
    if (vcpu_threads_start(vm, err) < 0) {
        vcpu_threads_join(vm);
        return -1;
    }
    int error = pthread_create(&vm->supervisor, NULL, supervisor_main, vm);
    if (error) {
        vcpu_threads_join(vm);
        return tv_fail_errno(err, error, "cannot create the supervisor thread");
    }
    vm->supervisor_started = true;
    if (vm->config.gdb) {
        park(vm);
        vm->gdb = gdb_create(&vm->machine, vm->config.gdb, &gdb_ops, vm, err);
        if (!vm->gdb)
            return -1;
    }
    if (vm->config.monitor && !(vm->monitor = monitor_open(vm, vm->config.monitor, err)))
        return -1;
    return 0;
}

void tv_vm_wait(struct tv_vm *vm, struct tv_exit *out)
{
    pthread_mutex_lock(&vm->lock);
    while (!vm->ended)
        pthread_cond_wait(&vm->changed, &vm->lock);
    *out = vm->exit;
    pthread_mutex_unlock(&vm->lock);
}

void tv_vm_stop(struct tv_vm *vm)
{
    vm_end(vm, TV_EXIT_STOPPED, 0, "%s", "");
}

/* Is it paused for want of space? Then it is, or is not, to stay so afterwards. */
static bool paused_for_space(struct tv_vm *vm, bool afterwards)
{
    pthread_mutex_lock(&vm->lock);
    bool waits = vm->waits_for_space;
    if (waits)
        vm->paused_before = afterwards;
    pthread_mutex_unlock(&vm->lock);
    return waits;
}

int tv_vm_pause(struct tv_vm *vm, struct tv_error *err)
{
    (void)err;
    pthread_mutex_lock(&vm->park_lock);
    if (!paused_for_space(vm, true))
        vcpu_threads_park(vm);
    pthread_mutex_unlock(&vm->park_lock);
    return 0;
}

int tv_vm_resume(struct tv_vm *vm, struct tv_error *err)
{
    (void)err;
    pthread_mutex_lock(&vm->park_lock);
    if (!paused_for_space(vm, false))
        vcpu_threads_release(vm);
    pthread_mutex_unlock(&vm->park_lock);
    return 0;
}

int tv_vm_change_medium(struct tv_vm *vm, const char *drive, const struct tv_drive *medium,
                        bool force, struct tv_error *err)
{
    int number = boot_drive_named(&vm->config, drive, err);
    return number < 0 ? -1 : drives_change(vm, (size_t)number, medium, force, err);
}

void tv_vm_reset(struct tv_vm *vm)
{
    vm_request(vm, REQUEST_RESET);
}

void tv_vm_power_button(struct tv_vm *vm)
{
    pc_power_button(vm);
}

void tv_vm_print_stats(struct tv_vm *vm, FILE *out)
{
    if (vm->engine->print_stats)
        vm->engine->print_stats(&vm->machine, out);
}

void tv_vm_destroy(struct tv_vm *vm)
{
    if (!vm)
        return;
    if (vm->supervisor_started) {
        tv_vm_stop(vm);
        pthread_join(vm->supervisor, NULL);
    }
    monitor_close(vm->monitor);
    gdb_destroy(vm->gdb);
    /* Timers go before the devices that they call, the console before the UART that it feeds. */
    timers_destroy(vm->env.timers);
    chardev_close(vm->serial);
    screen_stop(vm);
    drives_drain(vm);
    devices_destroy(&vm->env);
    drives_close(vm);
    uefi_close_variables(vm);
    free(vm->bios);
    screen_destroy(vm);
    for (unsigned i = 0; vm->engine_ready && i < vm->machine.vcpu_count; i++)
        if (vm->engine->vcpu_fini)
            vm->engine->vcpu_fini(vm->machine.vcpus[i]);
    if (vm->engine_ready && vm->engine->machine_fini)
        vm->engine->machine_fini(&vm->machine);
    boot_image_free(vm->boot);
    for (unsigned i = 0; i < VCPUS_MAX; i++)
        vcpu_destroy(vm->machine.vcpus[i]);
    physmem_destroy(vm->machine.mem);
    perf_map_free(vm->machine.perf_map);
    log_close(&vm->machine.log);
    free_config(&vm->config);
    pthread_cond_destroy(&vm->changed);
    pthread_mutex_destroy(&vm->device_lock);
    pthread_mutex_destroy(&vm->media_lock);
    pthread_mutex_destroy(&vm->park_lock);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}
