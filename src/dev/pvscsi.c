/*
 * The driver and the adapter share a page of ring state, a request ring and a completion ring. The
 * driver puts a descriptor into the request ring, counts its producer index up, and kicks. The
 * adapter takes it at once, on the thread that kicked, and starts the transfer straight between the
 * guest's memory and the image; the thread that ends it fills in a completion and interrupts.
 *
 *   BAR 0  32 KiB of registers, a page for each group
 *   BAR 1  MSI-X
 */
#include "dev/pvscsi.h"

#include <stdlib.h>
#include <string.h>

#include "dev/dma.h"
#include "dev/pvscsi_interface.h"
#include "dev/scsi.h"
#include "util/util.h"

#define REGISTERS_SIZE       (32u << 10)
#define ADAPTER_ID           7

#define STATUS_SUCCEEDED     0u
#define STATUS_FAILED        (~0u)
#define STATUS_INCOMPLETE    (~1u) /* the descriptor is not all there */

#define MSG_PAGES            16
#define DATA_DWORDS          132 /* of the longest descriptor, SETUP_RINGS */

#define SG_CHAIN             1u /* the address is that of the next elements */
#define SG_CHAINS            64
#define SG_ELEMENTS          4096

#define REQUESTS_PER_PAGE    (PAGE_SIZE / REQUEST_SIZE)
#define COMPLETIONS_PER_PAGE (PAGE_SIZE / sizeof(struct completion_descriptor))
#define UNDER_WAY_MAX        (RING_PAGES * REQUESTS_PER_PAGE)

/* CONFIG: what the controller says of itself. */
#define CONFIG_CONTROLLER    0x1958
#define CONFIG_SIZE          480
#define CONFIG_PHYS          472

struct pv_request {
    struct pvscsi *adapter;
    struct pv_request *next_free;
    struct dma_list list;
    struct scsi_request scsi;
    uint64_t context, sense, data_length;
    uint32_t sense_length, generation;
};

struct pvscsi {
    struct pci_device pci;
    struct device_env *env;
    struct scsi_disk *targets[PVSCSI_TARGETS];
    struct dma_count dma;
    struct pv_request *free;
    uint32_t generation; /* of requests: those from before a reset are dropped */
    bool taking;         /* on a thread further up the stack */
    bool completed;      /* an interrupt is due when that ends */

    uint32_t command, data[DATA_DWORDS], data_count, command_status;
    uint32_t interrupts, mask;
    bool rings, messages;
    uint32_t req_pages, cmp_pages;
    uint64_t state_page, req_ring[RING_PAGES], cmp_ring[RING_PAGES];
    uint32_t req_consumer, cmp_producer;
};

/* ---- Interrupts ---- */

static void update_interrupt(struct pvscsi *a)
{
    pci_set_intx(&a->pci, (a->interrupts & a->mask) != 0);
}

static void interrupt(struct pvscsi *a)
{
    a->interrupts |= INTR_COMPLETION_0;
    if ((a->mask & INTR_COMPLETION_0) && !pci_notify(&a->pci, 0))
        update_interrupt(a);
}

/* ---- The rings ---- */

static uint8_t *guest_page(const struct pvscsi *a, uint64_t number)
{
    return number >> (64 - PAGE_SHIFT)
               ? NULL
               : physmem_host_write(a->env->mem, number << PAGE_SHIFT, PAGE_SIZE);
}

static uint32_t state_get(const struct pvscsi *a, enum ring_state at)
{
    const uint8_t *page = guest_page(a, a->state_page);
    return page ? __atomic_load_n((const uint32_t *)(page + at), __ATOMIC_ACQUIRE) : 0;
}

static void state_put(struct pvscsi *a, enum ring_state at, uint32_t value)
{
    uint8_t *page = guest_page(a, a->state_page);
    if (!page)
        return;
    __atomic_store_n((uint32_t *)(page + at), value, __ATOMIC_RELEASE);
    physmem_written(a->env->mem, page + at, 4);
}

static void complete(struct pvscsi *a, const struct completion_descriptor *c)
{
    uint32_t at = a->cmp_producer % (a->cmp_pages * COMPLETIONS_PER_PAGE);
    uint8_t *page = guest_page(a, a->cmp_ring[at / COMPLETIONS_PER_PAGE]);
    if (page) {
        uint8_t *slot = page + at % COMPLETIONS_PER_PAGE * sizeof *c;
        memcpy(slot, c, sizeof *c);
        physmem_written(a->env->mem, slot, sizeof *c);
    }
    state_put(a, CMP_PRODUCER, ++a->cmp_producer);
    if (a->taking)
        a->completed = true;
    else
        interrupt(a);
}

