#include "cpu/register_port.h"

#include "cpu/machine.h"

bool register_port_in(struct machine *m, uint16_t port, unsigned size, uint64_t *gpr)
{
    if (port != REGISTER_PORT || size != 4 || (uint32_t)gpr[RAX] != REGISTER_PORT_MAGIC ||
        !m->register_port)
        return false;
    m->register_port(m->register_port_opaque, gpr);
    return true;
}
