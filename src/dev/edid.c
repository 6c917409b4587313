#include "dev/edid.h"

#include <string.h>

#include "util/util.h"

#define DESCRIPTORS     54
#define DESCRIPTOR_SIZE 18
#define DPI             96

/* Three letters, five bits each. */
static void put_vendor(uint8_t *at, const char *letters)
{
    unsigned id = 0;
    for (int i = 0; i < 3; i++)
        id = id << 5 | (unsigned)(letters[i] - 'A' + 1);
    at[0] = (uint8_t)(id >> 8);
    at[1] = (uint8_t)id;
}

static void put_text(uint8_t *at, uint8_t kind, const char *text)
{
    size_t n = strlen(text);
    at[3] = kind;
    memset(at + 5, ' ', 13);
    memcpy(at + 5, text, n);
    at[5 + n] = '\n';
}

/* The preferred mode, with blanking by the reduced-blanking rules of thumb. */
static void put_timing(uint8_t *at, unsigned width, unsigned height)
{
    unsigned hblank = 160, hfront = 48, hsync = 32, vblank = 35, vfront = 3, vsync = 6;
    unsigned clock = (width + hblank) * (height + vblank) * 60 / 10000;
    unsigned mm_x = width * 254 / (DPI * 10), mm_y = height * 254 / (DPI * 10);
    at[0] = (uint8_t)clock;
    at[1] = (uint8_t)(clock >> 8);
    at[2] = (uint8_t)width;
    at[3] = (uint8_t)hblank;
    at[4] = (uint8_t)(width >> 8 << 4 | hblank >> 8);
    at[5] = (uint8_t)height;
    at[6] = (uint8_t)vblank;
    at[7] = (uint8_t)(height >> 8 << 4 | vblank >> 8);
    at[8] = (uint8_t)hfront;
    at[9] = (uint8_t)hsync;
    at[10] = (uint8_t)(vfront << 4 | vsync);
    at[12] = (uint8_t)mm_x;
    at[13] = (uint8_t)mm_y;
    at[14] = (uint8_t)(mm_x >> 8 << 4 | mm_y >> 8);
    at[17] = 0x1a; /* separate syncs, horizontal positive */
}

/* Standard timings: width / 8 - 31, aspect ratio and rate - 60. */
static const uint8_t standard[16] = {
    0x31, 0x40, /* 640x480 */
    0x45, 0x40, /* 800x600 */
    0x61, 0x40, /* 1024x768 */
    0x81, 0x80, /* 1280x1024 */
    0x81, 0x40, /* 1280x960 */
    0x95, 0x00, /* 1440x900 */
    0xa9, 0x40, /* 1600x1200 */
    0xd1, 0xc0, /* 1920x1080 */
};

void edid_build(uint8_t edid[EDID_SIZE], unsigned width, unsigned height)
{
    static const uint8_t head[8] = {0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00};
    /* sRGB's primaries and white point. */
    static const uint8_t colours[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54};
    memset(edid, 0, EDID_SIZE);
    memcpy(edid, head, sizeof head);
    put_vendor(edid + 8, "TVM");
    edid[10] = 1; /* product */
    edid[16] = 1; /* week and year since 1990 */
    edid[17] = 2026 - 1990;
    edid[18] = 1; /* EDID 1.4 */
    edid[19] = 4;
    edid[20] = 0xa5; /* digital, 8 bits a colour, DisplayPort */
    edid[21] = (uint8_t)(width * 254 / (DPI * 100));
    edid[22] = (uint8_t)(height * 254 / (DPI * 100));
    edid[23] = 120;  /* gamma 2.2 */
    edid[24] = 0x06; /* sRGB; the first descriptor is the native mode */
    memcpy(edid + 25, colours, sizeof colours);
    edid[35] = 0x21; /* 640x480 and 800x600 at 60 Hz */
    edid[36] = 0x08; /* 1024x768 at 60 Hz */
    memcpy(edid + 38, standard, sizeof standard);

    uint8_t *d = edid + DESCRIPTORS;
    put_timing(d, width, height);
    put_text(d + DESCRIPTOR_SIZE, 0xfc, "Trivisor");
    put_text(d + 2 * DESCRIPTOR_SIZE, 0xff, "1");
    d += 3 * DESCRIPTOR_SIZE; /* range limits: 50 to 125 Hz, 30 to 160 kHz, 600 MHz */
    d[3] = 0xfd;
    d[5] = 50;
    d[6] = 125;
    d[7] = 30;
    d[8] = 160;
    d[9] = 60;
    d[10] = 0x01;
    memset(d + 12, ' ', 6);
    d[11] = '\n';

    uint8_t sum = 0;
    for (unsigned i = 0; i < EDID_SIZE - 1; i++)
        sum = (uint8_t)(sum + edid[i]);
    edid[EDID_SIZE - 1] = (uint8_t)-sum;
}
