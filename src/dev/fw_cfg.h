/*
 * The firmware configuration device: items that firmware reads by number or by name, through the
 * ports 0x510 (selector), 0x511 (data) and 0x514 (DMA). SeaBIOS and OVMF learn of the machine from
 * it.
 */
#ifndef TRIVISOR_DEV_FW_CFG_H
#define TRIVISOR_DEV_FW_CFG_H

#include "dev/device.h"

/* Well-known items; files have numbers from FW_CFG_FILES on. */
enum fw_cfg_item {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_NOGRAPHIC = 0x04,
    FW_CFG_CPUS = 0x05,
    FW_CFG_BOOT_MENU = 0x0e,
    FW_CFG_CPUS_MAX = 0x0f,
    FW_CFG_DIRECTORY = 0x19,
    FW_CFG_FILES = 0x20,
};

struct fw_cfg;

struct fw_cfg *fw_cfg_create(struct device_env *env);
/* Add or replace an item below FW_CFG_FILES; little-endian as firmware wants it. The bytes are
 * copied. False: out of memory. */
bool fw_cfg_add(struct fw_cfg *cfg, unsigned item, const void *data, size_t size);
bool fw_cfg_add_number(struct fw_cfg *cfg, unsigned item, uint64_t value, size_t bytes);
/* Add or replace a named file (at most 55 characters). No vCPU runs. False: no room. */
bool fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *data, size_t size);

#endif
