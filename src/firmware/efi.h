/* What an EFI driver of ours needs of the UEFI specification 2.10. Functions that we never call are
 * unnamed pointers. */
#ifndef TRIVISOR_FIRMWARE_EFI_H
#define TRIVISOR_FIRMWARE_EFI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EFIAPI               __attribute__((ms_abi))
#define EFI_ERROR(n)         (UINT64_C(1) << 63 | (n))
#define EFI_SUCCESS          UINT64_C(0)
#define EFI_INVALID          EFI_ERROR(2)
#define EFI_UNSUPPORTED      EFI_ERROR(3)
#define EFI_BAD_BUFFER_SIZE  EFI_ERROR(4)
#define EFI_DEVICE_ERROR     EFI_ERROR(7)
#define EFI_OUT_OF_RESOURCES EFI_ERROR(9)
#define EFI_NOT_FOUND        EFI_ERROR(14)
#define EFI_TIMEOUT          EFI_ERROR(18)

typedef uint64_t efi_status;
typedef void *efi_handle;

struct efi_guid {
    uint32_t a;
    uint16_t b, c;
    uint8_t d[8];
};

struct efi_boot_services {
    uint8_t header[24];
    void *before_pool[5];
    efi_status(EFIAPI *allocate_pool)(uint32_t type, uint64_t size, void **buffer);
    efi_status(EFIAPI *free_pool)(void *buffer);
    void *before_handle_protocol[9];
    efi_status(EFIAPI *handle_protocol)(efi_handle handle, const struct efi_guid *protocol,
                                        void **interface);
    void *before_stall[11];
    efi_status(EFIAPI *stall)(uint64_t microseconds);
    void *before_open_protocol[3];
    efi_status(EFIAPI *open_protocol)(efi_handle handle, const struct efi_guid *protocol,
                                      void **interface, efi_handle agent, efi_handle controller,
                                      uint32_t attributes);
    efi_status(EFIAPI *close_protocol)(efi_handle handle, const struct efi_guid *protocol,
                                       efi_handle agent, efi_handle controller);
    void *before_install[4];
    efi_status(EFIAPI *install_protocols)(efi_handle *handle, ...);
    efi_status(EFIAPI *uninstall_protocols)(efi_handle handle, ...);
};

_Static_assert(offsetof(struct efi_boot_services, handle_protocol) == 24 + 16 * 8, "number 16");
_Static_assert(offsetof(struct efi_boot_services, stall) == 24 + 28 * 8, "number 28");
_Static_assert(offsetof(struct efi_boot_services, open_protocol) == 24 + 32 * 8, "number 32");
_Static_assert(offsetof(struct efi_boot_services, install_protocols) == 24 + 38 * 8, "number 38");

struct efi_system_table {
    uint8_t before[96];
    struct efi_boot_services *boot_services;
};

enum { EFI_BOOT_SERVICES_DATA = 4, EFI_OPEN_BY_DRIVER = 0x10 };

struct efi_device_path {
    uint8_t type, sub_type, length[2];
};

#define EFI_DRIVER_BINDING_GUID                                                                    \
    {                                                                                              \
        0x18a031ab, 0xb443, 0x4d1a,                                                                \
        {                                                                                          \
            0xa5, 0xc0, 0x0c, 0x09, 0x26, 0x1e, 0x9f, 0x71                                         \
        }                                                                                          \
    }

struct efi_driver_binding {
    efi_status(EFIAPI *supported)(struct efi_driver_binding *binding, efi_handle controller,
                                  struct efi_device_path *rest);
    efi_status(EFIAPI *start)(struct efi_driver_binding *binding, efi_handle controller,
                              struct efi_device_path *rest);
    efi_status(EFIAPI *stop)(struct efi_driver_binding *binding, efi_handle controller,
                             uint64_t children, efi_handle *child);
    uint32_t version;
    efi_handle image, handle;
};

#define EFI_PCI_IO_GUID                                                                            \
    {                                                                                              \
        0x4cf5b200, 0x68b8, 0x4ca5,                                                                \
        {                                                                                          \
            0x9e, 0xec, 0xb2, 0x3e, 0x3f, 0x50, 0x02, 0x9a                                         \
        }                                                                                          \
    }

