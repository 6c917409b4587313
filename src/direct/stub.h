/*
 * What a stub process looks like: shared by its code (stub.S) and the VMM.
 *
 *   base             code       read, execute
 *   base + 0x1000    control    read only in the stub; the VMM writes
 *   base + 0x3000    report     the stub writes, and so may the guest
 *   base + 0x4000    the stack of the signal handler
 *   base + 0x14000   end
 */
#ifndef TRIVISOR_DIRECT_STUB_H
#define TRIVISOR_DIRECT_STUB_H

#define STUB_CONTROL     0x1000
#define STUB_REPORT      0x3000
#define STUB_STACK       0x4000
#define STUB_SIZE        0x14000
#define STUB_TASK_END    0x7ffffffff000 /* of the host: no mapping reaches beyond */
#define STUB_RAM_FD      3

/* struct stub_control */
#define CONTROL_SEQUENCE 0
#define CONTROL_RUNNING  4
#define CONTROL_COUNT    8
#define CONTROL_RESUME   12
#define CONTROL_FS_BASE  16
#define CONTROL_GS_BASE  24
#define CONTROL_FRAME    32
#define CONTROL_FILTER   40
#define CONTROL_BASES    56
#define CONTROL_CALLS    64
#define CALL_SIZE        56
#define CALLS_MAX        128

/* struct stub_report */
#define REPORT_STATE     0
#define REPORT_SIGNAL    4
#define REPORT_CONTEXT   8
#define REPORT_STACK     16
#define REPORT_FS_BASE   24
#define REPORT_GS_BASE   32
#define REPORT_SEGMENTS  40 /* DS, ES, FS, GS */
#define REPORT_FAILED    48

#ifndef __ASSEMBLER__

#include <stddef.h>
#include <stdint.h>

/* A system call that the stub is to make: number and arguments. */
struct stub_call {
    int64_t number;
    uint64_t args[6];
};

struct stub_control {
    uint32_t sequence; /* a futex: counted up where there is something to do */
    uint32_t running;  /* guest code may be running: then no system call is one of ours */
    uint32_t count;    /* of calls */
    uint32_t resume;   /* go back to guest code after them */
    uint64_t fs_base, gs_base;
    uint64_t frame;  /* of the signal to return from */
    uint64_t filter; /* struct sock_fprog */
    uint64_t filter_code;
    uint32_t bases_by_call; /* the kernel has to be told of FS and GS bases */
    uint32_t unused;
    struct stub_call calls[CALLS_MAX];
};

struct stub_report {
    uint32_t state;  /* a futex: 1 when the stub waits for the VMM */
    uint32_t signal; /* number */
    uint64_t context, stack;
    uint64_t fs_base, gs_base;
    uint16_t segments[4];
    uint32_t failed; /* one more than the index of the last call that failed; 0: none */
};

#define CHECK_OFFSET(type, field, offset)                                                          \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field)
CHECK_OFFSET(stub_control, running, CONTROL_RUNNING);
CHECK_OFFSET(stub_control, count, CONTROL_COUNT);
CHECK_OFFSET(stub_control, resume, CONTROL_RESUME);
CHECK_OFFSET(stub_control, fs_base, CONTROL_FS_BASE);
CHECK_OFFSET(stub_control, gs_base, CONTROL_GS_BASE);
CHECK_OFFSET(stub_control, frame, CONTROL_FRAME);
CHECK_OFFSET(stub_control, filter, CONTROL_FILTER);
CHECK_OFFSET(stub_control, bases_by_call, CONTROL_BASES);
CHECK_OFFSET(stub_control, calls, CONTROL_CALLS);
CHECK_OFFSET(stub_report, context, REPORT_CONTEXT);
CHECK_OFFSET(stub_report, stack, REPORT_STACK);
CHECK_OFFSET(stub_report, fs_base, REPORT_FS_BASE);
CHECK_OFFSET(stub_report, gs_base, REPORT_GS_BASE);
CHECK_OFFSET(stub_report, segments, REPORT_SEGMENTS);
CHECK_OFFSET(stub_report, failed, REPORT_FAILED);
_Static_assert(sizeof(struct stub_call) == CALL_SIZE, "struct stub_call");
_Static_assert(sizeof(struct stub_control) <= STUB_REPORT - STUB_CONTROL, "struct stub_control");

/* The code, position-independent, and offsets in it. */
extern const uint8_t direct_stub_code[], direct_stub_end[];
extern const uint8_t direct_stub_enter[], direct_stub_handler[], direct_stub_probe[],
    direct_stub_rdtsc[];

#endif
#endif
