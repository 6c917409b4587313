/*
 * A SCSI target that is a disk: it executes command descriptor blocks (SPC-4, SBC-3) on an image. A
 * host bus adapter gives it a request with the guest's memory as a list of host addresses, and
 * hears of the end through done().
 */
#ifndef TRIVISOR_DEV_SCSI_H
#define TRIVISOR_DEV_SCSI_H

#include "dev/device.h"
#include "disk/disk.h"

#define SCSI_CDB_MAX   16
#define SCSI_SENSE_MAX 18

enum scsi_status { SCSI_GOOD = 0, SCSI_CHECK_CONDITION = 2 };

struct scsi_disk;

struct scsi_request {
    /* The adapter's. The list is the target's to shorten until done(). */
    uint8_t cdb[SCSI_CDB_MAX];
    unsigned lun;
    struct iovec *iov; /* the data buffer, for either direction */
    unsigned iov_count;
    uint64_t length; /* of the buffer */
    bool can_read;   /* data may go into the buffer */
    bool can_write;  /* data may come from it */
    /* Once for each request, with the device lock held; perhaps before scsi_submit() returns. */
    void (*done)(struct scsi_request *request);
    void *opaque;

    /* The answer. */
    enum scsi_status status;
    bool overrun;         /* the command has more data than the buffer: nothing was done */
    uint64_t transferred; /* bytes in or out of the buffer */
    uint8_t sense[SCSI_SENSE_MAX];
    unsigned sense_length; /* 0 unless CHECK CONDITION */

    /* The target's, while the command runs. */
    struct scsi_disk *target;
    struct disk_request disk;
    uint8_t *buffer;       /* what the command allocated */
    unsigned next, ranges; /* of an UNMAP */
};

/* A target on `disk`, which stays the caller's. `serial` is at most 20 characters. NULL: no memory.
 */
struct scsi_disk *scsi_disk_create(struct device_env *env, struct disk *disk, const char *serial);
/* Device lock held; it is let go while the host carries out or takes the request. */
void scsi_submit(struct scsi_disk *target, struct scsi_request *request);
/* A bus device reset: nothing is under way. */
void scsi_disk_reset(struct scsi_disk *target);

#endif