enum { PCI_IO_WIDTH_16 = 1, PCI_IO_WIDTH_32 = 2 };
enum pci_io_operation { PCI_IO_MASTER_READ, PCI_IO_MASTER_WRITE, PCI_IO_COMMON_BUFFER };
enum { PCI_IO_GET, PCI_IO_SET, PCI_IO_ENABLE };
enum { PCI_IO_MEMORY = 0x200, PCI_IO_BUS_MASTER = 0x400, PCI_IO_64BIT_DMA = 0x8000 };

struct efi_pci_io {
    void *poll[2];
    efi_status(EFIAPI *read)(struct efi_pci_io *io, uint32_t width, uint8_t bar, uint64_t offset,
                             uint64_t count, void *buffer);
    efi_status(EFIAPI *write)(struct efi_pci_io *io, uint32_t width, uint8_t bar, uint64_t offset,
                              uint64_t count, const void *buffer);
    void *port[2];
    efi_status(EFIAPI *read_config)(struct efi_pci_io *io, uint32_t width, uint32_t offset,
                                    uint64_t count, void *buffer);
    void *write_config, *copy;
    efi_status(EFIAPI *map)(struct efi_pci_io *io, uint32_t operation, const void *host,
                            uint64_t *size, uint64_t *device_address, void **mapping);
    efi_status(EFIAPI *unmap)(struct efi_pci_io *io, void *mapping);
    efi_status(EFIAPI *allocate)(struct efi_pci_io *io, uint32_t allocate_type,
                                 uint32_t memory_type, uint64_t pages, void **host,
                                 uint64_t attributes);
    efi_status(EFIAPI *free)(struct efi_pci_io *io, uint64_t pages, void *host);
    void *flush, *location;
    efi_status(EFIAPI *attributes)(struct efi_pci_io *io, uint32_t operation, uint64_t attributes,
                                   uint64_t *result);
};

#define EFI_EXT_SCSI_PASS_THRU_GUID                                                                \
    {                                                                                              \
        0x143b7632, 0xb81b, 0x4cb7,                                                                \
        {                                                                                          \
            0xab, 0xd3, 0xb6, 0x25, 0xa5, 0xb9, 0xbf, 0xfe                                         \
        }                                                                                          \
    }
#define EFI_SCSI_TARGET_SIZE 16

enum { SCSI_MODE_PHYSICAL = 1, SCSI_MODE_LOGICAL = 2 };
enum { SCSI_DATA_IN, SCSI_DATA_OUT, SCSI_DATA_BOTH };
enum {
    SCSI_HOST_OK = 0,
    SCSI_HOST_TIMEOUT = 0x0b,
    SCSI_HOST_OVERRUN = 0x12,
    SCSI_HOST_OTHER = 0x7f
};

struct efi_scsi_mode {
    uint32_t adapter, attributes, io_align;
};

struct efi_scsi_request {
    uint64_t timeout; /* 100 ns; 0: for ever */
    void *in, *out, *sense, *cdb;
    uint32_t in_length, out_length;
    uint8_t cdb_length, direction, host_status, target_status, sense_length;
};

struct efi_scsi_pass_thru {
    struct efi_scsi_mode *mode;
    efi_status(EFIAPI *pass_thru)(struct efi_scsi_pass_thru *p, uint8_t *target, uint64_t lun,
                                  struct efi_scsi_request *request, void *event);
    efi_status(EFIAPI *next_target_lun)(struct efi_scsi_pass_thru *p, uint8_t **target,
                                        uint64_t *lun);
    efi_status(EFIAPI *build_device_path)(struct efi_scsi_pass_thru *p, uint8_t *target,
                                          uint64_t lun, struct efi_device_path **path);
    efi_status(EFIAPI *target_lun)(struct efi_scsi_pass_thru *p, struct efi_device_path *path,
                                   uint8_t **target, uint64_t *lun);
    efi_status(EFIAPI *reset_channel)(struct efi_scsi_pass_thru *p);
    efi_status(EFIAPI *reset_target)(struct efi_scsi_pass_thru *p, uint8_t *target, uint64_t lun);
    efi_status(EFIAPI *next_target)(struct efi_scsi_pass_thru *p, uint8_t **target);
};

#endif