/* ---- The end of a request ---- */

static void release(struct pv_request *r)
{
    r->list.count = 0;
    r->list.length = 0;
    r->next_free = r->adapter->free;
    r->adapter->free = r;
}

static void finish(struct pv_request *r, enum host_status host_status)
{
    struct pvscsi *a = r->adapter;
    if (r->generation == a->generation && a->rings) {
        struct completion_descriptor c = {.context = r->context,
                                          .data_length = r->scsi.transferred,
                                          .host_status = (uint16_t)host_status,
                                          .scsi_status = (uint16_t)r->scsi.status};
        uint32_t sense = MIN(r->scsi.sense_length, r->sense_length);
        if (sense && physmem_write(a->env->mem, r->sense, r->scsi.sense, sense))
            c.sense_length = sense;
        complete(a, &c);
    }
    release(r);
}

static void take_requests(struct pvscsi *a);

static void scsi_done(struct scsi_request *scsi)
{
    struct pv_request *r = scsi->opaque;
    struct pvscsi *a = r->adapter;
    bool was_full = a->dma.under_way == UNDER_WAY_MAX;
    finish(r, scsi->overrun ? HOST_DATA_OVERRUN : HOST_SUCCESS);
    dma_finish(&a->dma);
    if (was_full)
        take_requests(a);
}

/* ---- Its beginning ---- */

/* The data buffer; false: the driver gave something that is no memory. */
static bool collect(struct pv_request *r, const struct request_descriptor *d)
{
    const struct physmem *mem = r->adapter->env->mem;
    bool in = !(d->flags & REQUEST_TO_DEVICE);
    if (!(d->flags & REQUEST_SG_LIST))
        return dma_add(&r->list, mem, d->data, d->data_length, in);
    uint64_t at = d->data;
    unsigned chains = 0;
    for (unsigned n = 0; r->list.length < d->data_length; n++) {
        struct sg_element e;
        if (n == SG_ELEMENTS || !physmem_read(mem, at, &e, sizeof e))
            return false;
        if (e.flags & SG_CHAIN) {
            if (++chains > SG_CHAINS)
                return false;
            at = e.address;
            continue;
        }
        at += sizeof e;
        if (!dma_add(&r->list, mem, e.address, MIN(e.length, d->data_length - r->list.length), in))
            return false;
    }
    return true;
}

static struct pv_request *allocate(struct pvscsi *a)
{
    struct pv_request *r = a->free;
    if (r) {
        a->free = r->next_free;
    } else {
        r = calloc(1, sizeof *r);
        if (!r)
            return NULL;
        r->adapter = a;
        r->scsi.opaque = r;
        r->scsi.done = scsi_done;
    }
    r->generation = a->generation;
    return r;
}

/* A logical unit number of the peripheral or flat form; others are more than we have. */
static unsigned lun_of(const uint8_t *lun)
{
    for (unsigned i = 2; i < 8; i++)
        if (lun[i])
            return ~0u;
    return (lun[0] & 0x3fu) << 8 | lun[1];
}

static void start(struct pvscsi *a, const struct request_descriptor *d)
{
    struct pv_request *r = allocate(a);
    if (!r)
        return; /* the driver's time-out deals with it */
    r->context = d->context;
    r->sense = d->sense;
    r->sense_length = d->sense_length;
    r->scsi.status = SCSI_GOOD;
    r->scsi.transferred = 0;
    r->scsi.sense_length = 0;
    struct scsi_disk *target =
        d->bus == 0 && d->target < PVSCSI_TARGETS ? a->targets[d->target] : NULL;
    if (!target)
        return finish(r, HOST_NO_TARGET);
    if (d->flags & REQUEST_OUT_OF_BAND_CDB)
        return finish(r, HOST_INVALID_PARAMETER);
    if (d->data_length && !(d->flags & REQUEST_NO_DATA) && !collect(r, d))
        return finish(r, HOST_INVALID_PARAMETER);
    memcpy(r->scsi.cdb, d->cdb, sizeof r->scsi.cdb);
    r->scsi.lun = lun_of(d->lun);
    r->scsi.iov = r->list.iov;
    r->scsi.iov_count = r->list.count;
    r->scsi.length = r->list.length;
    r->scsi.can_read = !(d->flags & (REQUEST_TO_DEVICE | REQUEST_NO_DATA));
    r->scsi.can_write = !(d->flags & (REQUEST_TO_HOST | REQUEST_NO_DATA));
    dma_begin(&a->dma);
    scsi_submit(target, &r->scsi);
}

