/* Apart from the rest: <sys/auxv.h> and cpu/x86.h name different things PF_W. */
#ifndef TRIVISOR_BT_GS_H
#define TRIVISOR_BT_GS_H

/* Set the calling thread's GS base. */
void bt_set_gs_base(const void *base);

#endif
