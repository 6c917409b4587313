/* Packets of the remote serial protocol, and what they are made of: shared by the stub's files. */
#ifndef TRIVISOR_GDB_PACKET_H
#define TRIVISOR_GDB_PACKET_H

#include <pthread.h>

#include "gdb/gdb.h"

#define PACKET_MAX 16384 /* payload bytes of one packet, either way */

struct gdb_stub {
    struct machine *machine;
    struct gdb_vm_ops ops;
    void *vm;
    int listener, client;
    int wake[2]; /* a byte: 'S' a vCPU stopped, 'Q' the VM ends */
    char *unix_path;
    pthread_t thread;
    bool thread_started;
    bool running;
    bool no_ack;
    bool ended;       /* 'Q' was seen */
    unsigned current; /* vCPU of g, G, m and so on (H packets) */
    char in[PACKET_MAX + 1];
    size_t in_length;
    char out[2 * PACKET_MAX + 8];
    size_t out_length;
};

struct receiver {
    char buf[4096];
    size_t at, length;
};

/* ---- Sending: a reply is begun, put together and ended ---- */

void gdb_send(struct gdb_stub *s, const char *data, size_t length);
void gdb_begin(struct gdb_stub *s);
void gdb_put(struct gdb_stub *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gdb_put_hex(struct gdb_stub *s, const void *data, size_t length);
void gdb_end(struct gdb_stub *s);
/* All of these with one text. */
void gdb_reply(struct gdb_stub *s, const char *text);

/* ---- Receiving ---- */

/* The next byte, or -1 at the end of the connection. */
int gdb_next_byte(struct gdb_stub *s, struct receiver *r);
/* Read the rest of a packet after its '$' into s->in and acknowledge it. False: the connection
 * ended. */
bool gdb_read_packet(struct gdb_stub *s, struct receiver *r);

/* ---- Parsing: false where the text is something else; `p` moves behind what was read ---- */

/* -1: none. */
int gdb_hex_digit(char c);
bool gdb_parse_hex(const char **p, uint64_t *value);
bool gdb_expect(const char **p, char c);
/* "addr,length" as many packets have it. */
bool gdb_parse_range(const char **p, uint64_t *address, uint64_t *length);
/* `length` bytes of two digits each. */
bool gdb_parse_bytes(const char *p, uint8_t *out, size_t length);

#endif
