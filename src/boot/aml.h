/*
 * Writing ACPI Machine Language (ACPI specification, chapter 20) into a buffer. Objects that
 * contain others are opened and closed; closing puts the length in. Running out of room sets
 * `overflow` and drops what follows.
 */
#ifndef TRIVISOR_BOOT_AML_H
#define TRIVISOR_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH_MAX 8

struct aml {
    uint8_t *data;
    size_t size, capacity;
    bool overflow;
    size_t open[AML_DEPTH_MAX]; /* where the contents of each open object begin */
    unsigned depth;
};

void aml_init(struct aml *aml, void *data, size_t capacity);
void aml_close(struct aml *aml);

/* A name is "\\_SB_" or "PCI0": four characters, with an optional root prefix. */
void aml_open_scope(struct aml *aml, const char *name);
void aml_open_device(struct aml *aml, const char *name);
void aml_open_package(struct aml *aml, uint8_t elements);
/* Starts a Name whose object is written next. */
void aml_name(struct aml *aml, const char *name);

void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
/* "PNP0A03" as the compressed 32-bit number. */
void aml_eisa_id(struct aml *aml, const char *id);

/* Name(name, value), for the commonest kinds of value. */
void aml_name_integer(struct aml *aml, const char *name, uint64_t value);
void aml_name_string(struct aml *aml, const char *name, const char *text);
void aml_name_eisa_id(struct aml *aml, const char *name, const char *id);

/* A resource template: descriptors are written between opening and closing. */
void aml_open_resources(struct aml *aml);
void aml_close_resources(struct aml *aml);
void aml_res_io(struct aml *aml, uint16_t base, uint8_t length);
void aml_res_irq(struct aml *aml, unsigned irq);
void aml_res_memory_fixed(struct aml *aml, uint32_t base, uint32_t length);
/* Windows that a bridge passes on to the bus behind it. */
void aml_res_bus_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_res_memory_window(struct aml *aml, uint32_t first, uint32_t last);

#endif
