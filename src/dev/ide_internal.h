/* What the files of the IDE controller share: channels and drives, and how data moves. */
#ifndef TRIVISOR_DEV_IDE_INTERNAL_H
#define TRIVISOR_DEV_IDE_INTERNAL_H

#include "dev/dma.h"
#include "dev/ide.h"

#define IDE_BUFFER   0x10000u
#define IDE_PACKET   12
#define ATAPI_SECTOR 2048u

/* Status and error registers. */
enum { ST_ERR = 0x01, ST_DRQ = 0x08, ST_DSC = 0x10, ST_DF = 0x20, ST_DRDY = 0x40, ST_BSY = 0x80 };
enum { ER_ABRT = 0x04, ER_IDNF = 0x10, ER_UNC = 0x40 };
#define ST_READY (ST_DRDY | ST_DSC)
/* Interrupt reason of packet devices, in the sector count register. */
enum { REASON_CD = 1, REASON_IO = 2 };

enum ide_phase {
    IDE_IDLE,
    IDE_PIO_IN,     /* the guest reads the buffer */
    IDE_PIO_OUT,    /* the guest fills it */
    IDE_PACKET_OUT, /* the same, with a packet command */
    IDE_DMA_IN,
    IDE_DMA_OUT,
};

/* Power modes, as CHECK POWER MODE tells them. */
enum ide_power { IDE_STANDBY = 0x00, IDE_POWER_IDLE = 0x80, IDE_ACTIVE = 0xff };

/* Media events of a CD-ROM drive, as GET EVENT STATUS NOTIFICATION tells them. */
enum ide_media_event { EVENT_NONE, EVENT_EJECT_REQUEST, EVENT_NEW_MEDIUM, EVENT_REMOVAL };

/* The task file. Each register but the device register has a previous value, for LBA48. */
struct ide_registers {
    uint8_t feature, count, lba[3];
    uint8_t old_count, old_lba[3];
    uint8_t device, status, error;
};

struct ide_drive {
    struct disk *disk;
    bool present, cdrom;
    struct ide_registers regs;
    uint64_t sectors; /* of 512 or, CD-ROM, 2048 bytes */
    uint8_t heads, spt;
    uint8_t multiple;    /* sectors in a block of READ MULTIPLE; 0: off */
    uint8_t mwdma, udma; /* mode chosen, or 0xff */
    bool write_cache, look_ahead, smart;
    uint8_t apm;     /* level of advanced power management; 0: off */
    uint8_t power;   /* enum ide_power */
    uint64_t hidden; /* sectors at the end that SET MAX ADDRESS took away */
    /* CD-ROM */
    uint8_t sense, asc, ascq;
    bool locked, tray_open, changed; /* changed: a unit attention is due */
    uint8_t event;                   /* enum ide_media_event, to be reported */
};

struct ide_channel {
    struct ide *ide;
    unsigned number;
    struct irq_line irq;
    struct ide_drive drives[2];
    uint8_t control;
    bool interrupt; /* the drive's INTRQ */
    /* bus master */
    uint8_t bm_command, bm_status;
    uint32_t prd;
    /* the transfer */
    uint8_t phase; /* enum ide_phase */
    bool packet;   /* for a packet command */
    bool media;    /* to or from the disk at `offset`; else only the buffer */
    bool fua;
    uint64_t offset, remaining; /* bytes after the buffer's */
    uint32_t block;             /* bytes of a PIO block */
    uint32_t position, length;  /* in the buffer */
    uint8_t buffer[IDE_BUFFER];
    uint32_t generation; /* of commands: what ends later belongs to an aborted one */
    bool submitted;      /* the command's DMA is under way: starting the bus master does nothing */
    struct dma_count dma;
};

struct ide {
    struct device_env *env;
    struct pci_device pci;
    struct ide_channel channels[2];
};

static inline struct ide_drive *ide_selected(struct ide_channel *ch)
{
    return &ch->drives[ch->drives[0].regs.device >> 4 & 1];
}

/* ---- ide_transfer.c ---- */
void ide_interrupt(struct ide_channel *ch);
/* The command ends well, or with an error (status ERR); the guest gets an interrupt. */
void ide_done(struct ide_channel *ch);
void ide_fail(struct ide_channel *ch, uint8_t error);
/* `length` bytes in the buffer go to the guest, by PIO or, `dma`, by bus master. */
void ide_send(struct ide_channel *ch, uint32_t length, bool dma);
/* Bytes of the disk from `offset` on, in blocks. */
void ide_read_disk(struct ide_channel *ch, uint64_t offset, uint64_t bytes, uint32_t block,
                   bool dma);
void ide_write_disk(struct ide_channel *ch, uint64_t offset, uint64_t bytes, uint32_t block,
                    bool dma, bool fua);
void ide_flush_disk(struct ide_channel *ch);
/* The guest has read or filled the whole buffer. */
void ide_buffer_done(struct ide_channel *ch);
/* The bus master was started. */
void ide_dma_start(struct ide_channel *ch);
/* Whatever is under way counts no more. */
void ide_abort(struct ide_channel *ch);

/* ---- ide.c ---- */
/* Sectors of the medium, whatever SET MAX ADDRESS hides. */
uint64_t ide_native_sectors(const struct ide_drive *d);

/* ---- ide_ata.c ---- */
void ata_command(struct ide_channel *ch, uint8_t command);
void ata_identify_strings(uint16_t *words, unsigned unit, bool cdrom);
void ata_set_signature(struct ide_drive *d);

/* ---- ide_atapi.c ---- */
void atapi_identify(struct ide_channel *ch);
/* The PACKET command, the bytes of the packet (in the buffer), the end of a transfer, a read that
 * failed. */
void atapi_begin(struct ide_channel *ch);
void atapi_packet(struct ide_channel *ch);
void atapi_done(struct ide_channel *ch);
void atapi_read_failed(struct ide_channel *ch);

#endif
