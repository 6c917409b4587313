/*
 * The PC: which devices there are and how their lines run.
 *
 *   ISA IRQ n  --+--> 8259 pair, input n ----> INTR of vCPU 0 (through its local APIC's LINT0)
 *                '--> IO-APIC, pin n (IRQ 0: pin 2) ----> local APICs
 *   PCI INTx   --+--> PIRQ routing of the ISA bridge ----> 8259 pair
 *                '--> IO-APIC, pins 16..19
 */
#include "dev/backdoor.h"
#include "dev/debug_exit.h"
#include "dev/debugcon.h"
#include "dev/dma8237.h"
#include "dev/guest_rpc.h"
#include "dev/i8042.h"
#include "dev/ioapic.h"
#include "dev/pci.h"
#include "dev/pic.h"
#include "dev/piix4.h"
#include "dev/pit.h"
#include "dev/port80.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/reset_control.h"
#include "dev/rtc.h"
#include "dev/uart.h"
#include "dev/virtio_rng.h"
#include "dev/vmmouse.h"
#include "util/error.h"
#include "vm/bios.h"
#include "vm/drives.h"
#include "vm/fw_kernel.h"
#include "vm/option_rom.h"
#include "vm/screen.h"
#include "vm/uefi.h"
#include "vm/vm.h"

#define RNG_SLOT 3

static void set_isa_irq(void *opaque, int irq, int level)
{
    struct tv_vm *vm = opaque;
    pic_set_irq(vm->pic, irq, level);
    ioapic_set_irq(vm->ioapic, irq == 0 ? 2 : irq, level);
}

static struct irq_line isa_irq(struct tv_vm *vm, int irq)
{
    return (struct irq_line){set_isa_irq, vm, irq};
}

static bool tick_waits(void *opaque)
{
    struct tv_vm *vm = opaque;
    return ioapic_waits(vm->ioapic, 2) ||
           (pic_waits(vm->pic, 0) && lapics_extint_wired(vm->lapics));
}

static void tick_taken(void *opaque)
{
    struct tv_vm *vm = opaque;
    pit_tick_taken(vm->pit);
}

static void isa_irq_taken(void *opaque, unsigned irq)
{
    if (irq == 0)
        tick_taken(opaque);
}

static void set_extint(void *opaque, int pin, int level)
{
    (void)pin;
    lapics_set_extint(opaque, level);
}

static void call_backdoor(void *opaque, uint64_t *gpr)
{
    struct tv_vm *vm = opaque;
    struct backdoor_call c = {(uint32_t)gpr[RAX], (uint32_t)gpr[RBX], (uint32_t)gpr[RCX],
                              (uint32_t)gpr[RDX], (uint32_t)gpr[RSI], (uint32_t)gpr[RDI]};
    backdoor_call(vm->backdoor, &c);
    gpr[RAX] = c.eax;
    gpr[RBX] = c.ebx;
    gpr[RCX] = c.ecx;
    gpr[RDX] = c.edx;
    gpr[RSI] = c.esi;
    gpr[RDI] = c.edi;
}

/* A PCI interrupt that the ISA bridge routes to an ISA one: systems that know the IO-APIC from the
 * BIOS's MP table alone expect it at that pin. */
static void set_pirq(void *opaque, int irq, int level)
{
    struct tv_vm *vm = opaque;
    pic_set_irq(vm->pic, irq, level);
    if (!vm->boot)
        ioapic_set_irq(vm->ioapic, irq, level);
}

/* A write to 0xfeexxxxx: the destination is in the address, the rest in the data (SDM 10.11). */
static void send_msi(void *lapics, uint64_t address, uint32_t data)
{
    if (address >> 20 != 0xfee)
        return;
    const struct apic_message message = {.destination = (uint32_t)(address >> 12 & 0xff),
                                         .logical = address >> 2 & 1,
                                         .mode = (uint8_t)(data >> 8 & 7),
                                         .vector = (uint8_t)data,
                                         .level = data >> 15 & 1,
                                         .asserted = true};
    lapics_deliver(lapics, &message);
}

