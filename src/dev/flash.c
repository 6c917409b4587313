/*
 * After a command the flash answers reads with its status, until it is told to show the array
 * again. Firmware for virtual machines tells flash from RAM and ROM by the status after a reset or
 * a clear: zero, where a chip would have the ready bit set.
 */
#include "dev/flash.h"

#include <stdlib.h>
#include <string.h>

#include "util/util.h"

enum command {
    PROGRAM_ALTERNATE = 0x10,
    ERASE = 0x20,
    PROGRAM = 0x40,
    CLEAR_STATUS = 0x50,
    LOCK = 0x60,
    READ_STATUS = 0x70,
    READ_ID = 0x90,
    READ_QUERY = 0x98,
    CONFIRM = 0xd0,
    BUFFERED = 0xe8,
    READ_ARRAY = 0xff,
};

enum status { STATUS_READY = 0x80, STATUS_ERASE_ERROR = 0x20, STATUS_PROGRAM_ERROR = 0x10 };

#define BUFFER_SIZE  256u
#define MANUFACTURER 0x89
#define DEVICE_ID    0x18

/* What a driver finds out by the query command, from 0x10 on. */
#define QUERY_START  0x10
#define QUERY_SIZE   0x27
static const uint8_t query_reset[] = {
    'Q',  'R',  'Y', 1,
    0,    0x31, 0,   0,
    0,    0,    0,      /* command set 1, its table at 0x31 */
    0x45, 0x55, 0,   0, /* voltages */
    7,    7,    10,  0, /* typical times: program, buffer, erase, chip */
    4,    4,    4,   0, /* and their maxima */
    0,    0,    0,   8,
    0, /* size (filled in), one byte wide, buffer of 2^8 */
    1,    0,    0,   FLASH_BLOCK >> 8,
    0, /* one region of blocks (count filled in) */
};

struct flash {
    struct device_env *env;
    uint8_t *array;
    uint64_t size;
    flash_changed *changed;
    void *opaque;
    uint8_t status;
    uint8_t mode;        /* what reads show: READ_ARRAY, READ_STATUS, READ_ID, READ_QUERY */
    uint8_t command;     /* waits for its second byte; 0: none */
    uint32_t left;       /* of a buffered program: bytes to come; then CONFIRM */
    bool counted;        /* its count is known */
    bool failed;         /* it left its block */
    uint64_t first, end; /* the buffer's place; the same: not known yet */
    uint8_t buffer[BUFFER_SIZE];
    uint64_t dirty_start, dirty_end; /* changed and not told yet; none: start not below end */
};

static void note_change(struct flash *f, uint64_t offset, uint64_t size)
{
    if (f->dirty_start >= f->dirty_end) {
        f->dirty_start = offset;
        f->dirty_end = offset + size;
        return;
    }
    f->dirty_start = MIN(f->dirty_start, offset);
    f->dirty_end = MAX(f->dirty_end, offset + size);
}

static void tell_change(void *opaque)
{
    struct flash *f = opaque;
    if (f->dirty_start < f->dirty_end && f->changed)
        f->changed(f->opaque, f->array, f->dirty_start, f->dirty_end - f->dirty_start);
    f->dirty_start = f->dirty_end = 0;
}

/* Programming clears bits; only an erase sets them. */
static void program(struct flash *f, uint64_t offset, uint8_t value)
{
    f->array[offset] &= value;
    note_change(f, offset, 1);
}

static uint8_t query(const struct flash *f, uint64_t offset)
{
    if (offset < QUERY_START || offset - QUERY_START >= sizeof query_reset)
        return 0;
    if (offset == QUERY_SIZE)
        return (uint8_t)__builtin_ctzll(f->size);
    uint64_t blocks = f->size / FLASH_BLOCK - 1;
    if (offset == 0x2d || offset == 0x2e)
        return (uint8_t)(blocks >> (8 * (offset - 0x2d)));
    return query_reset[offset - QUERY_START];
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
    const struct flash *f = opaque;
    uint64_t value = 0;
    if (f->mode == READ_ARRAY) {
        memcpy(&value, f->array + offset, size);
        return value;
    }
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = (offset + i) & (FLASH_BLOCK - 1);
        uint8_t byte = f->status;
        if (f->mode == READ_ID)
            byte = at == 0 ? MANUFACTURER : at == 1 ? DEVICE_ID : 0; /* blocks: not locked */
        else if (f->mode == READ_QUERY)
            byte = query(f, at);
        value |= (uint64_t)byte << (8 * i);
    }
    return value;
}

static void finish(struct flash *f, uint8_t errors)
{
    f->status |= STATUS_READY | errors;
    f->command = 0;
}

