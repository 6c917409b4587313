/* The packet commands of a CD-ROM drive (SFF-8020i, MMC-3), from a table. */
#include <endian.h>
#include <string.h>

#include "dev/ide_internal.h"
#include "util/util.h"

enum sense { NO_SENSE = 0, NOT_READY = 2, MEDIUM_ERROR = 3, ILLEGAL_REQUEST = 5, ATTENTION = 6 };
enum asc {
    ASC_READ_ERROR = 0x11,
    ASC_INVALID_COMMAND = 0x20,
    ASC_OUT_OF_RANGE = 0x21,
    ASC_INVALID_FIELD = 0x24,
    ASC_MEDIUM_CHANGED = 0x28,
    ASC_NOT_SAVED = 0x39,
    ASC_NO_MEDIUM = 0x3a,
    ASC_LOCKED = 0x53,
};

#define PROFILE_CD_ROM  0x0008
#define PROFILE_DVD_ROM 0x0010
#define CD_SECTORS_MAX  (80u * 60 * 75)
#define MODE_HEADER     8

/* The packet at the start of the buffer is copied before the answer goes over it. */
struct packet {
    struct ide_channel *ch;
    struct ide_drive *d;
    uint8_t c[IDE_PACKET];
    bool dma;
};

static uint32_t be16(const uint8_t *p)
{
    return (uint32_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
    return be16(p) << 16 | be16(p + 2);
}

static void put_be16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put_be32(uint8_t *p, uint32_t v)
{
    put_be16(p, v >> 16);
    put_be16(p + 2, v);
}

static void set_sense(struct ide_drive *d, uint8_t sense, uint8_t asc)
{
    d->sense = sense;
    d->asc = asc;
    d->ascq = 0;
    if (asc == ASC_LOCKED)
        d->ascq = 2;
    else if (asc == ASC_NO_MEDIUM)
        d->ascq = d->tray_open ? 2 : 1;
}

/* ---- The ends of a command ---- */

void atapi_done(struct ide_channel *ch)
{
    struct ide_drive *d = ide_selected(ch);
    d->regs.count = REASON_IO | REASON_CD;
    set_sense(d, NO_SENSE, 0);
    ide_done(ch);
}

static void check_condition(struct ide_channel *ch, uint8_t sense, uint8_t asc)
{
    struct ide_drive *d = ide_selected(ch);
    d->regs.count = REASON_IO | REASON_CD;
    set_sense(d, sense, asc);
    ide_fail(ch, (uint8_t)(sense << 4 | ER_ABRT));
}

void atapi_read_failed(struct ide_channel *ch)
{
    check_condition(ch, MEDIUM_ERROR, ASC_READ_ERROR);
}

static void fail(struct packet *p, uint8_t sense, uint8_t asc)
{
    check_condition(p->ch, sense, asc);
}

/* An answer in the buffer, cut to what the guest has room for. */
static void answer(struct packet *p, uint32_t length, uint32_t allowed)
{
    ide_send(p->ch, MIN(length, allowed), p->dma);
}

static uint8_t *clear(struct packet *p, uint32_t length)
{
    return memset(p->ch->buffer, 0, length);
}

/* ---- Commands ---- */

static void cmd_test_ready(struct packet *p)
{
    atapi_done(p->ch);
}

static void cmd_request_sense(struct packet *p)
{
    uint8_t *b = clear(p, 18);
    b[0] = 0x70;
    b[2] = p->d->sense;
    b[7] = 10;
    b[12] = p->d->asc;
    b[13] = p->d->ascq;
    if (p->d->changed && p->d->sense == NO_SENSE) {
        b[2] = ATTENTION;
        b[12] = ASC_MEDIUM_CHANGED;
        p->d->changed = false;
    }
    answer(p, 18, p->c[4]);
}

static void cmd_inquiry(struct packet *p)
{
    if ((p->c[1] & 1) || p->c[2]) { /* no vital product data */
        fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    uint8_t *b = clear(p, 36);
    b[0] = 0x05; /* CD-ROM */
    b[1] = 0x80; /* removable */
    b[3] = 0x21; /* ATAPI, response format 1 */
    b[4] = 31;
    memcpy(b + 8, "Trivisor", 8);
    memcpy(b + 16, "CD-ROM          ", 16);
    memcpy(b + 32, "1.0 ", 4);
    answer(p, 36, be16(p->c + 3));
}

static void cmd_capacity(struct packet *p)
{
    uint8_t *b = clear(p, 8);
    put_be32(b, (uint32_t)(p->d->sectors - 1));
    put_be32(b + 4, ATAPI_SECTOR);
    answer(p, 8, 8);
}

static void read_sectors(struct packet *p, uint32_t lba, uint32_t count)
{
    if (lba > p->d->sectors || count > p->d->sectors - lba) {
        fail(p, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE);
        return;
    }
    if (!count) {
        atapi_done(p->ch);
        return;
    }
    /* By PIO, whole sectors where the guest's limit allows it. */
    uint32_t block = p->ch->block >= ATAPI_SECTOR ? p->ch->block & ~(ATAPI_SECTOR - 1)
                                                  : p->ch->block & ~(uint32_t)(DISK_SECTOR - 1);
    if (!block && !p->dma) {
        fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    ide_read_disk(p->ch, (uint64_t)lba * ATAPI_SECTOR, (uint64_t)count * ATAPI_SECTOR,
                  block ? block : ATAPI_SECTOR, p->dma);
}

static void cmd_read10(struct packet *p)
{
    read_sectors(p, be32(p->c + 2), be16(p->c + 7));
}

static void cmd_read12(struct packet *p)
{
    read_sectors(p, be32(p->c + 2), be32(p->c + 6));
}

/* READ CD: user data of mode 1 sectors alone. */
static void cmd_read_cd(struct packet *p)
{
    uint32_t count = be32(p->c + 5) & 0xffffff;
    switch (p->c[9] & 0xf8) {
    case 0x00:
        atapi_done(p->ch);
        break;
    case 0x10:
        read_sectors(p, be32(p->c + 2), count);
        break;
    default:
        fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
    }
}

static void cmd_seek(struct packet *p)
{
    if (be32(p->c + 2) >= p->d->sectors)
        fail(p, ILLEGAL_REQUEST, ASC_OUT_OF_RANGE);
    else
        atapi_done(p->ch);
}

static void put_address(uint8_t *b, uint32_t lba, bool msf)
{
    if (!msf) {
        put_be32(b, lba);
        return;
    }
    lba += 150; /* two seconds of lead-in */
    b[0] = 0;
    b[1] = (uint8_t)(lba / 75 / 60);
    b[2] = (uint8_t)(lba / 75 % 60);
    b[3] = (uint8_t)(lba % 75);
}

static uint8_t *toc_track(uint8_t *b, uint8_t track, uint32_t lba, bool msf)
{
    b[1] = 0x14; /* data */
    b[2] = track;
    put_address(b + 4, lba, msf);
    return b + 8;
}

/* One descriptor of the raw TOC (format 2). */
static uint8_t *toc_point(uint8_t *b, uint8_t point, uint8_t a, uint8_t second, uint8_t frame)
{
    b[0] = 1;
    b[1] = 0x14;
    b[3] = point;
    b[8] = a;
    b[9] = second;
    b[10] = frame;
    return b + 11;
}

static void cmd_toc(struct packet *p)
{
    bool msf = p->c[1] & 2;
    uint8_t format = p->c[2] & 15 ? p->c[2] & 15 : p->c[9] >> 6;
    uint8_t *b = clear(p, 64), *end = b + 4;
    b[2] = b[3] = 1;
    switch (format) {
    case 0:
        if (p->c[6] > 1 && p->c[6] != 0xaa) {
            fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
            return;
        }
        if (p->c[6] <= 1)
            end = toc_track(end, 1, 0, msf);
        end = toc_track(end, 0xaa, (uint32_t)p->d->sectors, msf);
        break;
    case 1: /* one session */
        end = toc_track(end, 1, 0, msf);
        break;
    case 2: {
        uint8_t out[4];
        put_address(out, (uint32_t)p->d->sectors, true);
        end = toc_point(end, 0xa0, 1, 0, 0);
        end = toc_point(end, 0xa1, 1, 0, 0);
        end = toc_point(end, 0xa2, out[1], out[2], out[3]);
        end = toc_point(end, 1, 0, 2, 0);
        break;
    }
    default:
        fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    put_be16(b, (uint32_t)(end - b) - 2);
    answer(p, (uint32_t)(end - b), be16(p->c + 7));
}

static uint8_t *feature(uint8_t *b, uint16_t code, uint8_t flags, uint8_t extra)
{
    put_be16(b, code);
    b[2] = flags;
    b[3] = extra;
    return b + 4;
}

static uint16_t profile(const struct ide_drive *d)
{
    if (!d->sectors || d->tray_open)
        return 0;
    return d->sectors > CD_SECTORS_MAX ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

enum feature_flag { CURRENT = 1, PERSISTENT = 2 };

static void cmd_configuration(struct packet *p)
{
    uint8_t *b = clear(p, 128), *end = b + 8;
    put_be16(b + 6, profile(p->d));
    end = feature(end, 0, PERSISTENT | CURRENT, 8); /* profile list */
    put_be16(end, PROFILE_DVD_ROM);
    end[2] = profile(p->d) == PROFILE_DVD_ROM;
    put_be16(end + 4, PROFILE_CD_ROM);
    end[6] = profile(p->d) == PROFILE_CD_ROM;
    end = feature(end + 8, 1, 4 | PERSISTENT | CURRENT, 8); /* core: ATAPI */
    put_be32(end, 2);
    end = feature(end + 8, 3, PERSISTENT | CURRENT, 4); /* removable: tray, eject, lock */
    end[0] = 0x29;
    end = feature(end + 4, 0x10, profile(p->d) ? CURRENT : 0, 8); /* random readable */
    put_be32(end, ATAPI_SECTOR);
    put_be16(end + 4, 1);
    end = feature(end + 8, 0x1e, profile(p->d) == PROFILE_CD_ROM ? CURRENT : 0, 4); /* CD read */
    end += 4;
    put_be32(b, (uint32_t)(end - b) - 4);
    answer(p, (uint32_t)(end - b), be16(p->c + 7));
}

/* GET EVENT STATUS NOTIFICATION, polled: media events alone. */
static void cmd_event(struct packet *p)
{
    uint8_t *b = clear(p, 8);
    if (!(p->c[1] & 1)) {
        fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    b[3] = 0x10; /* what there is: media */
    if (!(p->c[4] & 0x10)) {
        b[1] = 2;
        b[2] = 0x80; /* none of those asked for */
        answer(p, 4, be16(p->c + 7));
        return;
    }
    b[1] = 6;
    b[2] = 4;
    b[4] = p->d->event;
    b[5] = (uint8_t)((p->d->tray_open ? 1 : 0) | (profile(p->d) ? 2 : 0));
    p->d->event = 0;
    answer(p, 8, be16(p->c + 7));
}

static void cmd_disc_information(struct packet *p)
{
    uint8_t *b = clear(p, 34);
    put_be16(b, 32);
    b[2] = 0x0e; /* complete, finalised */
    b[3] = b[4] = b[5] = b[6] = 1;
    b[7] = 0x20; /* unrestricted use */
    memset(b + 17, 0xff, 7);
    answer(p, 34, be16(p->c + 7));
}

static void cmd_track_information(struct packet *p)
{
    uint8_t *b = clear(p, 36);
    put_be16(b, 34);
    b[2] = b[3] = 1;
    b[5] = 4; /* data */
    b[6] = 1; /* mode 1 */
    put_be32(b + 24, (uint32_t)p->d->sectors);
    answer(p, 36, be16(p->c + 7));
}

/* READ DVD STRUCTURE: the physical format. */
static void cmd_dvd_structure(struct packet *p)
{
    if (profile(p->d) != PROFILE_DVD_ROM || p->c[7] != 0) {
        fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    uint8_t *b = clear(p, 2052);
    put_be16(b, 2050);
    b[4] = 1;    /* DVD-ROM, version 1 */
    b[5] = 0x0f; /* 120 mm, no maximum rate */
    b[6] = 1;    /* one layer, read-only */
    put_be32(b + 8, 0x30000);
    put_be32(b + 12, (uint32_t)(0x30000 + p->d->sectors - 1));
    answer(p, 2052, be16(p->c + 8));
}

static void cmd_start_stop(struct packet *p)
{
    bool start = p->c[4] & 1, load_eject = p->c[4] & 2;
    if (load_eject && !start && p->d->locked) {
        fail(p, ILLEGAL_REQUEST, ASC_LOCKED);
        return;
    }
    if (load_eject && p->d->tray_open == start) {
        p->d->tray_open = !start;
        p->d->event = start ? EVENT_NEW_MEDIUM : EVENT_REMOVAL;
        p->d->changed = start;
    }
    atapi_done(p->ch);
}

static void cmd_lock(struct packet *p)
{
    p->d->locked = p->c[4] & 1;
    atapi_done(p->ch);
}

/* ---- Mode pages ---- */

static uint8_t *page_error_recovery(uint8_t *b, const struct ide_drive *d)
{
    b[0] = 0x01;
    b[1] = 6;
    b[3] = 5; /* retries */
    return b + 8;
}

static uint8_t *page_capabilities(uint8_t *b, const struct ide_drive *d)
{
    b[0] = 0x2a;
    b[1] = 20;
    b[2] = 0x08;                                  /* reads DVD-ROM */
    b[4] = 0x70;                                  /* mode 2 forms, multi-session */
    b[6] = (uint8_t)(0x29 | (d->locked ? 2 : 0)); /* tray, eject, lock */
    put_be16(b + 8, 706);                         /* KB a second: four times */
    put_be16(b + 12, 512);                        /* buffer */
    put_be16(b + 14, 706);
    return b + 22;
}

static void cmd_mode_sense(struct packet *p)
{
    uint8_t page = p->c[2] & 0x3f;
    if (p->c[2] >> 6 == 3) {
        fail(p, ILLEGAL_REQUEST, ASC_NOT_SAVED);
        return;
    }
    if (page != 0x01 && page != 0x2a && page != 0x3f) {
        fail(p, ILLEGAL_REQUEST, ASC_INVALID_FIELD);
        return;
    }
    uint8_t *b = clear(p, 64), *end = b + MODE_HEADER;
    b[2] = profile(p->d) ? 0x01 : p->d->tray_open ? 0x71 : 0x70; /* 120 mm data disc; none */
    if (page != 0x2a)
        end = page_error_recovery(end, p->d);
    if (page != 0x01)
        end = page_capabilities(end, p->d);
    put_be16(b, (uint32_t)(end - b) - 2);
    answer(p, (uint32_t)(end - b), be16(p->c + 7));
}

static void cmd_mechanism(struct packet *p)
{
    uint8_t *b = clear(p, 8);
    b[1] = p->d->tray_open ? 0x10 : 0;
    b[5] = 1;
    answer(p, 8, be16(p->c + 8));
}

/* ---- The table ---- */

enum { NEEDS_MEDIUM = 1, DURING_ATTENTION = 2 };

static const struct {
    uint8_t code, flags;
    void (*run)(struct packet *p);
} commands[] = {
    {0x00, NEEDS_MEDIUM, cmd_test_ready},
    {0x03, DURING_ATTENTION, cmd_request_sense},
    {0x12, DURING_ATTENTION, cmd_inquiry},
    {0x1b, 0, cmd_start_stop},
    {0x1e, 0, cmd_lock},
    {0x25, NEEDS_MEDIUM, cmd_capacity},
    {0x28, NEEDS_MEDIUM, cmd_read10},
    {0x2b, NEEDS_MEDIUM, cmd_seek},
    {0x43, NEEDS_MEDIUM, cmd_toc},
    {0x46, DURING_ATTENTION, cmd_configuration},
    {0x4a, DURING_ATTENTION, cmd_event},
    {0x4e, 0, cmd_test_ready}, /* STOP PLAY/SCAN */
    {0x51, NEEDS_MEDIUM, cmd_disc_information},
    {0x52, NEEDS_MEDIUM, cmd_track_information},
    {0x5a, 0, cmd_mode_sense},
    {0xa8, NEEDS_MEDIUM, cmd_read12},
    {0xad, NEEDS_MEDIUM, cmd_dvd_structure},
    {0xbb, 0, cmd_test_ready}, /* SET CD SPEED */
    {0xbd, 0, cmd_mechanism},
    {0xbe, NEEDS_MEDIUM, cmd_read_cd},
};

void atapi_packet(struct ide_channel *ch)
{
    struct ide_drive *d = ide_selected(ch);
    struct packet p = {.ch = ch, .d = d, .dma = d->regs.feature & 1};
    memcpy(p.c, ch->buffer, sizeof p.c);
    uint32_t limit = (uint32_t)(d->regs.lba[1] | d->regs.lba[2] << 8);
    ch->block = limit ? MIN(limit, 0xfffeu) & ~1u : 0xfffe;
    if (!ch->block)
        ch->block = 2;
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (commands[i].code != p.c[0])
            continue;
        if (d->changed && !(commands[i].flags & DURING_ATTENTION)) {
            d->changed = false;
            fail(&p, ATTENTION, ASC_MEDIUM_CHANGED);
        } else if ((commands[i].flags & NEEDS_MEDIUM) && !profile(d)) {
            fail(&p, NOT_READY, ASC_NO_MEDIUM);
        } else {
            commands[i].run(&p);
        }
        return;
    }
    fail(&p, ILLEGAL_REQUEST, ASC_INVALID_COMMAND);
}

void atapi_begin(struct ide_channel *ch)
{
    struct ide_drive *d = ide_selected(ch);
    ch->phase = IDE_PACKET_OUT;
    ch->packet = true;
    ch->media = false;
    ch->position = 0;
    ch->length = IDE_PACKET;
    d->regs.count = REASON_CD;
    d->regs.status = ST_READY | ST_DRQ;
}

void atapi_identify(struct ide_channel *ch)
{
    struct ide_drive *d = ide_selected(ch);
    uint16_t w[256] = {
        [0] = 0x85c0, /* packet device, CD-ROM, removable, 12-byte packets */
        [49] = 0x0b00, [53] = 6,      [64] = 3,      [65] = 120,    [66] = 120,
        [67] = 120,    [68] = 120,    [80] = 0x7e,   [82] = 0x4210, [83] = 0x4000,
        [84] = 0x4000, [85] = 0x4210, [87] = 0x4000,
    };
    ata_identify_strings(w, ch->number * 2 + (unsigned)(d - ch->drives), true);
    w[63] = (uint16_t)(7 | (d->mwdma < 3 ? 0x100 << d->mwdma : 0));
    w[88] = (uint16_t)(0x1f | (d->udma < 6 ? 0x100 << d->udma : 0));
    memcpy(ch->buffer, w, sizeof w);
    ch->block = IDE_BUFFER;
    ide_send(ch, sizeof w, false);
}
