/* The commands of ATA hard disks (ATA/ATAPI-6), from a table. */
#include <stdio.h>
#include <string.h>

#include "dev/ide_internal.h"
#include "util/util.h"

#define SECTOR       512u
#define LBA28_MAX    UINT64_C(0x0fffffff)
#define LBA48_MAX    UINT64_C(0xffffffffffff)
#define CYLS_MAX     16383u
#define MULTIPLE     16
#define DEVICE_LBA   0x40
#define DEVICE_SLAVE 0x10
#define UDMA_MODES   0x3f /* 0 to 5 */
#define MWDMA_MODES  0x07

/* ---- Addresses ---- */

static bool uses_lba(const struct ide_drive *d)
{
    return d->regs.device & DEVICE_LBA;
}

/* The sector that the task file names; ~0: none. */
static uint64_t get_lba(const struct ide_drive *d, bool ext)
{
    const struct ide_registers *r = &d->regs;
    uint64_t low = r->lba[0] | (uint64_t)r->lba[1] << 8 | (uint64_t)r->lba[2] << 16;
    if (ext)
        return low | (uint64_t)r->old_lba[0] << 24 | (uint64_t)r->old_lba[1] << 32 |
               (uint64_t)r->old_lba[2] << 40;
    if (uses_lba(d))
        return low | (uint64_t)(r->device & 15) << 24;
    unsigned head = r->device & 15, sector = r->lba[0];
    unsigned cylinder = (unsigned)(r->lba[1] | r->lba[2] << 8);
    if (!sector || sector > d->spt || head >= d->heads)
        return ~UINT64_C(0);
    return ((uint64_t)cylinder * d->heads + head) * d->spt + sector - 1;
}

static uint64_t get_count(const struct ide_drive *d, bool ext)
{
    const struct ide_registers *r = &d->regs;
    if (!ext)
        return r->count ? r->count : 256;
    unsigned count = (unsigned)(r->count | r->old_count << 8);
    return count ? count : 65536;
}

static void put_lba(struct ide_drive *d, uint64_t lba, bool ext)
{
    struct ide_registers *r = &d->regs;
    for (unsigned i = 0; i < 3; i++) {
        r->lba[i] = (uint8_t)(lba >> (8 * i));
        if (ext)
            r->old_lba[i] = (uint8_t)(lba >> (24 + 8 * i));
    }
    if (!ext)
        r->device = (uint8_t)((r->device & 0xf0) | (lba >> 24 & 15));
}

void ata_set_signature(struct ide_drive *d)
{
    d->regs.count = d->regs.lba[0] = 1;
    d->regs.lba[1] = d->cdrom ? 0x14 : 0;
    d->regs.lba[2] = d->cdrom ? 0xeb : 0;
    d->regs.device &= DEVICE_SLAVE;
}

/* ---- IDENTIFY DEVICE ---- */

/* Two characters a word, the first one in the high byte. */
static void put_string(uint16_t *words, unsigned count, const char *text)
{
    size_t len = strlen(text), at = 0;
    for (unsigned i = 0; i < count; i++, at += 2) {
        uint8_t first = at < len ? (uint8_t)text[at] : ' ';
        uint8_t second = at + 1 < len ? (uint8_t)text[at + 1] : ' ';
        words[i] = (uint16_t)(first << 8 | second);
    }
}

void ata_identify_strings(uint16_t *words, unsigned unit, bool cdrom)
{
    char serial[21];
    snprintf(serial, sizeof serial, "TV%08u", unit + 1);
    put_string(words + 10, 10, serial);
    put_string(words + 23, 4, TRIVISOR_VERSION);
    put_string(words + 27, 20, cdrom ? "Trivisor CD-ROM" : "Trivisor Disk");
}

