/*
 * A UEFI driver for PVSCSI, which is the adapter's option ROM under UEFI: Debian's OVMF has none.
 * It gives each request to the adapter and waits for its completion; OVMF's own SCSI drivers make
 * disks of the targets. One request is under way at a time, in a ring of a page.
 *
 * The image is not relocated: no pointer is initialized statically.
 */
#include "../dev/pvscsi_interface.h"
#include "efi.h"

#define VENDOR_DEVICE  0x07c015adu
#define TARGETS        16
#define PAGE           4096u
#define POLL_US        20
#define TICKS_PER_POLL (POLL_US * 10) /* in the request's unit */

/* Of the page of ring state; its fields are dwords. */
static uint32_t state_get(const uint8_t *page, enum ring_state at)
{
    return *(const volatile uint32_t *)(page + at);
}

static void state_put(uint8_t *page, enum ring_state at, uint32_t value)
{
    *(volatile uint32_t *)(page + at) = value;
}

/* What the adapter is told with SETUP_RINGS. */
struct setup_rings {
    uint32_t request_pages, completion_pages;
    uint64_t state, requests[RING_PAGES], completions[RING_PAGES]; /* page numbers */
};

/* The memory that we share with it, a page each. */
struct shared {
    uint8_t state[PAGE];
    struct request_descriptor requests[PAGE / REQUEST_SIZE];
    struct completion_descriptor completions[PAGE / sizeof(struct completion_descriptor)];
    uint8_t sense[PAGE];
};

_Static_assert(sizeof(struct setup_rings) == 132 * 4 && sizeof(struct shared) == 4 * PAGE,
               "the interface");

struct adapter {
    struct efi_scsi_pass_thru scsi; /* first: a pointer to it is one to this */
    struct efi_scsi_mode mode;
    struct efi_pci_io *io;
    struct shared *shared;
    uint64_t shared_address, attributes;
    void *mapping;
};

static struct efi_boot_services *boot;
static struct efi_driver_binding binding;
static const struct efi_guid binding_guid = EFI_DRIVER_BINDING_GUID;
static const struct efi_guid pci_io_guid = EFI_PCI_IO_GUID;
static const struct efi_guid pass_thru_guid = EFI_EXT_SCSI_PASS_THRU_GUID;

