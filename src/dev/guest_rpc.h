/*
 * VMware's message channels: command 30 of the backdoor. A guest opens a channel, sends a request
 * in words, reads the reply in words. Requests are those of RPCI: "log TEXT" goes to the event log,
 * others are refused as unknown.
 */
#ifndef TRIVISOR_DEV_GUEST_RPC_H
#define TRIVISOR_DEV_GUEST_RPC_H

#include "dev/backdoor.h"

struct guest_rpc;

/* NULL: out of memory. */
struct guest_rpc *guest_rpc_create(struct device_env *env, struct backdoor *backdoor);

#endif