static void geometry(const struct ide_drive *d, uint16_t *words)
{
    /* A disk of less than a cylinder has one: firmware reads nothing from a disk that has none. */
    uint64_t cylinders = MAX(d->sectors / (16 * 63), UINT64_C(1));
    words[1] = (uint16_t)MIN(cylinders, (uint64_t)CYLS_MAX);
    words[3] = 16;
    words[6] = 63;
    uint64_t current = MAX(d->sectors / ((uint64_t)d->heads * d->spt), UINT64_C(1));
    words[53] = 7;
    words[54] = (uint16_t)MIN(current, UINT64_C(65535));
    words[55] = d->heads;
    words[56] = d->spt;
    uint64_t chs = (uint64_t)words[54] * d->heads * d->spt;
    words[57] = (uint16_t)chs;
    words[58] = (uint16_t)(chs >> 16);
}

static void identify(struct ide_channel *ch)
{
    struct ide_drive *d = ide_selected(ch);
    unsigned slot = (unsigned)(d - ch->drives);
    uint16_t w[256] = {[0] = 0x0040, [47] = 0x8000 | MULTIPLE, [48] = 1, [49] = 0x2f00};
    geometry(d, w);
    ata_identify_strings(w, ch->number * 2 + slot, false);
    w[50] = 0x4000;
    w[51] = w[52] = 0x0200;
    w[59] = d->multiple ? (uint16_t)(0x100 | d->multiple) : 0;
    uint64_t lba28 = MIN(d->sectors, LBA28_MAX);
    w[60] = (uint16_t)lba28;
    w[61] = (uint16_t)(lba28 >> 16);
    w[63] = (uint16_t)(MWDMA_MODES | (d->mwdma < 3 ? 0x100 << d->mwdma : 0));
    w[64] = 3; /* PIO modes 3 and 4 */
    w[65] = w[66] = w[67] = w[68] = 120;
    w[80] = 0x7e;   /* ATA-1 to ATA-6 */
    w[82] = 0x4469; /* SMART, power management, write cache, look-ahead, HPA, NOP */
    w[83] = 0x7408; /* APM, LBA48, FLUSH CACHE and its EXT */
    w[84] = 0x4040; /* WRITE FUA EXT */
    w[85] = (uint16_t)(0x4408 | (d->smart ? 1 : 0) | (d->write_cache ? 0x20 : 0) |
                       (d->look_ahead ? 0x40 : 0));
    w[86] = (uint16_t)(0x3400 | (d->apm ? 8 : 0));
    w[87] = 0x4040;
    w[88] = (uint16_t)(UDMA_MODES | (d->udma < 6 ? 0x100 << d->udma : 0));
    w[91] = d->apm;
    w[93] = slot ? 0x6301 : 0x600b; /* 80-conductor cable */
    for (unsigned i = 0; i < 4; i++)
        w[100 + i] = (uint16_t)(d->sectors >> (16 * i));
    w[255] = 0xa5;
    const uint8_t *bytes = (const uint8_t *)w;
    uint8_t sum = 0;
    for (unsigned i = 0; i < 511; i++)
        sum = (uint8_t)(sum + bytes[i]);
    w[255] |= (uint16_t)((uint8_t)-sum << 8);
    memcpy(ch->buffer, w, sizeof w);
    ide_send(ch, sizeof w, false);
}

/* ---- Reading and writing ---- */

enum transfer_flag { EXT = 1, DMA = 2, MULTI = 4, WRITE = 8, FUA = 16, VERIFY = 32 };

static void transfer(struct ide_channel *ch, unsigned flags)
{
    struct ide_drive *d = ide_selected(ch);
    uint64_t lba = get_lba(d, flags & EXT), count = get_count(d, flags & EXT);
    if ((flags & MULTI) && !d->multiple) {
        ide_fail(ch, ER_ABRT);
        return;
    }
    if (lba >= d->sectors || count > d->sectors - lba) {
        ide_fail(ch, ER_IDNF);
        return;
    }
    if ((flags & WRITE) && disk_read_only(d->disk)) {
        ide_fail(ch, ER_ABRT);
        return;
    }
    d->power = IDE_ACTIVE;
    if (flags & VERIFY) {
        ide_done(ch);
        return;
    }
    uint32_t block = SECTOR * (flags & MULTI ? d->multiple : 1);
    if (flags & WRITE)
        ide_write_disk(ch, lba * SECTOR, count * SECTOR, block, flags & DMA,
                       (flags & FUA) || !d->write_cache);
    else
        ide_read_disk(ch, lba * SECTOR, count * SECTOR, block, flags & DMA);
}

