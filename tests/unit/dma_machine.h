/* A fake machine with RAM, a PCI bus and a disk: what tests of disk controllers stand on. */
#ifndef TESTS_UNIT_DMA_MACHINE_H
#define TESTS_UNIT_DMA_MACHINE_H

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "dev/pci.h"
#include "disk/disk.h"
#include "fake_machine.h"
#include "util/util.h"

#define RAM_SIZE  (16u << 20)
#define DISK_SIZE (4u << 20)
#define SLOT      5

static struct fake_machine m;
static struct pci_bus *pci;
static struct probe line;
static struct disk *disk;
static char disk_path[64];
static int disk_file; /* what is in the image, by the host's view */

static inline void config_write(unsigned offset, uint32_t value)
{
    bus_write(&m.pio, 0xcf8, 4, 0x80000000u | PCI_DEVFN(SLOT, 0) << 8 | (offset & ~3u));
    bus_write(&m.pio, 0xcfc, 4, value);
}

static inline uint32_t config_read(unsigned offset)
{
    bus_write(&m.pio, 0xcf8, 4, 0x80000000u | PCI_DEVFN(SLOT, 0) << 8 | (offset & ~3u));
    return (uint32_t)bus_read(&m.pio, 0xcfc, 4);
}

static inline void dma_machine_init(void)
{
    fake_machine_init(&m);
    m.mem.size = m.mem.low_size = RAM_SIZE;
    m.mem.ram = aligned_alloc(PAGE_SIZE, RAM_SIZE);
    memset(m.mem.ram, 0, RAM_SIZE);
    m.mem.page_flags = calloc(1, RAM_SIZE >> PAGE_SHIFT);
    m.mem.page_gen = calloc(4, RAM_SIZE >> PAGE_SHIFT);
    struct pci_wiring wiring = {0};
    for (int i = 0; i < 4; i++)
        wiring.ioapic[i] = fake_line(&line);
    pci = pci_create(&m.env, &wiring);

    snprintf(disk_path, sizeof disk_path, "/tmp/hba-XXXXXX");
    disk_file = mkstemp(disk_path);
    CHECK(disk_file >= 0 && ftruncate(disk_file, DISK_SIZE) == 0);
    for (unsigned i = 0; i < 64; i++) {
        char sector[512];
        memset(sector, 'a' + (int)i % 26, sizeof sector);
        CHECK(pwrite(disk_file, sector, sizeof sector, i * 512) == sizeof sector);
    }
    struct tv_error err;
    disk = disk_open(disk_path, &(struct disk_options){.format = "raw"}, &err);
    CHECK(disk);
    if (!disk)
        exit(1);
}

static inline void dma_machine_end(void)
{
    fake_machine_end(&m);
    disk_close(disk);
    close(disk_file);
    unlink(disk_path);
    free(m.mem.ram);
    free(m.mem.page_flags);
    free(m.mem.page_gen);
}

static inline void reset_machine(void)
{
    pthread_mutex_lock(&m.lock);
    devices_reset(&m.env);
    pthread_mutex_unlock(&m.lock);
}

/* A byte of the image. */
static inline int stored(uint64_t offset)
{
    char byte = 0;
    return pread(disk_file, &byte, 1, (off_t)offset) == 1 ? (unsigned char)byte : -1;
}

static uint64_t seed = 0x9e3779b97f4a7c15;

static inline uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* A number that is likely to be at some limit. */
static inline uint64_t interesting(void)
{
    static const uint64_t limits[] = {0,
                                      1,
                                      2,
                                      4,
                                      15,
                                      16,
                                      255,
                                      256,
                                      257,
                                      511,
                                      512,
                                      4095,
                                      4096,
                                      65535,
                                      65536,
                                      RAM_SIZE,
                                      RAM_SIZE - 1,
                                      1u << 20,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      UINT64_MAX,
                                      UINT64_MAX - 511,
                                      1ull << 32,
                                      DISK_SIZE / 512};
    uint64_t r = rnd();
    return r & 1 ? limits[(r >> 8) % ARRAY_SIZE(limits)] : r >> (r >> 1 & 63);
}

#endif
