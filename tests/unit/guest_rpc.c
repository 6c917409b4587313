/* VMware's message channels: requests and their replies, a guest that keeps no order, channels that
 * are left open, one process in another's channel. */
#include "dev/guest_rpc.h"

#include <string.h>

#include "check.h"
#include "fake_machine.h"

#define RPCI   0x49435052u
#define TCLO   0x4f4c4354u
#define COOKIE 0x80000000u

enum { MESSAGE = 30 };
enum { OPEN, SEND_SIZE, SEND, RECEIVE_SIZE, RECEIVE, RECEIVED, CLOSE };

static struct fake_machine m;
static struct backdoor *backdoor;

struct channel {
    uint32_t edx, esi, edi;
};

static struct backdoor_call call(const struct channel *ch, unsigned type, uint32_t ebx)
{
    struct backdoor_call c = {.ebx = ebx,
                              .ecx = type << 16 | MESSAGE,
                              .edx = ch->edx | 0x5658,
                              .esi = ch->esi,
                              .edi = ch->edi};
    backdoor_call(backdoor, &c);
    CHECK((c.ecx & 0xffff) == MESSAGE && (c.edx & 0xffff) == 0x5658);
    return c;
}

static unsigned status(const struct channel *ch, unsigned type, uint32_t ebx)
{
    return call(ch, type, ebx).ecx >> 16;
}

static bool open_channel(struct channel *ch, uint32_t protocol)
{
    *ch = (struct channel){0};
    struct backdoor_call c = call(ch, OPEN, protocol);
    *ch = (struct channel){c.edx & 0xffff0000, c.esi, c.edi};
    return c.ecx >> 16 == 1;
}

static bool send_text(const struct channel *ch, const char *text, size_t size)
{
    if (status(ch, SEND_SIZE, (uint32_t)size) != 1)
        return false;
    for (size_t i = 0; i < size; i += 4) {
        uint32_t word = 0;
        memcpy(&word, text + i, size - i < 4 ? size - i : 4);
        if (status(ch, SEND, word) != 1)
            return false;
    }
    return true;
}

static const char *receive(const struct channel *ch)
{
    static char text[64];
    struct backdoor_call c = call(ch, RECEIVE_SIZE, 0);
    if (c.ecx >> 16 != 3 || c.edx >> 16 != SEND_SIZE || c.ebx >= sizeof text)
        return "nothing";
    uint32_t size = c.ebx;
    for (uint32_t i = 0; i < size; i += 4) {
        c = call(ch, RECEIVE, 1);
        CHECK(c.ecx >> 16 == 1 && c.edx >> 16 == SEND);
        memcpy(text + i, &c.ebx, 4);
    }
    CHECK(status(ch, RECEIVE, 1) == 0);
    text[size] = '\0';
    return text;
}

static void ask(const char *request, const char *want)
{
    struct channel ch;
    CHECK(open_channel(&ch, RPCI | COOKIE));
    CHECK(ch.esi || ch.edi);
    CHECK(send_text(&ch, request, strlen(request)));
    CHECK(strcmp(receive(&ch), want) == 0);
    CHECK(status(&ch, RECEIVED, 0) == 1); /* once more, please */
    CHECK(strcmp(receive(&ch), want) == 0);
    CHECK(status(&ch, RECEIVED, 1) == 1);
    CHECK(status(&ch, RECEIVE_SIZE, 0) == 1); /* no more */
    CHECK(status(&ch, CLOSE, 0) == 1);
    CHECK(status(&ch, CLOSE, 0) == 0);
}

static void test_requests(void)
{
    ask("log a line of the driver's", "1 ");
    ask("log", "1 ");
    ask("logs", "0 Unknown command");
    ask("info-get guestinfo.nothing", "0 No value found");
    ask("", "0 Unknown command");
    ask("tools.capability.hgfs_server toolbox 1", "0 Unknown command");
}

static void test_order(void)
{
    struct channel ch, other;
    CHECK(!open_channel(&ch, 0x12345678 | COOKIE));
    CHECK(open_channel(&ch, RPCI | COOKIE));
    CHECK(status(&ch, SEND, 0) == 0);
    CHECK(status(&ch, RECEIVE, 1) == 0);
    CHECK(status(&ch, RECEIVED, 1) == 0);
    CHECK(status(&ch, RECEIVE_SIZE, 0) == 1);
    CHECK(status(&ch, SEND_SIZE, 4097) == 0);
    CHECK(status(&ch, SEND_SIZE, UINT32_MAX) == 0);
    CHECK(status(&ch, 7, 0) == 0);
    static char longest[4096];
    memset(longest, 'x', sizeof longest);
    memcpy(longest, "log ", 4);
    CHECK(send_text(&ch, longest, sizeof longest));
    CHECK(status(&ch, SEND, 0) == 0);
    CHECK(strcmp(receive(&ch), "1 ") == 0);
    /* Somebody else's. */
    other = ch;
    other.esi++;
    CHECK(status(&other, CLOSE, 0) == 0);
    other = ch;
    other.edx = 0x00090000;
    CHECK(status(&other, CLOSE, 0) == 0);
    CHECK(status(&ch, CLOSE, 0) == 1);
    /* Without cookies; the other protocol has nothing to say. */
    CHECK(open_channel(&ch, TCLO));
    CHECK(!ch.esi && !ch.edi);
    CHECK(send_text(&ch, "", 0));
    CHECK(status(&ch, RECEIVE_SIZE, 0) == 1);
    CHECK(status(&ch, CLOSE, 0) == 1);
}

static void test_left_open(void)
{
    struct channel ch, first;
    CHECK(open_channel(&first, RPCI | COOKIE));
    for (unsigned i = 0; i < 7; i++)
        CHECK(open_channel(&ch, RPCI | COOKIE));
    CHECK(!open_channel(&ch, RPCI | COOKIE));
    fake_advance(&m, UINT64_C(31000000000));
    CHECK(status(&first, RECEIVE_SIZE, 0) == 1); /* that one is in use */
    CHECK(open_channel(&ch, RPCI | COOKIE) && ch.edx != first.edx);
    devices_reset(&m.env);
    CHECK(status(&first, CLOSE, 0) == 0);
    CHECK(open_channel(&ch, RPCI | COOKIE) && ch.edx == 0);
}

int main(void)
{
    fake_machine_init(&m);
    backdoor = backdoor_create(&m.env, &(struct backdoor_identity){0});
    guest_rpc_create(&m.env, backdoor);
    test_requests();
    test_order();
    test_left_open();
    fake_machine_end(&m);
    return check_result();
}
