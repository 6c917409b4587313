/* What the files of the SCSI target share. */
#ifndef TRIVISOR_DEV_SCSI_INTERNAL_H
#define TRIVISOR_DEV_SCSI_INTERNAL_H

#include "dev/scsi.h"

#define BLOCK       DISK_SECTOR
#define SERIAL_SIZE 20
#define REPLY_MAX   512

/* Sense key << 16 | additional sense code << 8 | qualifier. */
enum sense {
    NO_SENSE = 0,
    NOT_READY_START_NEEDED = 0x020402,
    MEDIUM_WRITE_ERROR = 0x030c00,
    MEDIUM_READ_ERROR = 0x031100,
    INTERNAL_FAILURE = 0x044400,
    PARAMETER_LIST_LENGTH = 0x051a00,
    INVALID_COMMAND = 0x052000,
    OUT_OF_RANGE = 0x052100,
    INVALID_FIELD = 0x052400,
    NO_SUCH_LUN = 0x052500,
    INVALID_PARAMETER = 0x052600,
    NO_SAVED_PARAMETERS = 0x053900,
    AFTER_RESET = 0x062900,
    WRITE_PROTECTED = 0x072700,
    NO_SPACE = 0x072707,
};

struct scsi_disk {
    struct device_env *env;
    struct disk *disk;
    uint64_t blocks;
    char serial[SERIAL_SIZE + 1];
    bool write_cache;
    bool stopped;
    uint32_t attention; /* enum sense that the next command reports */
};

static inline unsigned get16(const uint8_t *p)
{
    return (unsigned)p[0] << 8 | p[1];
}

static inline uint32_t get24(const uint8_t *p)
{
    return (uint32_t)p[0] << 16 | get16(p + 1);
}

static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static inline void put16(uint8_t *p, uint64_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void put32(uint8_t *p, uint64_t value)
{
    put16(p, value >> 16);
    put16(p + 2, value);
}

static inline void put64(uint8_t *p, uint64_t value)
{
    put32(p, value >> 32);
    put32(p + 4, value);
}

/* How a command ends: well; with a sense; with data of which the initiator wants `room` bytes; or
 * when the disk has done something, `blocks` from `block` on. */
void scsi_good(struct scsi_request *r);
void scsi_fail(struct scsi_request *r, uint32_t sense);
void scsi_reply(struct scsi_request *r, const uint8_t *data, uint64_t length, uint64_t room);
void scsi_start(struct scsi_request *r, enum disk_op op, uint64_t block, uint64_t blocks);

/* scsi_mode.c */
void scsi_mode_sense(struct scsi_request *r);
void scsi_mode_select(struct scsi_request *r);

#endif
