/* Packets of the remote serial protocol: framing, checksums, acknowledgements, numbers. */
#include "gdb/packet.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "util/util.h"

/* ---- Sending ---- */

void gdb_send(struct gdb_stub *s, const char *data, size_t length)
{
    while (length > 0 && s->client >= 0) {
        ssize_t n = send(s->client, data, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* the read side sees the end */
        data += n;
        length -= (size_t)n;
    }
}

void gdb_begin(struct gdb_stub *s)
{
    s->out[0] = '$';
    s->out_length = 1;
}

void gdb_put(struct gdb_stub *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t room = sizeof s->out - 4 - s->out_length;
    int n = vsnprintf(s->out + s->out_length, room, fmt, ap);
    va_end(ap);
    if (n > 0)
        s->out_length += MIN((size_t)n, room - 1);
}

void gdb_put_hex(struct gdb_stub *s, const void *data, size_t length)
{
    for (size_t i = 0; i < length; i++)
        gdb_put(s, "%02x", ((const uint8_t *)data)[i]);
}

void gdb_end(struct gdb_stub *s)
{
    uint8_t sum = 0;
    for (size_t i = 1; i < s->out_length; i++)
        sum += (uint8_t)s->out[i];
    char tail[4];
    snprintf(tail, sizeof tail, "#%02x", sum);
    memcpy(s->out + s->out_length, tail, 3);
    gdb_send(s, s->out, s->out_length + 3);
}

void gdb_reply(struct gdb_stub *s, const char *text)
{
    gdb_begin(s);
    gdb_put(s, "%s", text);
    gdb_end(s);
}

/* ---- Receiving ---- */

int gdb_next_byte(struct gdb_stub *s, struct receiver *r)
{
    if (r->at == r->length) {
        ssize_t n;
        do
            n = recv(s->client, r->buf, sizeof r->buf, 0);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
            return -1;
        r->length = (size_t)n;
        r->at = 0;
    }
    return (unsigned char)r->buf[r->at++];
}

bool gdb_read_packet(struct gdb_stub *s, struct receiver *r)
{
    for (;;) {
        uint8_t sum = 0;
        int c;
        s->in_length = 0;
        while ((c = gdb_next_byte(s, r)) >= 0 && c != '#') {
            sum += (uint8_t)c;
            if (s->in_length < PACKET_MAX)
                s->in[s->in_length++] = (char)c;
        }
        s->in[s->in_length] = 0;
        int high = gdb_next_byte(s, r), low = gdb_next_byte(s, r);
        if (c < 0 || high < 0 || low < 0)
            return false;
        if (s->no_ack)
            return true;
        bool good = (gdb_hex_digit((char)high) << 4 | gdb_hex_digit((char)low)) == sum;
        gdb_send(s, good ? "+" : "-", 1);
        if (good)
            return true;
        while ((c = gdb_next_byte(s, r)) >= 0 && c != '$')
            ;
        if (c < 0)
            return false;
    }
}

/* ---- Parsing ---- */

int gdb_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool gdb_parse_hex(const char **p, uint64_t *value)
{
    const char *start = *p;
    *value = 0;
    for (int digit; (digit = gdb_hex_digit(**p)) >= 0; (*p)++)
        *value = *value << 4 | (unsigned)digit;
    return *p != start;
}

bool gdb_expect(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

bool gdb_parse_range(const char **p, uint64_t *address, uint64_t *length)
{
    return gdb_parse_hex(p, address) && gdb_expect(p, ',') && gdb_parse_hex(p, length);
}

bool gdb_parse_bytes(const char *p, uint8_t *out, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        int high = gdb_hex_digit(p[2 * i]);
        int low = high < 0 ? -1 : gdb_hex_digit(p[2 * i + 1]);
        if (low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