static void set_a20(void *mem, int pin, int level)
{
    (void)pin;
    physmem_set_a20(mem, level);
}

static void rtc_alarm(void *opaque)
{
    struct tv_vm *vm = opaque;
    piix4_pm_rtc_alarm(vm->pm);
}

static void quit_from_console(void *vm)
{
    vm_end(vm, TV_EXIT_STOPPED, 0, "%s", "");
}

static const struct {
    uint16_t base;
    int irq;
} serial_ports[] = {{0x3f8, 4}, {0x2f8, 3}};

static int add_option_roms(struct tv_vm *vm, struct pci_bus *pci, struct tv_error *err)
{
    const struct tv_config *c = &vm->config;
    unsigned slot = c->option_rom_slot ? c->option_rom_slot : RNG_SLOT;
    if (c->option_rom && option_rom_add(pci, PCI_DEVFN(slot, 0), c->option_rom, err) < 0)
        return -1;
    return c->uefi && vm->pvscsi ? option_rom_add_pvscsi(pci, PCI_DEVFN(PVSCSI_SLOT, 0), err) : 0;
}

int pc_build(struct tv_vm *vm, struct tv_error *err)
{
    struct device_env *env = &vm->env;
    const struct tv_config *c = &vm->config;
    struct machine *m = &vm->machine;

    vm->isa_irq = isa_irq;
    /* Interrupt controllers first: the lines of all others end there. */
    vm->lapics = lapics_create(env);
    for (unsigned i = 0; i < m->vcpu_count; i++)
        m->vcpus[i]->lapic = lapic_create(vm->lapics, env, i, i == 0, &vcpu_lapic_ops, m->vcpus[i]);
    vm->ioapic = ioapic_create(env, vm->lapics);
    vm->pic = pic_create(env, (struct irq_line){set_extint, vm->lapics, 0});
    lapics_on_extint_ack(vm->lapics, pic_ack, vm->pic);

    vm->pit = pit_create(env, isa_irq(vm, 0));
    pit_on_tick(vm->pit, tick_waits, vm);
    lapics_on_taken(vm->lapics, tick_taken, vm);
    pic_on_ack(vm->pic, isa_irq_taken, vm);
    vm->dma = dma8237_create(env);
    if (!vm->dma)
        return tv_fail(err, "out of memory");
    struct rtc *rtc =
        rtc_create(env, isa_irq(vm, 8), m->mem->low_size, m->mem->size - m->mem->low_size);
    struct port92 *port92 = port92_create(env, (struct irq_line){set_a20, m->mem, 0});
    vm->kbc = i8042_create(env, isa_irq(vm, 1), isa_irq(vm, 12),
                           (struct irq_line){port92_set_kbc_a20, port92, 0});
    const struct backdoor_identity identity = {.tsc_hz = m->clock.tsc_hz,
                                               .apic_hz = APIC_TIMER_HZ,
                                               .x2apic = CPUID_HAS(&m->cpuid, 1, 0, ecx, 21)};
    vm->backdoor = backdoor_create(env, &identity);
    vm->vmmouse = vmmouse_create(env, vm->backdoor, vm->kbc);
    if (!guest_rpc_create(env, vm->backdoor))
        return tv_fail(err, "out of memory");
    m->register_port = call_backdoor;
    m->register_port_opaque = vm;
    port80_create(env);
    debugcon_create(env, DEBUGCON_PORT, NULL);
    debugcon_create(env, DEBUGCON_BIOS_PORT, NULL);
    pvpanic_create(env);

    struct pci_wiring wiring = {0};
    for (int irq = 0; irq < 16; irq++)
        wiring.pic[irq] = (struct irq_line){set_pirq, vm, irq};
    for (int pin = 0; pin < 4; pin++)
        wiring.ioapic[pin] = (struct irq_line){ioapic_set_irq, vm->ioapic, PCI_GSI_BASE + pin};
    wiring.msi = send_msi;
    wiring.msi_opaque = vm->lapics;
    struct pci_bus *pci = pci_create(env, &wiring);
    reset_control_create(env, pci);
    piix4_isa_create(env, pci);
    vm->pm = piix4_pm_create(env, pci, isa_irq(vm, ACPI_SCI_IRQ));
    rtc_on_alarm(rtc, rtc_alarm, vm);

    if (c->uefi)
        piix4_pm_add_base(vm->pm, UEFI_PM_BASE);

    if (screen_create(vm, pci, err) < 0)
        return -1;

    vm->serial = chardev_open(c->serial, c->serial_path, quit_from_console, vm, err);
    if (!vm->serial)
        return -1;
    for (unsigned i = 0; i < ARRAY_SIZE(serial_ports); i++)
        uart_create(env, serial_ports[i].base, isa_irq(vm, serial_ports[i].irq),
                    i == 0 ? vm->serial : NULL);
    if (c->debug_exit_port && !debug_exit_create(env, (uint16_t)c->debug_exit_port, 4) &&
        !debug_exit_create(env, (uint16_t)c->debug_exit_port, 1))
        return tv_fail(err, "--debug-exit %#x: the port belongs to another device",
                       (unsigned)c->debug_exit_port);

    if (!virtio_rng_create(env, pci, PCI_DEVFN(RNG_SLOT, 0)))
        return tv_fail(err, "out of memory");
    if (drives_create(vm, pci, rtc, err) < 0 || add_option_roms(vm, pci, err) < 0)
        return -1;
    if (!c->kernel || fw_kernel_wanted(c))
        return bios_create(vm, pci, rtc, err);

    const struct boot_config boot = {.kernel = c->kernel,
                                     .append = c->append,
                                     .initrds = c->initrds,
                                     .vcpus = c->vcpus,
                                     .mhz = (unsigned)(m->clock.tsc_hz / 1000000),
                                     .text_mode = vm->vga != NULL,
                                     .long_mode = CPUID_HAS(&m->cpuid, 0x80000001, 0, edx, 29)};
    vm->boot = boot_open(&boot, m->mem, err);
    return vm->boot ? 0 : -1;
}

