/* What the two files of the floppy controller share. */
#ifndef TRIVISOR_DEV_FDC_INTERNAL_H
#define TRIVISOR_DEV_FDC_INTERNAL_H

#include "dev/fdc.h"

#define DMA_CHANNEL 2
#define SECTOR      512u
#define SIZE_CODE   2 /* N: 128 << N bytes */
#define TRACK_LAST  83
#define RECAL_STEPS 79
#define SPT_MAX     36
#define FIFO_SIZE   16
#define POLLED      4 /* drives that the controller polls, there or not */

enum { DSR_RATE = 0x03, DSR_RESET = 0x80 };
enum { ST0_CHECK = 0x10, ST0_SEEK = 0x20, ST0_FAILED = 0x40, ST0_INVALID = 0x80, ST0_POLL = 0xc0 };
enum { ST1_MARK = 0x01, ST1_PROTECTED = 0x02, ST1_NO_DATA = 0x04, ST1_DATA = 0x20, ST1_END = 0x80 };
enum { ST2_BAD_CYLINDER = 0x02, ST2_WRONG_CYLINDER = 0x10, ST2_DATA = 0x20, ST2_MARK = 0x40 };
enum { CONFIG_NO_POLL = 0x10, CONFIG_NO_FIFO = 0x20, CONFIG_SEEK = 0x40, CONFIG_RESET = 0x20 };
enum { COMMAND_MT = 0x80, COMMAND_MFM = 0x40 };

struct geometry {
    uint16_t sectors;
    uint8_t tracks, heads, spt;
    uint8_t rate; /* 0: 500 kbit/s, 1: 300, 2: 250, 3: 1000 */
    uint8_t type; /* of the drive, in the CMOS */
};

enum phase {
    PHASE_COMMAND,
    PHASE_RESULT,
    PHASE_TO_HOST,   /* the buffer goes to the guest */
    PHASE_FROM_HOST, /* the guest fills it */
    PHASE_READING,   /* the disk is asked */
    PHASE_WRITING,
};

struct drive {
    bool present, read_only;
    struct disk *disk;
    const struct geometry *medium; /* NULL: none */
    uint8_t track;                 /* where the head is */
    uint8_t pcn;                   /* where the controller believes it to be */
    bool changed;
};

struct fdc {
    struct device_env *env;
    struct dma8237 *dma;
    struct irq_line irq;
    struct drive drives[FDC_DRIVES];
    uint8_t dor, tdr, dsr;
    uint8_t specify[2], config, pretrk, perpendicular;
    bool lock;
    uint8_t sense[POLLED]; /* ST0 for SENSE INTERRUPT STATUS */
    bool sense_due[POLLED];
    bool interrupt; /* of a command */
    uint8_t phase;  /* enum phase */
    uint8_t fifo[FIFO_SIZE];
    uint8_t position, length; /* in fifo */
    /* The command that moves data */
    uint8_t command, unit, head;
    uint8_t chrn[4], eot, filler, verify_count;
    bool terminal, format;
    uint32_t data_position, data_length;
    uint8_t data[SPT_MAX * SECTOR];
    uint32_t generation; /* of commands: what ends later belongs to an aborted one */
};

/* NULL: there is no such drive. */
static inline struct drive *fdc_drive_at(struct fdc *fdc, unsigned unit)
{
    return unit < FDC_DRIVES && fdc->drives[unit].present ? &fdc->drives[unit] : NULL;
}

static inline bool fdc_uses_dma(const struct fdc *fdc)
{
    return !(fdc->specify[1] & 1);
}

/* ---- fdc.c ---- */
/* The line of a command, gated by the DOR. */
void fdc_set_interrupt(struct fdc *fdc, bool on);
/* The seven bytes that end a command with data, and the interrupt that comes with them. */
void fdc_result_data(struct fdc *fdc, uint8_t st0, uint8_t st1, uint8_t st2);

/* ---- fdc_transfer.c ---- */
/* Can the head read, or write, this track at all? Ends the command if not. */
bool fdc_track_readable(struct fdc *fdc);
/* Begin with the sector that CHRN names, or go on with it. */
void fdc_next_sector(struct fdc *fdc);
/* The buffer waits for the guest or its DMA channel. */
void fdc_offer_data(struct fdc *fdc, enum phase phase, uint32_t length);
/* All that the guest gives or takes of the buffer has been moved. */
void fdc_data_moved(struct fdc *fdc);
void fdc_dma_ready(void *fdc);

#endif
