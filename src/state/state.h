/*
 * A device's state as a table. Reset, snapshots, migration and the debugger use the same table, so
 * every device has one from its first line of code.
 */
#ifndef TRIVISOR_STATE_STATE_H
#define TRIVISOR_STATE_STATE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum state_type { STATE_U8, STATE_U16, STATE_U32, STATE_U64, STATE_BOOL, STATE_BYTES };

struct state_field {
    const char *name;
    uint32_t offset;      /* in the device's struct */
    uint32_t count;       /* number of elements: 1 for a scalar */
    enum state_type type; /* type of one element */
    uint16_t since;       /* version of the table in which the field appeared (1 at first) */
    uint64_t reset;       /* value of every element after reset */
};

struct state_table {
    const char *name; /* of the device, as the snapshot file has it */
    uint16_t version;
    uint32_t size; /* sizeof the device's struct; offsets are checked against it */
    const struct state_field *fields;
    uint32_t field_count;
    void (*after_reset)(void *device); /* recompute what follows from the fields; may be NULL */
    void (*before_save)(
        void *device); /* bring the fields up to date (a running counter); may be NULL */
    void (*after_load)(void *device); /* re-arm timers, lines, mappings; may be NULL */
};

#define STATE_TYPE_OF(x)                                                                           \
    _Generic((x), uint8_t                                                                          \
             : STATE_U8, uint16_t                                                                  \
             : STATE_U16, uint32_t                                                                 \
             : STATE_U32, uint64_t                                                                 \
             : STATE_U64, int64_t                                                                  \
             : STATE_U64, int32_t                                                                  \
             : STATE_U32, _Bool                                                                    \
             : STATE_BOOL)

/* A scalar field with its value after reset: STATE(struct pit, gate, 1). */
#define STATE(device, field, reset_value)                                                          \
    {                                                                                              \
#field, offsetof(device, field), 1, STATE_TYPE_OF(((device *)0)->field), 1, (reset_value)  \
    }
/* An array; every element gets the same reset value. */
#define STATE_ARRAY(device, field, reset_value)                                                    \
    {                                                                                              \
#field, offsetof(device, field),                                                           \
            sizeof(((device *)0)->field) / sizeof(((device *)0)->field[0]),                        \
            STATE_TYPE_OF(((device *)0)->field[0]), 1, (reset_value)                               \
    }

/* Set every field to its reset value, then call after_reset. */
void state_reset(const struct state_table *table, void *device);
/* Print every field as "name = value", one a line: the debugger's and --log's view of a device. */
void state_print(const struct state_table *table, void *device, FILE *out);

#endif