int pc_reset(struct tv_vm *vm, struct tv_error *err)
{
    struct machine *m = &vm->machine;
    pthread_mutex_lock(&vm->device_lock);
    devices_reset(&vm->env);
    pthread_mutex_unlock(&vm->device_lock);
    screen_reset(vm);
    if (vm->bios && bios_set_boot_order(vm, vm->was_up, err) < 0)
        return -1;
    vm->was_up = true;

    struct boot_entry entry;
    if (vm->boot && boot_load(vm->boot, m->mem, &entry, err) < 0)
        return -1;
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        struct vcpu *cpu = m->vcpus[i];
        atomic_fetch_and(&cpu->attention, ATT_STOP | ATT_CACHES);
        cpu_reset(cpu, false);
        if (vm->boot)
            boot_setup_cpu(cpu);
        if (vm->boot && i == 0)
            boot_enter(cpu, &entry);
        cpu_state_changed(cpu);
        if (vm->vcpus[i].started)
            vm->engine->state_changed(cpu);
    }
    if (vm->boot && log_on(&m->log, LOG_RESET))
        log_write(&m->log, LOG_RESET, "power-up: %s entry at %#llx", entry.protocol,
                  (unsigned long long)entry.rip);
    return 0;
}

void pc_power_button(struct tv_vm *vm)
{
    pthread_mutex_lock(&vm->device_lock);
    piix4_pm_power_button(vm->pm);
    pthread_mutex_unlock(&vm->device_lock);
}