/* ---- The rest ---- */

static void cmd_ok(struct ide_channel *ch, unsigned arg)
{
    ide_done(ch);
}

static void cmd_abort(struct ide_channel *ch, unsigned arg)
{
    ide_fail(ch, ER_ABRT);
}

static void cmd_identify(struct ide_channel *ch, unsigned arg)
{
    identify(ch);
}

static void cmd_flush(struct ide_channel *ch, unsigned arg)
{
    ide_flush_disk(ch);
}

static void cmd_diagnose(struct ide_channel *ch, unsigned arg)
{
    for (unsigned i = 0; i < 2; i++) {
        struct ide_drive *d = &ch->drives[i];
        ata_set_signature(d);
        d->regs.device = 0;
        d->regs.error = 1; /* passed */
        d->regs.status = d->cdrom ? 0 : ST_READY;
    }
    ide_interrupt(ch);
}

static void cmd_geometry(struct ide_channel *ch, unsigned arg)
{
    struct ide_drive *d = ide_selected(ch);
    if (!d->regs.count || d->regs.count > 63) {
        ide_fail(ch, ER_ABRT);
        return;
    }
    d->heads = (uint8_t)((d->regs.device & 15) + 1);
    d->spt = d->regs.count;
    ide_done(ch);
}

static void cmd_set_multiple(struct ide_channel *ch, unsigned arg)
{
    struct ide_drive *d = ide_selected(ch);
    unsigned count = d->regs.count;
    if (count > MULTIPLE || (count & (count - 1))) {
        ide_fail(ch, ER_ABRT);
        return;
    }
    d->multiple = (uint8_t)count;
    ide_done(ch);
}

static void cmd_power_mode(struct ide_channel *ch, unsigned arg)
{
    struct ide_drive *d = ide_selected(ch);
    d->regs.count = d->power;
    ide_done(ch);
}

/* Nothing spins, so a mode is what CHECK POWER MODE tells, until the medium is used again. The
 * timers of STANDBY and IDLE never run out, and a sleeping drive hears commands. */
static void cmd_set_power(struct ide_channel *ch, unsigned mode)
{
    ide_selected(ch)->power = (uint8_t)mode;
    ide_done(ch);
}

static void cmd_native_max(struct ide_channel *ch, unsigned ext)
{
    struct ide_drive *d = ide_selected(ch);
    uint64_t native = ide_native_sectors(d), last = native ? native - 1 : 0;
    put_lba(d, ext ? MIN(last, LBA48_MAX) : MIN(last, LBA28_MAX), ext);
    ide_done(ch);
}

/* SET MAX ADDRESS: hide the disk's end, until the power goes. Passwords and locks are not there. */
static void cmd_set_max(struct ide_channel *ch, unsigned ext)
{
    struct ide_drive *d = ide_selected(ch);
    uint64_t last = get_lba(d, ext), native = ide_native_sectors(d);
    if (!ext && d->regs.feature != 0) {
        ide_fail(ch, ER_ABRT);
    } else if (last >= native) {
        ide_fail(ch, ER_IDNF);
    } else {
        d->hidden = native - (last + 1);
        d->sectors = last + 1;
        ide_done(ch);
    }
}

static bool set_transfer_mode(struct ide_drive *d)
{
    unsigned mode = d->regs.count & 7;
    switch (d->regs.count >> 3) {
    case 0: /* PIO default */
    case 1: /* PIO with flow control */
        return mode <= 4;
    case 4:
        if (mode > 2)
            return false;
        d->udma = 0xff;
        d->mwdma = (uint8_t)mode;
        return true;
    case 8:
        if (mode > 5)
            return false;
        d->mwdma = 0xff;
        d->udma = (uint8_t)mode;
        return true;
    default:
        return false;
    }
}

