/* What a PVSCSI adapter and its drivers agree on: used by the device and by our UEFI driver. */
#ifndef TRIVISOR_DEV_PVSCSI_INTERFACE_H
#define TRIVISOR_DEV_PVSCSI_INTERFACE_H

#include <stdint.h>

#define RING_PAGES   32
#define REQUEST_SIZE 128

enum reg {
    REG_COMMAND = 0x0000,
    REG_COMMAND_DATA = 0x0004,
    REG_COMMAND_STATUS = 0x0008,
    REG_LAST_STATUS = 0x0100, /* four of them */
    REG_INTR_STATUS = 0x100c,
    REG_INTR_MASK = 0x2010,
    REG_KICK_NON_RW = 0x3014,
    REG_DEBUG = 0x3018,
    REG_KICK_RW = 0x4018,
};

enum interrupt { INTR_COMPLETION = 0x03, INTR_MESSAGE = 0x0c };
#define INTR_COMPLETION_0 1u

enum command {
    CMD_ADAPTER_RESET = 1,
    CMD_ISSUE_SCSI = 2,
    CMD_SETUP_RINGS = 3,
    CMD_RESET_BUS = 4,
    CMD_RESET_DEVICE = 5,
    CMD_ABORT = 6,
    CMD_CONFIG = 7,
    CMD_SETUP_MSG_RING = 8,
    CMD_DEVICE_UNPLUG = 9,
    CMD_SETUP_REQ_CALL = 10,
    COMMANDS,
};

/* The page of ring state: dwords. */
enum ring_state {
    REQ_PRODUCER = 0,
    REQ_CONSUMER = 4,
    REQ_ENTRIES_LOG2 = 8,
    CMP_PRODUCER = 12,
    CMP_CONSUMER = 16,
    CMP_ENTRIES_LOG2 = 20,
    REQ_CALL_THRESHOLD = 24,
    MSG_PRODUCER = 128,
    MSG_CONSUMER = 132,
    MSG_ENTRIES_LOG2 = 136,
    RING_STATE_SIZE = 140,
};

struct request_descriptor {
    uint64_t context, data, data_length, sense;
    uint32_t sense_length, flags;
    uint8_t cdb[16], cdb_length, lun[8], tag, bus, target, vcpu_hint, unused[59];
};

struct completion_descriptor {
    uint64_t context, data_length;
    uint32_t sense_length;
    uint16_t host_status, scsi_status;
    uint32_t pad[2];
};

struct sg_element {
    uint64_t address;
    uint32_t length, flags;
};

_Static_assert(sizeof(struct request_descriptor) == REQUEST_SIZE, "as the driver has it");
_Static_assert(sizeof(struct completion_descriptor) == 32, "as the driver has it");
_Static_assert(sizeof(struct sg_element) == 16, "as the driver has it");

enum request_flag {
    REQUEST_SG_LIST = 1,
    REQUEST_OUT_OF_BAND_CDB = 2,
    REQUEST_NO_DATA = 4,
    REQUEST_TO_HOST = 8,
    REQUEST_TO_DEVICE = 16,
};

enum host_status {
    HOST_SUCCESS = 0x00,
    HOST_LINKED = 0x0a,
    HOST_LINKED_FLAG = 0x0b,
    HOST_DATA_UNDERRUN = 0x0c,
    HOST_NO_TARGET = 0x11, /* selection timed out */
    HOST_DATA_OVERRUN = 0x12,
    HOST_INVALID_PARAMETER = 0x1a,
    HOST_SENSE_FAILED = 0x1b,
};

#endif
