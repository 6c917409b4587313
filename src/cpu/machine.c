#include "cpu/machine.h"

#include <inttypes.h>

uint32_t machine_in(struct machine *m, uint16_t port, unsigned size)
{
    uint32_t value = (uint32_t)bus_read(&m->pio, port, size);
    if (log_on(&m->log, LOG_IO))
        log_write(&m->log, LOG_IO, "in  %04x/%u = %x", port, size, value);
    return value;
}

void machine_out(struct machine *m, uint16_t port, unsigned size, uint32_t value)
{
    if (log_on(&m->log, LOG_IO))
        log_write(&m->log, LOG_IO, "out %04x/%u = %x", port, size, value);
    bus_write(&m->pio, port, size, value);
}

uint64_t machine_mmio_read(struct machine *m, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    if (physmem_mmio_read(m->mem, gpa, &value, size))
        return value;
    value = bus_read(&m->mmio, gpa, size);
    if (log_on(&m->log, LOG_MMIO))
        log_write(&m->log, LOG_MMIO, "read  %" PRIx64 "/%u = %" PRIx64, gpa, size, value);
    return value;
}

void machine_mmio_write(struct machine *m, uint64_t gpa, unsigned size, uint64_t value)
{
    if (physmem_mmio_write(m->mem, gpa, &value, size))
        return;
    if (log_on(&m->log, LOG_MMIO))
        log_write(&m->log, LOG_MMIO, "write %" PRIx64 "/%u = %" PRIx64, gpa, size, value);
    bus_write(&m->mmio, gpa, size, value);
}

uint64_t cpu_read_tsc(const struct vcpu *cpu)
{
    return vclock_tsc(&cpu->machine->clock) + cpu->tsc_offset;
}
