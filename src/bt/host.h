/* Which host registers hold what while translated code runs. */
#ifndef TRIVISOR_BT_HOST_H
#define TRIVISOR_BT_HOST_H

#include <stddef.h>

#include "bt/bt.h"
#include "bt/emit.h"

#define T0       R10 /* scratch */
#define T1       R11
#define T2       R15
#define HOST_RSP R14 /* the guest's RSP */

/* The host register of a guest register; NO_REG: it lives in memory. */
static inline unsigned host_reg(unsigned guest)
{
    static const uint8_t map[16] = {RAX, RCX, RDX,    RBX,    HOST_RSP, RBP, RSI,    RDI,
                                    R8,  R9,  NO_REG, NO_REG, R12,      R13, NO_REG, NO_REG};
    return map[guest];
}

#define VCPU_AT(field)      ((int64_t)offsetof(struct vcpu, field))
#define BT_AT(state, field) ((state)->offset + (int64_t)offsetof(struct bt, field))

static inline int64_t gpr_at(unsigned guest)
{
    return VCPU_AT(gpr) + 8 * (int64_t)guest;
}

/* EFLAGS to bt.flags; clobbers T2. */
static inline void put_save_flags(struct emit *e, const struct bt *bt)
{
    put_move(e, T2, RAX);
    put8(e, 0x9f); /* LAHF */
    put8(e, 0x0f); /* SETO AL */
    put8(e, 0x90);
    put8(e, 0xc0);
    put_store32(e, RAX, gs_operand(BT_AT(bt, flags)));
    put_move(e, RAX, T2);
}

/* And back; clobbers T2. */
static inline void put_restore_flags(struct emit *e, const struct bt *bt)
{
    put_move(e, T2, RAX);
    put_load32(e, RAX, gs_operand(BT_AT(bt, flags)));
    put8(e, 0x04); /* ADD AL, 0x7f: sets OF again */
    put8(e, 0x7f);
    put8(e, 0x9e); /* SAHF */
    put_move(e, RAX, T2);
}

/* The jump-cache entry for the address in T0: its offset goes to T1. Clobbers T2 and flags. The
 * jump that is returned is taken where the entry is for something else. */
uint8_t *bt_put_jump_lookup(struct emit *e, const struct bt *bt, bool ac);

#endif
