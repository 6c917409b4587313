#include "device.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "util/util.h"

#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size)                                                        \
    do {                                                                                           \
    } while (0)
#endif

#define TIME_MAX   (UINT64_C(16) << 20)
#define UNSEEN_MAX (UINT64_C(1) << 36)
#define LOOKS_MAX  2
#define RESETS_MAX 8
#define LARGE      (128u * 128) /* pixels */

const size_t fuzz_unit = sizeof(struct fuzz_op);
_Static_assert(sizeof(struct fuzz_op) == 16, "inputs are made of these");

static struct fuzz_machine f;
static unsigned looks, resets; /* of this input */

uint8_t *__real_physmem_extra(struct physmem *mem, uint64_t size);
uint8_t *__wrap_physmem_extra(struct physmem *mem, uint64_t size);

/* Devices' memory, with pages between that nobody may touch. */
uint8_t *__wrap_physmem_extra(struct physmem *mem, uint64_t size)
{
    uint8_t *gap = __real_physmem_extra(mem, PAGE_SIZE);
    uint8_t *at = __real_physmem_extra(mem, size);
    if (gap)
        ASAN_POISON_MEMORY_REGION(gap, PAGE_SIZE);
    return at;
}

/* ---- What targets use ---- */

static struct fuzz_range *add_range(struct fuzz_machine *m, struct fuzz_range range)
{
    if (m->range_count == FUZZ_RANGES)
        abort();
    m->ranges[m->range_count] = range;
    return &m->ranges[m->range_count++];
}

void fuzz_ports(struct fuzz_machine *m, uint16_t base, unsigned size)
{
    add_range(m, (struct fuzz_range){.kind = RANGE_PORTS, .base = base, .size = size});
}

void fuzz_memory(struct fuzz_machine *m, uint64_t base, uint64_t size)
{
    add_range(m, (struct fuzz_range){.kind = RANGE_MEMORY, .base = base, .size = size});
}

void fuzz_config(struct fuzz_machine *m, unsigned devfn)
{
    add_range(m, (struct fuzz_range){.kind = RANGE_CONFIG, .base = devfn, .size = 256});
}

void fuzz_calls(struct fuzz_machine *m, uint64_t size, uint64_t (*read)(uint64_t, unsigned),
                void (*write)(uint64_t, unsigned, uint64_t))
{
    add_range(m, (struct fuzz_range){RANGE_CALLS, 0, size, read, write});
}

void fuzz_bar(struct fuzz_machine *m, unsigned devfn, unsigned bar, bool io, uint32_t base,
              uint64_t size)
{
    if (m->bar_count == FUZZ_BARS)
        abort();
    m->bars[m->bar_count].devfn = devfn;
    m->bars[m->bar_count].bar = bar;
    m->bars[m->bar_count++].base = base;
    if (size)
        add_range(m, (struct fuzz_range){
                         .kind = io ? RANGE_PORTS : RANGE_MEMORY, .base = base, .size = size});
}

struct irq_line fuzz_irq(struct fuzz_machine *m, unsigned irq)
{
    return fake_line(&m->irqs[irq]);
}

void fuzz_display(struct fuzz_machine *m, const struct display_ops *ops, void *adapter)
{
    m->display = display_create(&m->machine.lock);
    m->viewer = m->display ? display_viewer_add(m->display) : NULL;
    if (!m->viewer)
        exit(1);
    display_attach(m->display, ops, adapter);
    m->display_ops = ops;
    m->adapter = adapter;
}

/* A large picture of the frame buffer is not worth converting each time: its lines' ends will do.
 */
static bool large_picture(struct fuzz_machine *m)
{
    static struct display_linear l;
    pthread_mutex_lock(&m->machine.lock);
    bool linear = m->display_ops->refresh(m->adapter, m->display, &l);
    pthread_mutex_unlock(&m->machine.lock);
    if (!linear || l.width * l.height < LARGE)
        return false;
    if (l.width > DISPLAY_MAX_WIDTH || l.height > DISPLAY_MAX_HEIGHT)
        abort();
    volatile const uint8_t *line = l.base;
    for (unsigned y = 0; y < l.height; y++, line += l.pitch)
        (void)(line[0] | line[l.pitch - 1]);
    return true;
}