/*
 * Take what is in the request ring. Commands that end at once come back here through scsi_done();
 * their interrupt is one, after the loop. start() lets go of the lock, so a reset may come between.
 */
static void take_requests(struct pvscsi *a)
{
    if (!a->rings || a->taking || a->dma.waiting)
        return;
    a->taking = true;
    while (a->rings && !a->dma.waiting && a->dma.under_way < UNDER_WAY_MAX) {
        uint32_t entries = a->req_pages * REQUESTS_PER_PAGE;
        uint32_t ready = state_get(a, REQ_PRODUCER) - a->req_consumer;
        if (!ready)
            break;
        if (ready > entries) {
            if (log_on(a->env->log, LOG_DEV))
                log_write(a->env->log, LOG_DEV, "pvscsi: %u requests in a ring of %u", ready,
                          entries);
            break;
        }
        uint32_t at = a->req_consumer % entries;
        const uint8_t *page = guest_page(a, a->req_ring[at / REQUESTS_PER_PAGE]);
        struct request_descriptor d;
        if (!page)
            break;
        memcpy(&d, page + at % REQUESTS_PER_PAGE * REQUEST_SIZE, sizeof d);
        state_put(a, REQ_CONSUMER, ++a->req_consumer);
        start(a, &d);
    }
    a->taking = false;
    bool completed = a->completed && a->rings;
    a->completed = false;
    if (completed)
        interrupt(a);
}

/* ---- Commands ---- */

static uint64_t data64(const struct pvscsi *a, unsigned dword)
{
    return a->data[dword] | (uint64_t)a->data[dword + 1] << 32;
}

/* What is under way ends first; what the host holds up longer than that is forgotten. */
static void quiesce(struct pvscsi *a)
{
    if (!dma_wait(&a->dma))
        a->generation++;
}

static uint32_t adapter_reset(struct pvscsi *a)
{
    quiesce(a);
    a->rings = a->messages = false;
    a->interrupts = a->mask = 0;
    a->req_consumer = a->cmp_producer = 0;
    update_interrupt(a);
    for (unsigned i = 0; i < PVSCSI_TARGETS; i++)
        if (a->targets[i])
            scsi_disk_reset(a->targets[i]);
    return STATUS_SUCCEEDED;
}

static uint32_t setup_rings(struct pvscsi *a)
{
    uint32_t req_pages = a->data[0], cmp_pages = a->data[1];
    if (!req_pages || req_pages > RING_PAGES || !cmp_pages || cmp_pages > RING_PAGES)
        return STATUS_FAILED;
    quiesce(a);
    a->rings = false;
    a->state_page = data64(a, 2);
    for (unsigned i = 0; i < RING_PAGES; i++) {
        a->req_ring[i] = data64(a, 4 + 2 * i);
        a->cmp_ring[i] = data64(a, 4 + 2 * RING_PAGES + 2 * i);
    }
    bool memory = guest_page(a, a->state_page);
    for (unsigned i = 0; i < req_pages; i++)
        memory &= guest_page(a, a->req_ring[i]) != NULL;
    for (unsigned i = 0; i < cmp_pages; i++)
        memory &= guest_page(a, a->cmp_ring[i]) != NULL;
    if (!memory)
        return STATUS_FAILED;
    /* Indices are taken modulo a power of two; so are the rings. */
    while (req_pages & (req_pages - 1))
        req_pages &= req_pages - 1;
    while (cmp_pages & (cmp_pages - 1))
        cmp_pages &= cmp_pages - 1;
    a->req_pages = req_pages;
    a->cmp_pages = cmp_pages;
    a->req_consumer = a->cmp_producer = 0;
    a->rings = true;
    state_put(a, REQ_PRODUCER, 0);
    state_put(a, REQ_CONSUMER, 0);
    state_put(a, CMP_PRODUCER, 0);
    state_put(a, CMP_CONSUMER, 0);
    state_put(a, REQ_CALL_THRESHOLD, 0);
    state_put(a, REQ_ENTRIES_LOG2, (uint32_t)__builtin_ctzl(req_pages * REQUESTS_PER_PAGE));
    state_put(a, CMP_ENTRIES_LOG2, (uint32_t)__builtin_ctzl(cmp_pages * COMPLETIONS_PER_PAGE));
    return STATUS_SUCCEEDED;
}