static void cmd_features(struct ide_channel *ch, unsigned arg)
{
    struct ide_drive *d = ide_selected(ch);
    bool ok = true;
    switch (d->regs.feature) {
    case 0x02:
    case 0x82:
        d->write_cache = d->regs.feature == 0x02;
        if (!d->write_cache && d->disk && !d->cdrom) {
            ide_flush_disk(ch);
            return;
        }
        break;
    case 0x03:
        ok = set_transfer_mode(d);
        break;
    case 0x55:
    case 0xaa:
        d->look_ahead = d->regs.feature == 0xaa;
        break;
    case 0x66: /* keep or drop settings at a reset */
    case 0xcc:
    case 0x42: /* acoustic management: nothing moves */
    case 0xc2:
        break;
    case 0x05:
        ok = d->regs.count >= 1 && d->regs.count <= 0xfe;
        if (ok)
            d->apm = d->regs.count;
        break;
    case 0x85:
        d->apm = 0;
        break;
    default:
        ok = false;
    }
    if (ok)
        ide_done(ch);
    else
        ide_fail(ch, ER_ABRT);
}

/* A drive in good health with no attributes to tell of. */
static void smart_data(struct ide_channel *ch, bool data)
{
    memset(ch->buffer, 0, SECTOR);
    ch->buffer[0] = 1; /* revision */
    if (data) {
        ch->buffer[367] = 0x10; /* off-line capability: self-test */
        ch->buffer[368] = 3;    /* saves attributes */
        ch->buffer[372] = ch->buffer[373] = 1;
    }
    uint8_t sum = 0;
    for (unsigned i = 0; i < SECTOR - 1; i++)
        sum = (uint8_t)(sum + ch->buffer[i]);
    ch->buffer[SECTOR - 1] = (uint8_t)-sum;
    ide_send(ch, SECTOR, false);
}

static void cmd_smart(struct ide_channel *ch, unsigned arg)
{
    struct ide_drive *d = ide_selected(ch);
    uint8_t feature = d->regs.feature;
    if (d->regs.lba[1] != 0x4f || d->regs.lba[2] != 0xc2 || (!d->smart && feature != 0xd8)) {
        ide_fail(ch, ER_ABRT);
        return;
    }
    switch (feature) {
    case 0xd0: /* data */
    case 0xd1: /* thresholds */
        smart_data(ch, feature == 0xd0);
        return;
    case 0xd8:
    case 0xd9:
        d->smart = feature == 0xd8;
        break;
    case 0xd2: /* autosave, off-line tests; status: 4f c2 stay, so all is well */
    case 0xd4:
    case 0xda:
    case 0xdb:
        break;
    default:
        ide_fail(ch, ER_ABRT);
        return;
    }
    ide_done(ch);
}

static void cmd_read_buffer(struct ide_channel *ch, unsigned arg)
{
    ide_send(ch, SECTOR, false);
}

static void cmd_write_buffer(struct ide_channel *ch, unsigned arg)
{
    ch->media = false;
    ch->phase = IDE_PIO_OUT;
    ch->position = 0;
    ch->length = SECTOR;
    ide_selected(ch)->regs.status = ST_READY | ST_DRQ;
}

/* ---- The table ---- */

