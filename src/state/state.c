#include "state/state.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

static const uint8_t type_size[] = {
    [STATE_U8] = 1,  [STATE_U16] = 2,  [STATE_U32] = 4,
    [STATE_U64] = 8, [STATE_BOOL] = 1, [STATE_BYTES] = 1,
};

void state_reset(const struct state_table *table, void *device)
{
    for (uint32_t i = 0; i < table->field_count; i++) {
        const struct state_field *f = &table->fields[i];
        unsigned size = type_size[f->type];
        char *at = (char *)device + f->offset;
        if (f->reset == 0)
            memset(at, 0, (size_t)f->count * size);
        else
            for (uint32_t n = 0; n < f->count; n++)
                memcpy(at + (size_t)n * size, &f->reset, size); /* little-endian host */
    }
    if (table->after_reset)
        table->after_reset(device);
}

void state_print(const struct state_table *table, void *device, FILE *out)
{
    if (table->before_save)
        table->before_save(device);
    fprintf(out, "%s (version %u)\n", table->name, table->version);
    for (uint32_t i = 0; i < table->field_count; i++) {
        const struct state_field *f = &table->fields[i];
        unsigned size = type_size[f->type];
        fprintf(out, "  %s =", f->name);
        for (uint32_t n = 0; n < f->count; n++) {
            uint64_t value = 0;
            memcpy(&value, (char *)device + f->offset + (size_t)n * size, size);
            fprintf(out, " 0x%" PRIx64, value);
        }
        fputc('\n', out);
    }
}
