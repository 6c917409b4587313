/* The SCSI target's mode pages (SPC-4, 6.11, 6.13, 7.5): MODE SENSE and MODE SELECT. */
#include "dev/dma.h"
#include "dev/scsi_internal.h"
#include "util/util.h"

#define PARAMETERS_MAX 512 /* of a MODE SELECT */

enum page_control { CURRENT, CHANGEABLE, DEFAULT, SAVED };

#define CACHE_WCE 0x04

static const struct {
    uint8_t code, length; /* of what follows the length */
} mode_pages[] = {{0x01, 10}, {0x08, 18}, {0x0a, 10}, {0x1c, 10}};

/* One page; returns its length. */
static unsigned mode_page(const struct scsi_disk *t, unsigned i, enum page_control pc, uint8_t *d)
{
    d[0] = mode_pages[i].code;
    d[1] = mode_pages[i].length;
    if (d[0] == 0x08 && (pc == CURRENT ? t->write_cache : true))
        d[2] = CACHE_WCE;
    if (d[0] == 0x01 && pc != CHANGEABLE)
        d[2] = 0x80; /* automatic write reallocation */
    if (d[0] == 0x0a && pc != CHANGEABLE)
        d[3] = 0x10; /* commands may be reordered */
    return 2u + mode_pages[i].length;
}

void scsi_mode_sense(struct scsi_request *r)
{
    const struct scsi_disk *t = r->target;
    bool ten = r->cdb[0] == 0x5a;
    enum page_control pc = r->cdb[2] >> 6;
    unsigned page = r->cdb[2] & 0x3f, header = ten ? 8 : 4;
    uint8_t d[REPLY_MAX] = {0};
    unsigned length = header;
    if (pc == SAVED)
        return scsi_fail(r, NO_SAVED_PARAMETERS);
    if (r->cdb[3] != 0 && r->cdb[3] != 0xff)
        return scsi_fail(r, INVALID_FIELD);
    uint8_t specific = 0x10; /* DPO and FUA */
    if (disk_read_only(t->disk))
        specific |= 0x80;
    d[ten ? 3 : 2] = specific;
    if (!(r->cdb[1] & 8)) { /* a block descriptor */
        d[header - 1] = 8;
        put32(d + header, MIN(t->blocks, (uint64_t)UINT32_MAX));
        put32(d + header + 4, BLOCK);
        length += 8;
    }
    bool found = page == 0x3f;
    for (unsigned i = 0; i < ARRAY_SIZE(mode_pages); i++)
        if (page == 0x3f || page == mode_pages[i].code) {
            length += mode_page(t, i, pc, d + length);
            found = true;
        }
    if (!found)
        return scsi_fail(r, INVALID_FIELD);
    if (ten)
        put16(d, length - 2);
    else
        d[0] = (uint8_t)(length - 1);
    scsi_reply(r, d, length, ten ? get16(r->cdb + 7) : r->cdb[4]);
}

/* Take one page of a MODE SELECT: 0, or the sense. */
static uint32_t select_page(struct scsi_disk *t, const uint8_t *p, unsigned left, unsigned *length,
                            bool *write_cache)
{
    for (unsigned i = 0; i < ARRAY_SIZE(mode_pages); i++) {
        if ((p[0] & 0x3f) != mode_pages[i].code)
            continue;
        uint8_t now[32] = {0}, mask[32] = {0};
        *length = mode_page(t, i, CURRENT, now);
        mode_page(t, i, CHANGEABLE, mask);
        if (*length > left || p[1] != now[1])
            return PARAMETER_LIST_LENGTH;
        for (unsigned at = 2; at < *length; at++)
            if ((p[at] ^ now[at]) & ~mask[at])
                return INVALID_PARAMETER;
        if (mode_pages[i].code == 0x08)
            *write_cache = p[2] & CACHE_WCE;
        return NO_SENSE;
    }
    return INVALID_PARAMETER;
}

void scsi_mode_select(struct scsi_request *r)
{
    struct scsi_disk *t = r->target;
    bool ten = r->cdb[0] == 0x55, write_cache = t->write_cache;
    unsigned length = ten ? get16(r->cdb + 7) : r->cdb[4], header = ten ? 8 : 4;
    uint8_t d[PARAMETERS_MAX];
    if (!(r->cdb[1] & 0x10) || (r->cdb[1] & 1)) /* pages as the standard has them, none saved */
        return scsi_fail(r, INVALID_FIELD);
    if (!length)
        return scsi_good(r);
    if (length < header || length > sizeof d || !r->can_write ||
        dma_get(r->iov, r->iov_count, 0, d, length) != length)
        return scsi_fail(r, PARAMETER_LIST_LENGTH);
    unsigned at = header + (ten ? get16(d + 6) : d[3]);
    if (at > length)
        return scsi_fail(r, PARAMETER_LIST_LENGTH);
    while (at < length) {
        unsigned size = 0;
        uint32_t error = length - at < 2 ? (uint32_t)PARAMETER_LIST_LENGTH
                                         : select_page(t, d + at, length - at, &size, &write_cache);
        if (error)
            return scsi_fail(r, error);
        at += size;
    }
    r->transferred = length;
    bool flush = t->write_cache && !write_cache;
    t->write_cache = write_cache;
    if (flush) /* what the cache holds has to be safe from now on */
        scsi_start(r, DISK_FLUSH, 0, 0);
    else
        scsi_good(r);
}