static const struct {
    uint8_t first, last;
    void (*run)(struct ide_channel *ch, unsigned arg);
    unsigned arg;
} commands[] = {
    {0x10, 0x1f, cmd_ok, 0}, /* RECALIBRATE */
    {0x20, 0x21, transfer, 0},
    {0x24, 0x24, transfer, EXT},
    {0x25, 0x25, transfer, EXT | DMA},
    {0x27, 0x27, cmd_native_max, 1},
    {0x37, 0x37, cmd_set_max, 1},
    {0x29, 0x29, transfer, EXT | MULTI},
    {0x30, 0x31, transfer, WRITE},
    {0x34, 0x34, transfer, WRITE | EXT},
    {0x35, 0x35, transfer, WRITE | EXT | DMA},
    {0x39, 0x39, transfer, WRITE | EXT | MULTI},
    {0x3d, 0x3d, transfer, WRITE | EXT | DMA | FUA},
    {0x40, 0x41, transfer, VERIFY},
    {0x42, 0x42, transfer, VERIFY | EXT},
    {0x70, 0x7f, cmd_ok, 0}, /* SEEK */
    {0x91, 0x91, cmd_geometry, 0},
    {0xb0, 0xb0, cmd_smart, 0},
    {0xc4, 0xc4, transfer, MULTI},
    {0xc5, 0xc5, transfer, WRITE | MULTI},
    {0xc6, 0xc6, cmd_set_multiple, 0},
    {0xc8, 0xc9, transfer, DMA},
    {0xca, 0xcb, transfer, WRITE | DMA},
    {0xce, 0xce, transfer, WRITE | EXT | MULTI | FUA},
    {0xe4, 0xe4, cmd_read_buffer, 0},
    {0xe7, 0xe7, cmd_flush, 0},
    {0xe8, 0xe8, cmd_write_buffer, 0},
    {0xea, 0xea, cmd_flush, 0},
    {0xec, 0xec, cmd_identify, 0},
    {0xf5, 0xf5, cmd_ok, 0}, /* SECURITY FREEZE LOCK */
    {0xf8, 0xf8, cmd_native_max, 0},
    {0xf9, 0xf9, cmd_set_max, 0},
};

/* Those that packet devices have as well. */
static const struct {
    uint8_t first, last;
    void (*run)(struct ide_channel *ch, unsigned arg);
    unsigned arg;
} common[] = {
    {0x90, 0x90, cmd_diagnose, 0},            /* EXECUTE DEVICE DIAGNOSTIC */
    {0x94, 0x94, cmd_set_power, IDE_STANDBY}, /* 94 to 99: the old numbers of e0 to e6 */
    {0x95, 0x95, cmd_set_power, IDE_POWER_IDLE},
    {0x96, 0x96, cmd_set_power, IDE_STANDBY},
    {0x97, 0x97, cmd_set_power, IDE_POWER_IDLE},
    {0x98, 0x98, cmd_power_mode, 0},
    {0x99, 0x99, cmd_set_power, IDE_STANDBY},
    {0xe0, 0xe0, cmd_set_power, IDE_STANDBY},    /* STANDBY IMMEDIATE */
    {0xe1, 0xe1, cmd_set_power, IDE_POWER_IDLE}, /* IDLE IMMEDIATE */
    {0xe2, 0xe2, cmd_set_power, IDE_STANDBY},    /* STANDBY */
    {0xe3, 0xe3, cmd_set_power, IDE_POWER_IDLE}, /* IDLE */
    {0xe5, 0xe5, cmd_power_mode, 0},
    {0xe6, 0xe6, cmd_set_power, IDE_STANDBY}, /* SLEEP */
    {0xef, 0xef, cmd_features, 0},
};

static void packet_device(struct ide_channel *ch, uint8_t command)
{
    struct ide_drive *d = ide_selected(ch);
    switch (command) {
    case 0x08: /* DEVICE RESET: no interrupt */
        ide_abort(ch);
        ata_set_signature(d);
        d->regs.error = 1;
        d->regs.status = 0;
        break;
    case 0xa0:
        atapi_begin(ch);
        break;
    case 0xa1:
        atapi_identify(ch);
        break;
    case 0xec: /* IDENTIFY DEVICE: tells by its signature what it is */
    case 0x20:
        ata_set_signature(d);
        cmd_abort(ch, 0);
        break;
    default:
        cmd_abort(ch, 0);
    }
}

void ata_command(struct ide_channel *ch, uint8_t command)
{
    for (size_t i = 0; i < ARRAY_SIZE(common); i++)
        if (command >= common[i].first && command <= common[i].last) {
            common[i].run(ch, common[i].arg);
            return;
        }
    if (ide_selected(ch)->cdrom) {
        packet_device(ch, command);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (command >= commands[i].first && command <= commands[i].last) {
            commands[i].run(ch, commands[i].arg);
            return;
        }
    ide_fail(ch, ER_ABRT);
}