static void begin_command(struct flash *f, uint8_t value)
{
    switch (value) {
    case PROGRAM:
    case PROGRAM_ALTERNATE:
    case ERASE:
    case LOCK:
        f->command = value;
        f->mode = READ_STATUS;
        break;
    case BUFFERED:
        f->command = value;
        f->mode = READ_STATUS;
        f->status |= STATUS_READY; /* the buffer is free */
        f->counted = f->failed = false;
        f->first = f->end = 0;
        break;
    case CLEAR_STATUS:
        f->status = 0;
        break;
    case READ_STATUS:
    case READ_ID:
    case READ_QUERY:
        f->mode = value;
        break;
    default: /* what is no command ends what was, as READ_ARRAY does */
        if (value != READ_ARRAY && log_on(f->env->log, LOG_DEV))
            log_write(f->env->log, LOG_DEV, "flash: unknown command %#x", value);
        f->mode = READ_ARRAY;
        tell_change(f);
    }
}

/* The count, the bytes, and the confirmation that programs them. */
static void buffered(struct flash *f, uint64_t offset, uint8_t value)
{
    if (!f->counted) {
        f->left = value + 1u;
        f->counted = true;
        memset(f->buffer, 0xff, sizeof f->buffer);
    } else if (f->left) {
        f->left--;
        if (f->first == f->end)
            f->first = f->end = offset & ~(uint64_t)(BUFFER_SIZE - 1);
        if (offset < f->first || offset - f->first >= BUFFER_SIZE) {
            f->failed = true;
            return;
        }
        f->buffer[offset - f->first] = value;
        f->end = f->first + BUFFER_SIZE;
    } else {
        bool ok = value == CONFIRM && !f->failed && f->first < f->end && f->end <= f->size;
        for (uint64_t i = 0; ok && i < BUFFER_SIZE; i++)
            if (f->buffer[i] != 0xff)
                program(f, f->first + i, f->buffer[i]);
        finish(f, ok ? 0 : STATUS_PROGRAM_ERROR);
    }
}

static void write_byte(struct flash *f, uint64_t offset, uint8_t value)
{
    uint64_t block = offset & ~(uint64_t)(FLASH_BLOCK - 1);
    switch (f->command) {
    case 0:
        begin_command(f, value);
        break;
    case PROGRAM:
    case PROGRAM_ALTERNATE:
        program(f, offset, value);
        finish(f, 0);
        break;
    case ERASE:
        if (value == CONFIRM) {
            memset(f->array + block, 0xff, FLASH_BLOCK);
            note_change(f, block, FLASH_BLOCK);
        }
        finish(f, value == CONFIRM ? 0 : STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR);
        break;
    case LOCK: /* accepted; nothing is ever locked */
        finish(f, 0);
        break;
    default:
        buffered(f, offset, value);
    }
}

/* A wider write is one of each byte only as data of a program command: commands are in the low
 * byte. */
static void flash_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct flash *f = opaque;
    bool data = f->command == PROGRAM || f->command == PROGRAM_ALTERNATE;
    for (unsigned i = 1; data && i < size; i++)
        program(f, offset + i, (uint8_t)(value >> (8 * i)));
    write_byte(f, offset, (uint8_t)value);
}

static const struct io_ops ops = {flash_read, flash_write, 8};

/* The array is no state of the machine: like a disk it belongs to the file behind it. */
static const struct state_field fields[] = {
    STATE(struct flash, status, 0),          STATE(struct flash, mode, READ_ARRAY),
    STATE(struct flash, command, 0),         STATE(struct flash, left, 0),
    STATE(struct flash, counted, 0),         STATE(struct flash, failed, 0),
    STATE(struct flash, first, 0),           STATE(struct flash, end, 0),
    STATE_ARRAY(struct flash, buffer, 0xff),
};

static void after_load(void *opaque)
{
    struct flash *f = opaque;
    f->first &= ~(uint64_t)(BUFFER_SIZE - 1);
    if (f->first >= f->size || (f->end != f->first && f->end != f->first + BUFFER_SIZE))
        f->first = f->end = 0;
}

static const struct state_table table = {
    .name = "flash",
    .version = 1,
    .size = sizeof(struct flash),
    .fields = fields,
    .field_count = ARRAY_SIZE(fields),
    .after_reset = tell_change,
    .after_load = after_load,
};

static void destroy(void *opaque)
{
    struct flash *f = opaque;
    tell_change(f);
    free(f->array);
    free(f);
}

struct flash *flash_create(struct device_env *env, uint64_t base, const void *contents,
                           uint64_t size, flash_changed *changed, void *opaque)
{
    struct flash *f = calloc(1, sizeof *f);
    uint8_t *array = malloc(size);
    if (!f || !array || !bus_add(env->mmio, base, size, &ops, f, "flash")) {
        free(array);
        free(f);
        return NULL;
    }
    memcpy(array, contents, size);
    f->env = env;
    f->array = array;
    f->size = size;
    f->changed = changed;
    f->opaque = opaque;
    device_register(env, &table, f, destroy);
    return f;
}