static uint32_t setup_messages(struct pvscsi *a)
{
    uint32_t pages = a->data[0];
    if (!a->rings || !pages || pages > MSG_PAGES)
        return STATUS_FAILED;
    while (pages & (pages - 1))
        pages &= pages - 1;
    /* Nothing is plugged or unplugged while the machine runs: the ring stays empty. */
    state_put(a, MSG_PRODUCER, 0);
    state_put(a, MSG_CONSUMER, 0);
    state_put(a, MSG_ENTRIES_LOG2, (uint32_t)__builtin_ctzl(pages * REQUESTS_PER_PAGE));
    a->messages = true;
    return STATUS_SUCCEEDED;
}

static void put_text(uint8_t *to, const char *text)
{
    for (unsigned i = 0; text[i]; i++) /* in UTF-16 */
        to[2 * i] = (uint8_t)text[i];
}

static uint32_t config(struct pvscsi *a)
{
    uint8_t page[CONFIG_SIZE] = {0};
    uint32_t number = a->data[4];
    bool known = number == CONFIG_CONTROLLER;
    unsigned size = known ? CONFIG_SIZE : 16;
    memcpy(page, &number, 4);
    page[4] = (uint8_t)(size / 4);
    page[6] = known ? HOST_SUCCESS : HOST_INVALID_PARAMETER;
    page[8] = known ? SCSI_GOOD : SCSI_CHECK_CONDITION;
    if (known) {
        put_text(page + 24, "Trivisor");
        put_text(page + 344, "2");
        page[CONFIG_PHYS] = PVSCSI_TARGETS;
    }
    return physmem_write(a->env->mem, data64(a, 0), page, size) ? STATUS_SUCCEEDED : STATUS_FAILED;
}

static uint32_t reset_device(struct pvscsi *a)
{
    take_requests(a);
    quiesce(a);
    uint32_t target = a->data[0];
    if (target >= PVSCSI_TARGETS || !a->targets[target])
        return STATUS_FAILED;
    scsi_disk_reset(a->targets[target]);
    take_requests(a); /* kicks were not heard while we waited */
    return STATUS_SUCCEEDED;
}

static uint32_t reset_bus(struct pvscsi *a)
{
    take_requests(a);
    quiesce(a);
    for (unsigned i = 0; i < PVSCSI_TARGETS; i++)
        if (a->targets[i])
            scsi_disk_reset(a->targets[i]);
    take_requests(a);
    return STATUS_SUCCEEDED;
}

/* What the host does cannot be called back: the request's own completion will tell. */
static uint32_t abort_command(struct pvscsi *a)
{
    take_requests(a);
    return STATUS_SUCCEEDED;
}

static uint32_t refuse(struct pvscsi *a)
{
    (void)a;
    return STATUS_FAILED;
}

/* The threshold stays 0: every request is worth a kick. */
static uint32_t setup_request_call(struct pvscsi *a)
{
    if (!a->rings)
        return STATUS_FAILED;
    state_put(a, REQ_CALL_THRESHOLD, 0);
    return a->data[0] ? 1 : 0;
}

static const struct {
    uint32_t dwords; /* of the descriptor */
    uint32_t (*run)(struct pvscsi *a);
} command_table[COMMANDS] = {
    [0] = {0, refuse},
    [CMD_ADAPTER_RESET] = {0, adapter_reset},
    [CMD_ISSUE_SCSI] = {0, refuse},
    [CMD_CONFIG] = {6, config},
    [CMD_SETUP_RINGS] = {DATA_DWORDS, setup_rings},
    [CMD_RESET_BUS] = {0, reset_bus},
    [CMD_RESET_DEVICE] = {3, reset_device},
    [CMD_ABORT] = {4, abort_command},
    [CMD_SETUP_MSG_RING] = {34, setup_messages},
    [CMD_DEVICE_UNPLUG] = {0, refuse},
    [CMD_SETUP_REQ_CALL] = {1, setup_request_call},
};

/* Run the command when its descriptor is complete. */
static void command_step(struct pvscsi *a)
{
    if (a->command >= COMMANDS || a->data_count > command_table[a->command].dwords) {
        a->command_status = STATUS_FAILED;
        return;
    }
    if (a->data_count < command_table[a->command].dwords) {
        a->command_status = STATUS_INCOMPLETE;
        return;
    }
    uint32_t command = a->command;
    a->command = 0; /* while it waits, another vCPU may write here */
    a->data_count = 0;
    a->command_status = command_table[command].run(a);
}

/* ---- Registers ---- */

