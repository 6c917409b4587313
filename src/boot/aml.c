#include "boot/aml.h"

#include <string.h>

#include "util/util.h"

enum {
    OP_ZERO = 0x00,
    OP_ONE = 0x01,
    OP_NAME = 0x08,
    OP_BYTE = 0x0a,
    OP_WORD = 0x0b,
    OP_DWORD = 0x0c,
    OP_STRING = 0x0d,
    OP_QWORD = 0x0e,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_EXT = 0x5b,
    OP_EXT_DEVICE = 0x82,
};

/* Resource descriptors */
enum {
    RES_IRQ = 0x22,
    RES_IO = 0x47,
    RES_END = 0x79,
    RES_MEMORY32_FIXED = 0x86,
    RES_DWORD_SPACE = 0x87,
    RES_WORD_SPACE = 0x88,
};
enum { SPACE_MEMORY, SPACE_IO, SPACE_BUS };

#define SPACE_MIN_MAX_FIXED 0x0c
#define SPACE_IO_ENTIRE     0x03
#define SPACE_MEMORY_RW     0x01
#define IO_DECODE16         0x01

void aml_init(struct aml *aml, void *data, size_t capacity)
{
    *aml = (struct aml){.data = data, .capacity = capacity};
}

static void put_bytes(struct aml *aml, const void *bytes, size_t n)
{
    if (n > aml->capacity - aml->size) {
        aml->overflow = true;
        return;
    }
    memcpy(aml->data + aml->size, bytes, n);
    aml->size += n;
}

static void put_number(struct aml *aml, uint64_t value, unsigned bytes)
{
    put_bytes(aml, &value, bytes);
}

static void put_byte(struct aml *aml, uint8_t value)
{
    put_bytes(aml, &value, 1);
}

static void put_name(struct aml *aml, const char *name)
{
    put_bytes(aml, name, strlen(name));
}

static void open_here(struct aml *aml)
{
    if (aml->depth == AML_DEPTH_MAX) {
        aml->overflow = true;
        return;
    }
    aml->open[aml->depth++] = aml->size;
}

/* PkgLength counts itself: 6 bits in one byte, or 4 bits and one to three more bytes. */
void aml_close(struct aml *aml)
{
    if (aml->overflow || !aml->depth)
        return;
    size_t start = aml->open[--aml->depth], body = aml->size - start;
    uint8_t length[4];
    unsigned n = body + 1 < 64 ? 1 : body + 2 < 1u << 12 ? 2 : body + 3 < 1u << 20 ? 3 : 4;
    size_t value = body + n;
    if (n == 1) {
        length[0] = (uint8_t)value;
    } else {
        length[0] = (uint8_t)((n - 1) << 6 | (value & 0xf));
        for (unsigned i = 1; i < n; i++)
            length[i] = (uint8_t)(value >> (4 + 8 * (i - 1)));
    }
    put_bytes(aml, length, n); /* makes room, or overflows */
    if (aml->overflow)
        return;
    memmove(aml->data + start + n, aml->data + start, body);
    memcpy(aml->data + start, length, n);
}

void aml_open_scope(struct aml *aml, const char *name)
{
    put_byte(aml, OP_SCOPE);
    open_here(aml);
    put_name(aml, name);
}

void aml_open_device(struct aml *aml, const char *name)
{
    put_byte(aml, OP_EXT);
    put_byte(aml, OP_EXT_DEVICE);
    open_here(aml);
    put_name(aml, name);
}

void aml_open_package(struct aml *aml, uint8_t elements)
{
    put_byte(aml, OP_PACKAGE);
    open_here(aml);
    put_byte(aml, elements);
}

void aml_name(struct aml *aml, const char *name)
{
    put_byte(aml, OP_NAME);
    put_name(aml, name);
}

