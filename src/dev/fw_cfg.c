/*
 * The guest selects an item, which sets the offset to zero, and reads its bytes one by one, or has
 * them copied to memory: it writes the address of a descriptor (big-endian) to 0x514, the half at
 * 0x518 last. Past an item's end bytes are zero. Items are read-only for the guest.
 */
#include "dev/fw_cfg.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "util/util.h"

#define PORT_SELECT   0x510
#define PORT_DMA      0x514
#define FILES_MAX     32
#define NAME_SIZE     56
#define ITEMS         (FW_CFG_FILES + FILES_MAX)
#define ITEM_MASK     0xbfff /* bit 14 asks for writing */
#define DMA_SIGNATURE UINT64_C(0x51454d5520434647)
#define CHUNK         4096

enum { DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16 };

struct dma_descriptor {
    uint32_t control, length;
    uint64_t address;
} __attribute__((packed));

struct directory_entry {
    uint32_t size;
    uint16_t select, reserved;
    char name[NAME_SIZE];
} __attribute__((packed));

struct fw_cfg {
    struct device_env *env;
    struct {
        uint8_t *data;
        uint32_t size;
    } items[ITEMS];
    struct directory_entry files[FILES_MAX];
    unsigned file_count;
    uint16_t selected;
    uint32_t offset;
    uint64_t dma_address;
};

static void select_item(struct fw_cfg *cfg, uint16_t item)
{
    cfg->selected = item & ITEM_MASK;
    cfg->offset = 0;
}

/* The next `size` bytes of the item. */
static void take(struct fw_cfg *cfg, uint8_t *to, uint32_t size)
{
    uint32_t have = 0;
    if (cfg->selected < ITEMS && cfg->offset < cfg->items[cfg->selected].size) {
        have = MIN(size, cfg->items[cfg->selected].size - cfg->offset);
        memcpy(to, cfg->items[cfg->selected].data + cfg->offset, have);
        cfg->offset += have;
    }
    memset(to + have, 0, size - have);
}

static void skip(struct fw_cfg *cfg, uint32_t size)
{
    uint32_t left = cfg->selected < ITEMS && cfg->offset < cfg->items[cfg->selected].size
                        ? cfg->items[cfg->selected].size - cfg->offset
                        : 0;
    cfg->offset += MIN(size, left);
}

static bool copy_out(struct fw_cfg *cfg, uint64_t address, uint32_t length)
{
    uint8_t bytes[CHUNK];
    for (uint32_t piece; length; length -= piece, address += piece) {
        piece = MIN(length, (uint32_t)sizeof bytes);
        take(cfg, bytes, piece);
        if (!physmem_write(cfg->env->mem, address, bytes, piece))
            return false;
    }
    return true;
}

static void run_dma(struct fw_cfg *cfg)
{
    struct dma_descriptor d;
    uint64_t at = cfg->dma_address;
    cfg->dma_address = 0;
    if (!physmem_read(cfg->env->mem, at, &d, sizeof d))
        return;
    uint32_t control = be32toh(d.control), length = be32toh(d.length), result = 0;
    if (control & DMA_SELECT)
        select_item(cfg, (uint16_t)(control >> 16));
    if (control & DMA_READ)
        result = copy_out(cfg, be64toh(d.address), length) ? 0 : DMA_ERROR;
    else if (control & DMA_WRITE)
        result = DMA_ERROR;
    else if (control & DMA_SKIP)
        skip(cfg, length);
    result = htobe32(result);
    physmem_write(cfg->env->mem, at, &result, sizeof result);
}

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fw_cfg *cfg = opaque;
    uint8_t byte = 0;
    if (offset == 1)
        take(cfg, &byte, 1);
    return byte;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    if (offset == 0 && size == 2)
        select_item(opaque, (uint16_t)value);
}

static uint64_t dma_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t big_endian = htobe64(DMA_SIGNATURE);
    return big_endian >> (8 * offset);
}

static void dma_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *cfg = opaque;
    if (size == 8) {
        cfg->dma_address = be64toh(value);
        run_dma(cfg);
    } else if (size == 4 && offset == 0) {
        cfg->dma_address = (uint64_t)be32toh((uint32_t)value) << 32;
    } else if (size == 4 && offset == 4) {
        cfg->dma_address |= be32toh((uint32_t)value);
        run_dma(cfg);
    }
}

static const struct io_ops port_ops = {port_read, port_write, 2};
static const struct io_ops dma_ops = {dma_read, dma_write, 8};

static const struct state_field fields[] = {
    STATE(struct fw_cfg, selected, 0),
    STATE(struct fw_cfg, offset, 0),
    STATE(struct fw_cfg, dma_address, 0),
};

static const struct state_table table = {
    .name = "fw_cfg",
    .version = 1,
    .size = sizeof(struct fw_cfg),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
};

bool fw_cfg_add(struct fw_cfg *cfg, unsigned item, const void *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy || item >= ITEMS)
        return free(copy), false;
    memcpy(copy, data, size);
    free(cfg->items[item].data);
    cfg->items[item].data = copy;
    cfg->items[item].size = (uint32_t)size;
    return true;
}

bool fw_cfg_add_number(struct fw_cfg *cfg, unsigned item, uint64_t value, size_t bytes)
{
    uint64_t little = htole64(value);
    return fw_cfg_add(cfg, item, &little, MIN(bytes, sizeof little));
}

bool fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *data, size_t size)
{
    unsigned n = 0;
    while (n < cfg->file_count && strcmp(cfg->files[n].name, name) != 0)
        n++;
    if (n == FILES_MAX || strlen(name) >= NAME_SIZE ||
        !fw_cfg_add(cfg, FW_CFG_FILES + n, data, size))
        return false;
    struct directory_entry *e = &cfg->files[n];
    cfg->file_count = MAX(cfg->file_count, n + 1);
    e->size = htobe32((uint32_t)size);
    e->select = htobe16((uint16_t)(FW_CFG_FILES + n));
    memcpy(e->name, name, strlen(name) + 1);

    uint8_t directory[4 + sizeof cfg->files];
    uint32_t count = htobe32(cfg->file_count);
    memcpy(directory, &count, sizeof count);
    memcpy(directory + 4, cfg->files, cfg->file_count * sizeof *e);
    return fw_cfg_add(cfg, FW_CFG_DIRECTORY, directory, 4 + cfg->file_count * sizeof *e);
}

static void destroy(void *opaque)
{
    struct fw_cfg *cfg = opaque;
    for (unsigned i = 0; i < ITEMS; i++)
        free(cfg->items[i].data);
    free(cfg);
}

struct fw_cfg *fw_cfg_create(struct device_env *env)
{
    static const uint8_t empty[4];
    struct fw_cfg *cfg = calloc(1, sizeof *cfg);
    if (!cfg)
        return NULL;
    cfg->env = env;
    fw_cfg_add(cfg, FW_CFG_SIGNATURE, "QEMU", 4);
    fw_cfg_add_number(cfg, FW_CFG_ID, 3, 4); /* ports and DMA */
    fw_cfg_add(cfg, FW_CFG_DIRECTORY, empty, sizeof empty);
    bus_add(env->pio, PORT_SELECT, 2, &port_ops, cfg, "firmware configuration");
    bus_add(env->pio, PORT_DMA, 8, &dma_ops, cfg, "firmware configuration DMA");
    device_register(env, &table, cfg, destroy);
    return cfg;
}
