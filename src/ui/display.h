/*
 * The picture between a display adapter and those who look at it: a VNC server, a screenshot.
 *
 * It is pulled. A viewer that wants to see something calls display_refresh(); that asks the adapter
 * for its present picture and notes what differs from the picture before, for each viewer apart.
 * With nobody looking, nothing is drawn. An adapter never calls into the display by itself.
 *
 * An adapter with few pixels or odd memory draws line by line, under the device lock. One with a
 * linear frame buffer only says where it is; its pixels are converted without the lock, since the
 * guest writes there without one, too.
 *
 * Locks: the display's own, then the device lock. So no device function may call display_*() except
 * from its refresh().
 */
#ifndef TRIVISOR_UI_DISPLAY_H
#define TRIVISOR_UI_DISPLAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <trivisor/trivisor.h>

#define DISPLAY_MAX_WIDTH   4096
#define DISPLAY_MAX_HEIGHT  4096
#define DISPLAY_BAND        16 /* damage is kept for each band of so many lines */
#define DISPLAY_BANDS       (DISPLAY_MAX_HEIGHT / DISPLAY_BAND)
#define DISPLAY_CURSOR_MAX  256
#define DISPLAY_VIEWERS_MAX 4

struct display;
struct display_viewer;

/* How the bytes of a linear frame buffer make a pixel; little-endian, as VESA has them. */
enum display_format {
    DISPLAY_INDEXED8, /* through `palette` */
    DISPLAY_RGB555,
    DISPLAY_RGB565,
    DISPLAY_RGB888, /* three bytes: blue, green, red */
    DISPLAY_XRGB8888,
};

struct display_linear {
    const uint8_t *base; /* stays valid until display_destroy() */
    size_t pitch;        /* bytes from line to line; pitch * height bytes are there */
    unsigned width, height;
    enum display_format format;
    uint32_t palette[256]; /* 0xRRGGBB */
};

struct display_ops {
    /*
     * Draw the present picture with display_resize(), display_put_line() and
     * display_set_cursor(), and return false; or describe a linear frame buffer in `linear` and
     * return true. Device lock held.
     */
    bool (*refresh)(void *adapter, struct display *display, struct display_linear *linear);
};

/* A pointer image. width 0: the viewer's own arrow, or none. */
struct display_cursor {
    unsigned width, height, hot_x, hot_y;
    uint32_t *pixels; /* 0xAARRGGBB, width * height of them, alpha not multiplied in */
};

/* What changed since the viewer looked last. Band b: pixels [left, right) of its lines. */
struct display_damage {
    bool resized; /* everything is to be taken as changed */
    bool cursor;  /* the pointer image is another one */
    uint16_t left[DISPLAY_BANDS], right[DISPLAY_BANDS];
};

/* `device_lock` is taken around the adapter's refresh(). NULL when out of memory. */
struct display *display_create(pthread_mutex_t *device_lock);
void display_destroy(struct display *display);
/* Connect the adapter, before any viewer looks. Without one the picture is a black 640x480. */
void display_attach(struct display *display, const struct display_ops *ops, void *adapter);

/* ---- For the adapter, from refresh() ---- */

/* Set the picture's size; the same size as before changes nothing. False: too large. */
bool display_resize(struct display *display, unsigned width, unsigned height);
/* Put line y of the picture, `width` pixels of 0xRRGGBB. */
void display_put_line(struct display *display, unsigned y, const uint32_t *pixels);
/* Make all of it one colour. */
void display_fill(struct display *display, uint32_t pixel);
/* The pointer's image; NULL: none. Copied. */
void display_set_cursor(struct display *display, const struct display_cursor *cursor);

/* ---- For viewers; the device lock is not held ---- */

/* NULL where there are too many. */
struct display_viewer *display_viewer_add(struct display *display);
void display_viewer_remove(struct display *display, struct display_viewer *viewer);
/* Bring the picture up to date. */
void display_refresh(struct display *display);
/* Hold the picture still to read it, and let it go. */
void display_lock(struct display *display);
void display_unlock(struct display *display);
/* With the display locked: pixels of 0xRRGGBB, lines without gaps; pointer image. */
const uint32_t *display_pixels(const struct display *display, unsigned *width, unsigned *height);
const struct display_cursor *display_cursor(const struct display *display);
/* With the display locked: what changed for this viewer; the count starts anew. False: nothing. */
bool display_take_damage(struct display *display, struct display_viewer *viewer,
                         struct display_damage *damage);
/* Write the present picture as a PNG file. Returns 0, or -1 with `err` filled. */
int display_screenshot(struct display *display, const char *path, struct tv_error *err);

#endif