void aml_integer(struct aml *aml, uint64_t value)
{
    if (value <= 1) {
        put_byte(aml, value ? OP_ONE : OP_ZERO);
        return;
    }
    unsigned bytes = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;
    static const uint8_t ops[9] = {[1] = OP_BYTE, [2] = OP_WORD, [4] = OP_DWORD, [8] = OP_QWORD};
    put_byte(aml, ops[bytes]);
    put_number(aml, value, bytes);
}

void aml_string(struct aml *aml, const char *text)
{
    put_byte(aml, OP_STRING);
    put_bytes(aml, text, strlen(text) + 1);
}

void aml_eisa_id(struct aml *aml, const char *id)
{
    /* Three letters of five bits, four hexadecimal digits, most significant byte first. */
    uint32_t value = 0;
    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | (uint32_t)((id[i] - '@') & 0x1f);
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | (uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
    put_byte(aml, OP_DWORD);
    put_number(aml, __builtin_bswap32(value), 4);
}

void aml_name_integer(struct aml *aml, const char *name, uint64_t value)
{
    aml_name(aml, name);
    aml_integer(aml, value);
}

void aml_name_string(struct aml *aml, const char *name, const char *text)
{
    aml_name(aml, name);
    aml_string(aml, text);
}

void aml_name_eisa_id(struct aml *aml, const char *name, const char *id)
{
    aml_name(aml, name);
    aml_eisa_id(aml, id);
}

/* A template is a buffer whose length, as an integer object, comes before its bytes: a word is
 * always enough, and is filled in at the end. */
void aml_open_resources(struct aml *aml)
{
    put_byte(aml, OP_BUFFER);
    open_here(aml);
    put_byte(aml, OP_WORD);
    put_number(aml, 0, 2);
}

void aml_close_resources(struct aml *aml)
{
    put_byte(aml, RES_END);
    put_byte(aml, 0); /* checksum: 0 stands for "not used" */
    if (aml->overflow || !aml->depth)
        return;
    size_t start = aml->open[aml->depth - 1];
    uint16_t length = (uint16_t)(aml->size - start - 3);
    memcpy(aml->data + start + 1, &length, sizeof length);
    aml_close(aml);
}

void aml_res_io(struct aml *aml, uint16_t base, uint8_t length)
{
    put_byte(aml, RES_IO);
    put_byte(aml, IO_DECODE16);
    put_number(aml, base, 2);
    put_number(aml, base, 2);
    put_byte(aml, 1);
    put_byte(aml, length);
}

void aml_res_irq(struct aml *aml, unsigned irq)
{
    put_byte(aml, RES_IRQ);
    put_number(aml, BIT(irq), 2);
}

void aml_res_memory_fixed(struct aml *aml, uint32_t base, uint32_t length)
{
    put_byte(aml, RES_MEMORY32_FIXED);
    put_number(aml, 9, 2);
    put_byte(aml, 1); /* writable */
    put_number(aml, base, 4);
    put_number(aml, length, 4);
}

static void space(struct aml *aml, unsigned bytes, uint8_t type, uint8_t flags, uint32_t first,
                  uint32_t last)
{
    put_byte(aml, bytes == 2 ? RES_WORD_SPACE : RES_DWORD_SPACE);
    put_number(aml, 3 + 5 * bytes, 2);
    put_byte(aml, type);
    put_byte(aml, SPACE_MIN_MAX_FIXED);
    put_byte(aml, flags);
    put_number(aml, 0, bytes); /* granularity */
    put_number(aml, first, bytes);
    put_number(aml, last, bytes);
    put_number(aml, 0, bytes); /* translation */
    put_number(aml, last - first + 1, bytes);
}

void aml_res_bus_window(struct aml *aml, uint16_t first, uint16_t last)
{
    space(aml, 2, SPACE_BUS, 0, first, last);
}

void aml_res_io_window(struct aml *aml, uint16_t first, uint16_t last)
{
    space(aml, 2, SPACE_IO, SPACE_IO_ENTIRE, first, last);
}

void aml_res_memory_window(struct aml *aml, uint32_t first, uint32_t last)
{
    space(aml, 4, SPACE_MEMORY, SPACE_MEMORY_RW, first, last);
}
