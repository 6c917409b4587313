/*
 * A fuzz target that is a device: a machine with nothing else in it, and a guest that is a list of
 * operations. The guest writes and reads registers of all sizes, writes memory, lets time pass, and
 * lets the disks finish what they have at moments of its choice. The machine is built once; each
 * input begins with a reset.
 *
 * The target defines `fuzz_device`.
 */
#ifndef TESTS_FUZZ_DEVICE_H
#define TESTS_FUZZ_DEVICE_H

#include <stdlib.h>
#include <string.h>

#include "../unit/fake_machine.h"
#include "dev/pci.h"
#include "disk/disk.h"
#include "ui/display.h"

#define FUZZ_RAM    (UINT64_C(1) << 20)
#define FUZZ_RANGES 24
#define FUZZ_BARS   8

/* As they lie in the input: 16 bytes, taken modulo what there is. */
struct fuzz_op {
    uint8_t kind;
    uint8_t range;  /* of registers */
    uint8_t size;   /* of the access: 1 << (size & 3) */
    uint8_t repeat; /* how many times more; or a detail of the operation */
    uint32_t offset;
    uint64_t value;
};

enum fuzz_op_kind {
    OP_WRITE,
    OP_READ,
    OP_MEMORY,  /* the 8 bytes of `value` to guest RAM at `offset` */
    OP_FILL,    /* 8 * (repeat + 1) bytes of guest RAM */
    OP_TIME,    /* `value` ns pass, 16 ms at most; odd `repeat`: unseen by timers */
    OP_DISK,    /* the disks finish what they have; `repeat`: #define FUZZ_MESSAGES 1
   
enum fuzz_disk_mode from now on */
    OP_SPECIAL, /* what the target has */
    OP_RESET,   /* or, with FUZZ_MESSAGES in `repeat`, turn messages of all devices on */
    OP_KINDS
};

#define FUZZ_MESSAGES 1

enum fuzz_disk_mode { DISK_LATE = 0, DISK_AT_ONCE = 1, DISK_BACKWARDS = 2, DISK_FAILS = 4 };

enum fuzz_range_kind { RANGE_PORTS, RANGE_MEMORY, RANGE_CONFIG, RANGE_CALLS };

struct fuzz_range {
    enum fuzz_range_kind kind;
    uint64_t base, size; /* RANGE_CONFIG: base is the devfn */
    /* RANGE_CALLS: registers behind no bus; no lock is held. */
    uint64_t (*read)(uint64_t offset, unsigned size);
    void (*write)(uint64_t offset, unsigned size, uint64_t value);
};

struct fuzz_machine {
    struct fake_machine machine;
    struct physmem *mem;
    struct pci_bus *pci;
    struct probe line, irqs[16];
    unsigned messages; /* message-signalled interrupts */
    struct display *display;
    struct display_viewer *viewer;
    const struct display_ops *display_ops;
    void *adapter;
    unsigned looks; /* at large pictures */
    struct fuzz_range ranges[FUZZ_RANGES];
    unsigned range_count;
    struct {
        unsigned devfn, bar;
        uint32_t base;
    } bars[FUZZ_BARS];
    unsigned bar_count;
};

/* A valid input under construction. */
struct fuzz_list {
    struct fuzz_op *ops;
    unsigned count, max;
};

struct fuzz_device {
    /* Create the devices and add their ranges. */
    void (*create)(struct fuzz_machine *f);
    /* OP_SPECIAL; may be NULL. No lock is held. */
    void (*special)(struct fuzz_machine *f, const struct fuzz_op *op);
    /* After each input, with no lock held; may be NULL. */
    void (*after)(struct fuzz_machine *f);
    /* Valid input number `index`; false: there are no more. */
    bool (*seed)(struct fuzz_list *list, unsigned index);
};

extern const struct fuzz_device fuzz_device;

/* For create(). Ranges are numbered in the order of their making. */
void fuzz_ports(struct fuzz_machine *f, uint16_t base, unsigned size);
void fuzz_memory(struct fuzz_machine *f, uint64_t base, uint64_t size);
void fuzz_config(struct fuzz_machine *f, unsigned devfn);
/* A BAR that is put at `base` at the start of each input; `size` of it is a range. */
void fuzz_bar(struct fuzz_machine *f, unsigned devfn, unsigned bar, bool io, uint32_t base,
              uint64_t size);
void fuzz_calls(struct fuzz_machine *f, uint64_t size, uint64_t (*read)(uint64_t, unsigned),
                void (*write)(uint64_t, unsigned, uint64_t));
struct irq_line fuzz_irq(struct fuzz_machine *f, unsigned irq);
void fuzz_display(struct fuzz_machine *f, const struct display_ops *ops, void *adapter);
/* Have the display look, as a viewer does. */
void fuzz_look(struct fuzz_machine *f);

/* For seed(). */
void seed_op(struct fuzz_list *list, enum fuzz_op_kind kind, unsigned range, unsigned size,
             unsigned repeat, uint32_t offset, uint64_t value);
static inline void seed_write(struct fuzz_list *list, unsigned range, unsigned size,
                              uint32_t offset, uint64_t value)
{
    seed_op(list, OP_WRITE, range, size, 0, offset, value);
}
static inline void seed_read(struct fuzz_list *list, unsigned range, unsigned size, uint32_t offset)
{
    seed_op(list, OP_READ, range, size, 0, offset, 0);
}
static inline void seed_memory(struct fuzz_list *list, uint32_t offset, uint64_t value)
{
    seed_op(list, OP_MEMORY, 0, 8, 0, offset, value);
}
static inline void seed_disk(struct fuzz_list *list)
{
    seed_op(list, OP_DISK, 0, 1, DISK_AT_ONCE, 0, 0);
}

/* device_disk.c: disks of memory in place of the library's, which end requests when told to. They
 * abort when a request is not what disk.h says. */
struct disk *fuzz_disk(uint64_t size, bool read_only);
void fuzz_disks_set_mode(unsigned mode);
void fuzz_disks_finish(void);

#endif
