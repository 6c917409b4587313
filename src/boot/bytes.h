/* Little-endian fields of files and tables, at any alignment. */
#ifndef TRIVISOR_BOOT_BYTES_H
#define TRIVISOR_BOOT_BYTES_H

#include <stdint.h>
#include <string.h>

static inline uint16_t get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint64_t get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void put16(void *p, uint16_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void put32(void *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}
static inline void put64(void *p, uint64_t v)
{
    memcpy(p, &v, sizeof v);
}

/* Does [offset, offset + len) lie within `size` bytes? */
static inline int range_ok(uint64_t offset, uint64_t len, uint64_t size)
{
    return offset <= size && len <= size - offset;
}

/* What must be added to make the bytes sum to zero: every firmware table's checksum. */
static inline uint8_t checksum(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint8_t sum = 0;
    while (len--)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

#endif