void fuzz_look(struct fuzz_machine *m)
{
    static struct display_damage damage;
    if (looks++ >= LOOKS_MAX || (large_picture(m) && m->looks++ % 64))
        return;
    display_refresh(m->display);
    display_lock(m->display);
    unsigned width, height;
    const uint32_t *pixels = display_pixels(m->display, &width, &height);
    if (width > DISPLAY_MAX_WIDTH || height > DISPLAY_MAX_HEIGHT || !pixels)
        abort();
    if (display_take_damage(m->display, m->viewer, &damage))
        for (unsigned i = 0; i < DISPLAY_BANDS; i++)
            if (damage.right[i] > width)
                abort();
    const struct display_cursor *c = display_cursor(m->display);
    if (c->width > DISPLAY_CURSOR_MAX || c->height > DISPLAY_CURSOR_MAX)
        abort();
    display_unlock(m->display);
}

void seed_op(struct fuzz_list *list, enum fuzz_op_kind kind, unsigned range, unsigned size,
             unsigned repeat, uint32_t offset, uint64_t value)
{
    if (list->count == list->max)
        return;
    list->ops[list->count++] = (struct fuzz_op){
        (uint8_t)kind,   (uint8_t)range, (uint8_t)(size == 8 ? 3 : size == 4 ? 2 : size - 1),
        (uint8_t)repeat, offset,         value};
}

/* ---- The machine ---- */

static void message(void *opaque, uint64_t address, uint32_t data)
{
    ((struct fuzz_machine *)opaque)->messages++;
}

static void build(void)
{
    struct tv_error err;
    fake_machine_init(&f.machine);
    f.mem = physmem_create(FUZZ_RAM, false, &err);
    if (!f.mem)
        exit(1);
    f.machine.env.mem = f.mem;
    f.machine.log.file = fopen("/dev/null", "w");
    struct pci_wiring wiring = {.msi = message, .msi_opaque = &f};
    for (unsigned i = 0; i < 16; i++)
        wiring.pic[i] = fake_line(&f.irqs[i]);
    for (int i = 0; i < 4; i++)
        wiring.ioapic[i] = fake_line(&f.line);
    f.pci = pci_create(&f.machine.env, &wiring);
    fuzz_device.create(&f);
    ASAN_POISON_MEMORY_REGION(f.mem->ram + f.mem->size + f.mem->extra_used,
                              EXTRA_MAX - f.mem->extra_used);
}

static void config_access(unsigned devfn, unsigned offset, unsigned size, bool write,
                          uint64_t *value)
{
    offset &= 0xff & ~(size - 1);
    bus_write(&f.machine.pio, 0xcf8, 4, 0x80000000u | devfn << 8 | (offset & ~3u));
    if (write)
        bus_write(&f.machine.pio, 0xcfc + (offset & 3), size, *value);
    else
        *value = bus_read(&f.machine.pio, 0xcfc + (offset & 3), size);
}

/* As firmware leaves it. */
static void map_bars(void)
{
    for (unsigned i = 0; i < f.bar_count; i++) {
        uint64_t base = f.bars[i].base,
                 command = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
        config_access(f.bars[i].devfn, PCI_BAR0 + 4 * f.bars[i].bar, 4, true, &base);
        config_access(f.bars[i].devfn, PCI_COMMAND, 2, true, &command);
    }
}

#define CAPABILITY_MSI  0x05
#define CAPABILITY_MSIX 0x11

static void enable_messages(unsigned devfn)
{
    uint64_t at = 0, head = 0;
    config_access(devfn, PCI_CAPABILITIES, 1, false, &at);
    for (unsigned i = 0; at && i < 16; i++, at = head >> 8 & 0xff) {
        config_access(devfn, (unsigned)at, 4, false, &head);
        uint64_t value = head | ((head & 0xff) == CAPABILITY_MSIX  ? 1u << 31
                                 : (head & 0xff) == CAPABILITY_MSI ? 1u << 16
                                                                   : 0);
        config_access(devfn, (unsigned)at, 4, true, &value);
    }
}

static void reset(void)
{
    pthread_mutex_lock(&f.machine.lock);
    devices_reset(&f.machine.env);
    pthread_mutex_unlock(&f.machine.lock);
    map_bars();
}