static uint64_t register_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pvscsi *a = opaque;
    (void)size;
    switch (offset) {
    case REG_COMMAND_STATUS:
        return a->command_status;
    case REG_INTR_STATUS:
        return a->interrupts;
    case REG_INTR_MASK:
        return a->mask;
    default:
        return 0;
    }
}

static void register_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct pvscsi *a = opaque;
    if (size != 4)
        return;
    switch (offset) {
    case REG_KICK_RW:
    case REG_KICK_NON_RW:
        take_requests(a);
        break;
    case REG_COMMAND:
        a->command = (uint32_t)value;
        a->data_count = 0;
        command_step(a);
        break;
    case REG_COMMAND_DATA:
        if (a->data_count < DATA_DWORDS)
            a->data[a->data_count] = (uint32_t)value;
        a->data_count = MIN(a->data_count + 1, DATA_DWORDS + 1u);
        command_step(a);
        break;
    case REG_INTR_STATUS:
        a->interrupts &= ~(uint32_t)value;
        update_interrupt(a);
        break;
    case REG_INTR_MASK:
        a->mask = (uint32_t)value & (INTR_COMPLETION | INTR_MESSAGE);
        update_interrupt(a);
        break;
    }
}

static const struct io_ops register_ops = {register_read, register_write, 4};

/* ---- The device ---- */

static void after_reset(void *opaque)
{
    struct pvscsi *a = opaque;
    quiesce(a);
    pci_device_reset(&a->pci);
}

static void after_load(void *opaque)
{
    struct pvscsi *a = opaque;
    a->data_count = MIN(a->data_count, DATA_DWORDS + 1u);
    if (a->req_pages > RING_PAGES || a->cmp_pages > RING_PAGES || !a->req_pages || !a->cmp_pages ||
        (a->req_pages & (a->req_pages - 1)) || (a->cmp_pages & (a->cmp_pages - 1)))
        a->rings = false;
    pci_device_loaded(&a->pci);
}

static const struct state_field fields[] = {
    PCI_DEVICE_STATE(struct pvscsi, pci),    STATE(struct pvscsi, command, 0),
    STATE_ARRAY(struct pvscsi, data, 0),     STATE(struct pvscsi, data_count, 0),
    STATE(struct pvscsi, command_status, 0), STATE(struct pvscsi, interrupts, 0),
    STATE(struct pvscsi, mask, 0),           STATE(struct pvscsi, rings, false),
    STATE(struct pvscsi, messages, false),   STATE(struct pvscsi, req_pages, 0),
    STATE(struct pvscsi, cmp_pages, 0),      STATE(struct pvscsi, state_page, 0),
    STATE_ARRAY(struct pvscsi, req_ring, 0), STATE_ARRAY(struct pvscsi, cmp_ring, 0),
    STATE(struct pvscsi, req_consumer, 0),   STATE(struct pvscsi, cmp_producer, 0),
};

static const struct state_table table = {
    .name = "pvscsi",
    .version = 1,
    .size = sizeof(struct pvscsi),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = after_reset,
    .after_load = after_load,
};

static const struct pci_identity identity = {
    .name = "PVSCSI",
    .vendor = 0x15ad,
    .device = 0x07c0,
    .revision = 2,
    .class_code = 0x010700,
    .subsystem_vendor = 0x15ad,
    .subsystem = 0x07c0,
    .interrupt_pin = 1,
};

static void destroy(void *opaque)
{
    struct pvscsi *a = opaque;
    while (a->free) {
        struct pv_request *r = a->free;
        a->free = r->next_free;
        dma_free(&r->list);
        free(r);
    }
    dma_count_end(&a->dma);
    free(a);
}

struct pvscsi *pvscsi_create(struct device_env *env, struct pci_bus *bus, unsigned devfn)
{
    struct pvscsi *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->env = env;
    dma_count_init(&a->dma, env);
    pci_device_init(bus, &a->pci, devfn, &identity);
    a->pci.wmask[PCI_COMMAND] |= PCI_COMMAND_MASTER;
    pci_add_bar(&a->pci, 0, false, REGISTERS_SIZE, &register_ops, a);
    pci_add_msix(&a->pci, 1, 1);
    pci_add_msi(&a->pci);
    device_register(env, &table, a, destroy);
    return a;
}

int pvscsi_attach(struct pvscsi *a, struct disk *disk, const char *serial)
{
    for (int i = 0; i < PVSCSI_TARGETS; i++) {
        if (i == ADAPTER_ID || a->targets[i])
            continue;
        a->targets[i] = scsi_disk_create(a->env, disk, serial);
        return a->targets[i] ? i : -1;
    }
    return -1;
}