/* The compiler may call these. */
void *memset(void *to, int value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((volatile uint8_t *)to)[i] = (uint8_t)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

/* ---- The adapter ---- */

static efi_status write_register(struct adapter *a, uint64_t reg, const uint32_t *values,
                                 uint64_t count)
{
    efi_status status = EFI_SUCCESS;
    for (uint64_t i = 0; i < count && !status; i++)
        status = a->io->write(a->io, PCI_IO_WIDTH_32, 0, reg, 1, &values[i]);
    return status;
}

static efi_status command(struct adapter *a, uint32_t number, const void *data, uint64_t dwords)
{
    efi_status status = write_register(a, REG_COMMAND, &number, 1);
    return status ? status : write_register(a, REG_COMMAND_DATA, data, dwords);
}

static efi_status set_up_rings(struct adapter *a)
{
    uint32_t none = 0;
    uint64_t first = a->shared_address / PAGE;
    struct setup_rings rings = {.request_pages = 1, .completion_pages = 1, .state = first};
    rings.requests[0] = first + 1;
    rings.completions[0] = first + 2;
    efi_status status = command(a, CMD_ADAPTER_RESET, NULL, 0);
    if (!status)
        status = write_register(a, REG_INTR_MASK, &none, 1); /* we look ourselves */
    return status ? status : command(a, CMD_SETUP_RINGS, &rings, sizeof rings / 4);
}

/* ---- Requests ---- */

static uint8_t host_status(uint16_t status)
{
    switch (status) {
    case HOST_SUCCESS:
    case HOST_LINKED:
    case HOST_LINKED_FLAG:
    case HOST_DATA_UNDERRUN: /* less than asked for is no error: the length says it */
        return SCSI_HOST_OK;
    case HOST_NO_TARGET:
        return SCSI_HOST_TIMEOUT;
    case HOST_DATA_OVERRUN:
        return SCSI_HOST_OVERRUN;
    default:
        return SCSI_HOST_OTHER;
    }
}

static efi_status run(struct adapter *a, uint8_t target, uint64_t lun, struct efi_scsi_request *r,
                      uint64_t data, uint32_t length, uint32_t flags, uint64_t *done)
{
    struct shared *s = a->shared;
    uint32_t producer = state_get(s->state, REQ_PRODUCER), kick = 0;
    uint32_t consumer = state_get(s->state, CMP_CONSUMER);
    struct request_descriptor *q =
        &s->requests[producer & ((1u << state_get(s->state, REQ_ENTRIES_LOG2)) - 1)];
    memset(q, 0, sizeof *q);
    q->data = data;
    q->data_length = length;
    q->sense = a->shared_address + offsetof(struct shared, sense);
    q->sense_length = r->sense ? r->sense_length : 0;
    q->flags = flags;
    memcpy(q->cdb, r->cdb, r->cdb_length);
    q->cdb_length = r->cdb_length;
    q->lun[1] = (uint8_t)lun;
    q->tag = 0x20; /* a simple one */
    q->target = target;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    state_put(s->state, REQ_PRODUCER, producer + 1);
    efi_status status = write_register(a, REG_KICK_RW, &kick, 1);
    uint64_t left = r->timeout;
    while (!status && state_get(s->state, CMP_PRODUCER) == consumer) {
        boot->stall(POLL_US);
        if (r->timeout && left <= TICKS_PER_POLL)
            status = EFI_TIMEOUT;
        left -= TICKS_PER_POLL;
    }
    if (status) { /* the adapter forgets the request, and we where we were */
        set_up_rings(a);
        r->host_status = SCSI_HOST_OTHER;
        return status;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    const struct completion_descriptor *c =
        &s->completions[consumer & ((1u << state_get(s->state, CMP_ENTRIES_LOG2)) - 1)];
    *done = c->data_length;
    r->host_status = host_status(c->host_status);
    r->target_status = (uint8_t)c->scsi_status;
    r->sense_length =
        r->sense && c->scsi_status
            ? (uint8_t)(c->sense_length < r->sense_length ? c->sense_length : r->sense_length)
            : 0;
    if (r->sense_length)
        memcpy(r->sense, s->sense, r->sense_length);
    state_put(s->state, CMP_CONSUMER, consumer + 1);
    return r->host_status == SCSI_HOST_OK        ? EFI_SUCCESS
           : r->host_status == SCSI_HOST_TIMEOUT ? EFI_TIMEOUT
                                                 : EFI_DEVICE_ERROR;
}

static efi_status EFIAPI pass_thru(struct efi_scsi_pass_thru *p, uint8_t *target, uint64_t lun,
                                   struct efi_scsi_request *r, void *event)
{
    struct adapter *a = (struct adapter *)p;
    (void)event; /* requests are not asynchronous, and our mode says so */
    if (!r || !r->cdb || r->cdb_length > 16 || r->direction > SCSI_DATA_OUT)
        return r && r->direction == SCSI_DATA_BOTH ? EFI_UNSUPPORTED : EFI_INVALID;
    if (target[0] >= TARGETS || lun)
        return EFI_INVALID;
    bool out = r->direction == SCSI_DATA_OUT;
    uint32_t *length = out ? &r->out_length : &r->in_length;
    void *data = out ? r->out : r->in, *mapping = NULL;
    uint64_t size = *length, address = 0, done = 0;
    if (size && !data)
        return EFI_INVALID;
    if (size) {
        efi_status status = a->io->map(a->io, out ? PCI_IO_MASTER_READ : PCI_IO_MASTER_WRITE, data,
                                       &size, &address, &mapping);
        if (status || size != *length) {
            if (!status) {
                a->io->unmap(a->io, mapping);
                *length = (uint32_t)size;
            }
            return status ? status : EFI_BAD_BUFFER_SIZE;
        }
    }
    uint32_t flags = !size ? REQUEST_NO_DATA : out ? REQUEST_TO_DEVICE : REQUEST_TO_HOST;
    efi_status status = run(a, target[0], lun, r, address, *length, flags, &done);
    if (mapping)
        a->io->unmap(a->io, mapping);
    if (!status && done < *length)
        *length = (uint32_t)done;
    return status;
}

/* ---- Targets ---- */

/* The first one is asked for with all ones. */
static bool next(uint8_t *target)
{
    bool first = true;
    for (unsigned i = 0; i < EFI_SCSI_TARGET_SIZE; i++)
        first &= target[i] == 0xff;
    if (!first && target[0] + 1u >= TARGETS)
        return false;
    uint8_t number = first ? 0 : (uint8_t)(target[0] + 1);
    memset(target, 0, EFI_SCSI_TARGET_SIZE);
    target[0] = number;
    return true;
}

static efi_status EFIAPI next_target(struct efi_scsi_pass_thru *p, uint8_t **target)
{
    (void)p;
    return next(*target) ? EFI_SUCCESS : EFI_NOT_FOUND;
}

static efi_status EFIAPI next_target_lun(struct efi_scsi_pass_thru *p, uint8_t **target,
                                         uint64_t *lun)
{
    (void)p;
    *lun = 0;
    return next(*target) ? EFI_SUCCESS : EFI_NOT_FOUND;
}

enum { PATH_MESSAGING = 3, PATH_SCSI = 2, PATH_SCSI_SIZE = 8 };

static efi_status EFIAPI build_device_path(struct efi_scsi_pass_thru *p, uint8_t *target,
                                           uint64_t lun, struct efi_device_path **path)
{
    (void)p;
    if (!path)
        return EFI_INVALID;
    if (target[0] >= TARGETS || lun)
        return EFI_NOT_FOUND;
    void *node;
    if (boot->allocate_pool(EFI_BOOT_SERVICES_DATA, PATH_SCSI_SIZE, &node))
        return EFI_OUT_OF_RESOURCES;
    const uint8_t bytes[PATH_SCSI_SIZE] = {
        PATH_MESSAGING, PATH_SCSI, PATH_SCSI_SIZE, 0, target[0], 0, 0, 0};
    memcpy(node, bytes, sizeof bytes);
    *path = node;
    return EFI_SUCCESS;
}

static efi_status EFIAPI target_lun(struct efi_scsi_pass_thru *p, struct efi_device_path *path,
                                    uint8_t **target, uint64_t *lun)
{
    (void)p;
    const uint8_t *bytes = (const uint8_t *)path;
    if (!path || !target || !*target || !lun)
        return EFI_INVALID;
    if (path->type != PATH_MESSAGING || path->sub_type != PATH_SCSI ||
        path->length[0] != PATH_SCSI_SIZE)
        return EFI_UNSUPPORTED;
    if (bytes[4] >= TARGETS || bytes[5] || bytes[6] || bytes[7])
        return EFI_NOT_FOUND;
    memset(*target, 0, EFI_SCSI_TARGET_SIZE);
    (*target)[0] = bytes[4];
    *lun = 0;
    return EFI_SUCCESS;
}

static efi_status EFIAPI reset_channel(struct efi_scsi_pass_thru *p)
{
    return command((struct adapter *)p, CMD_RESET_BUS, NULL, 0);
}

static efi_status EFIAPI reset_target(struct efi_scsi_pass_thru *p, uint8_t *target, uint64_t lun)
{
    const uint32_t which[3] = {target[0], (uint32_t)lun << 8, 0};
    return command((struct adapter *)p, CMD_RESET_DEVICE, which, 3);
}

/* ---- Driver ---- */

static efi_status open_pci(efi_handle controller, struct efi_pci_io **io)
{
    void *interface = NULL;
    efi_status status = boot->open_protocol(controller, &pci_io_guid, &interface, binding.handle,
                                            controller, EFI_OPEN_BY_DRIVER);
    *io = interface;
    return status;
}

static void close_pci(efi_handle controller)
{
    boot->close_protocol(controller, &pci_io_guid, binding.handle, controller);
}

static efi_status EFIAPI supported(struct efi_driver_binding *b, efi_handle controller,
                                   struct efi_device_path *rest)
{
    (void)b;
    (void)rest;
    struct efi_pci_io *io;
    uint32_t id = 0;
    efi_status status = open_pci(controller, &io);
    if (status)
        return status;
    status = io->read_config(io, PCI_IO_WIDTH_32, 0, 1, &id);
    close_pci(controller);
    return status || id != VENDOR_DEVICE ? EFI_UNSUPPORTED : EFI_SUCCESS;
}

static void free_adapter(struct adapter *a)
{
    if (a->shared) {
        command(a, CMD_ADAPTER_RESET, NULL, 0);
        a->io->attributes(a->io, PCI_IO_SET, a->attributes, NULL);
    }
    if (a->mapping)
        a->io->unmap(a->io, a->mapping);
    if (a->shared)
        a->io->free(a->io, sizeof *a->shared / PAGE, a->shared);
    boot->free_pool(a);
}

static efi_status set_up(struct adapter *a)
{
    void *host = NULL;
    uint64_t size = sizeof *a->shared;
    efi_status status = a->io->attributes(a->io, PCI_IO_GET, 0, &a->attributes);
    if (!status)
        status = a->io->attributes(a->io, PCI_IO_ENABLE,
                                   PCI_IO_MEMORY | PCI_IO_BUS_MASTER | PCI_IO_64BIT_DMA, NULL);
    if (!status)
        status = a->io->allocate(a->io, 0, EFI_BOOT_SERVICES_DATA, size / PAGE, &host, 0);
    if (status)
        return status;
    memset(host, 0, size);
    a->shared = host;
    status = a->io->map(a->io, PCI_IO_COMMON_BUFFER, host, &size, &a->shared_address, &a->mapping);
    return status || size != sizeof *a->shared ? EFI_OUT_OF_RESOURCES : set_up_rings(a);
}

static efi_status EFIAPI start(struct efi_driver_binding *b, efi_handle controller,
                               struct efi_device_path *rest)
{
    (void)b;
    (void)rest;
    struct efi_pci_io *io;
    void *memory;
    efi_status status = open_pci(controller, &io);
    if (status)
        return status;
    if (boot->allocate_pool(EFI_BOOT_SERVICES_DATA, sizeof(struct adapter), &memory)) {
        close_pci(controller);
        return EFI_OUT_OF_RESOURCES;
    }
    struct adapter *a = memset(memory, 0, sizeof(struct adapter));
    a->io = io;
    a->mode = (struct efi_scsi_mode){0xffffffff, SCSI_MODE_PHYSICAL | SCSI_MODE_LOGICAL, 0};
    a->scsi.mode = &a->mode;
    a->scsi.pass_thru = pass_thru;
    a->scsi.next_target_lun = next_target_lun;
    a->scsi.build_device_path = build_device_path;
    a->scsi.target_lun = target_lun;
    a->scsi.reset_channel = reset_channel;
    a->scsi.reset_target = reset_target;
    a->scsi.next_target = next_target;
    status = set_up(a);
    if (!status)
        status = boot->install_protocols(&controller, &pass_thru_guid, &a->scsi, NULL);
    if (status) {
        free_adapter(a);
        close_pci(controller);
    }
    return status;
}

static efi_status EFIAPI stop(struct efi_driver_binding *b, efi_handle controller,
                              uint64_t children, efi_handle *child)
{
    (void)b;
    (void)children;
    (void)child;
    void *scsi;
    efi_status status = boot->handle_protocol(controller, &pass_thru_guid, &scsi);
    if (!status)
        status = boot->uninstall_protocols(controller, &pass_thru_guid, scsi, NULL);
    if (status)
        return status;
    free_adapter(scsi);
    close_pci(controller);
    return EFI_SUCCESS;
}

__attribute__((section(".text.entry"))) efi_status EFIAPI efi_main(efi_handle image,
                                                                   struct efi_system_table *system)
{
    boot = system->boot_services;
    binding.supported = supported;
    binding.start = start;
    binding.stop = stop;
    binding.version = 0x10;
    binding.image = binding.handle = image;
    return boot->install_protocols(&binding.handle, &binding_guid, &binding, NULL);
}