static void guest_access(const struct fuzz_range *r, const struct fuzz_op *op, bool write)
{
    unsigned size = 1u << (op->size & 3);
    uint64_t offset = op->offset % r->size, value = op->value;
    uint64_t address = r->base + offset;
    switch (r->kind) {
    case RANGE_PORTS:
        size = MIN(size, 4u);
        if (write)
            bus_write(&f.machine.pio, address, size, value & bytes_mask(size));
        else
            bus_read(&f.machine.pio, address, size);
        break;
    case RANGE_MEMORY: {
        uint8_t *host =
            write ? physmem_host_write(f.mem, address, size) : physmem_host(f.mem, address, size);
        if (host && write) {
            memcpy(host, &value, size);
            physmem_written(f.mem, host, size);
        } else if (write) {
            bus_write(&f.machine.mmio, address, size, value & bytes_mask(size));
        } else if (!host) {
            bus_read(&f.machine.mmio, address, size);
        }
        break;
    }
    case RANGE_CONFIG:
        config_access((unsigned)r->base, (unsigned)offset, MIN(size, 4u), write, &value);
        break;
    case RANGE_CALLS:
        if (write)
            r->write(offset, size, value & bytes_mask(size));
        else
            r->read(offset, size);
        break;
    }
}

static void write_ram(uint64_t gpa, const void *from, uint64_t size)
{
    memcpy(f.mem->ram + gpa, from, size);
    physmem_written(f.mem, f.mem->ram + gpa, size);
}

static void carry_out(const struct fuzz_op *op)
{
    const struct fuzz_range *range = &f.ranges[op->range % f.range_count];
    switch (op->kind % OP_KINDS) {
    case OP_WRITE:
    case OP_READ:
        for (unsigned i = 0; i <= op->repeat; i++)
            guest_access(range, op, op->kind % OP_KINDS == OP_WRITE);
        break;
    case OP_MEMORY:
        write_ram(op->offset % (FUZZ_RAM - 8), &op->value, 8);
        break;
    case OP_FILL:
        for (unsigned i = 0; i <= op->repeat; i++)
            write_ram((op->offset + 8 * i) % (FUZZ_RAM - 8), &op->value, 8);
        break;
    case OP_TIME:
        if (op->repeat & 1)
            fake_stall(op->value % UNSEEN_MAX);
        fake_advance(&f.machine, op->value % TIME_MAX);
        break;
    case OP_DISK:
        fuzz_disks_set_mode(op->repeat);
        fuzz_disks_finish();
        break;
    case OP_SPECIAL:
        if (fuzz_device.special)
            fuzz_device.special(&f, op);
        break;
    case OP_RESET:
        for (unsigned i = 0; op->repeat & FUZZ_MESSAGES && i < f.bar_count; i++)
            enable_messages(f.bars[i].devfn);
        if (!(op->repeat & FUZZ_MESSAGES) && resets++ < RESETS_MAX)
            reset();
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!f.mem)
        build();
    /* All memory to zero, at the price of the pages that were touched. */
    if (fallocate(f.mem->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                  (off_t)(f.mem->size + f.mem->extra_used)) != 0)
        abort();
    looks = resets = 0;
    fuzz_disks_set_mode(DISK_LATE);
    reset();
    f.machine.log.mask = size / sizeof(struct fuzz_op) % 4 == 3 ? 1u << LOG_DEV : 0;
    for (; size >= sizeof(struct fuzz_op);
         data += sizeof(struct fuzz_op), size -= sizeof(struct fuzz_op)) {
        struct fuzz_op op;
        memcpy(&op, data, sizeof op);
        carry_out(&op);
    }
    fuzz_disks_finish();
    if (fuzz_device.after)
        fuzz_device.after(&f);
    return 0;
}

int fuzz_seed(unsigned index, struct test_image *image)
{
    static struct fuzz_op ops[TEST_IMAGE_MAX / sizeof(struct fuzz_op)];
    struct fuzz_list list = {.ops = ops, .max = ARRAY_SIZE(ops)};
    if (!fuzz_device.seed(&list, index))
        return 0;
    image->size = list.count * sizeof ops[0];
    memcpy(image->data, ops, image->size);
    return 1;
}
