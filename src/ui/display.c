#include "ui/display.h"

#include <stdlib.h>
#include <string.h>

#include "ui/png.h"
#include "util/error.h"
#include "util/util.h"

#define START_WIDTH  640
#define START_HEIGHT 480

struct display_viewer {
    bool used;
    struct display_damage damage;
    bool any;
};

struct display {
    pthread_mutex_t lock;
    pthread_mutex_t *device_lock;
    const struct display_ops *ops;
    void *adapter;
    unsigned width, height;
    uint32_t *pixels;
    struct display_cursor cursor;
    struct display_viewer viewers[DISPLAY_VIEWERS_MAX];
    struct display_linear linear; /* of the refresh at hand */
    uint32_t line[DISPLAY_MAX_WIDTH];
};

struct display *display_create(pthread_mutex_t *device_lock)
{
    struct display *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->width = START_WIDTH;
    d->height = START_HEIGHT;
    d->pixels = calloc((size_t)d->width * d->height, sizeof *d->pixels);
    if (!d->pixels) {
        free(d);
        return NULL;
    }
    d->device_lock = device_lock;
    pthread_mutex_init(&d->lock, NULL);
    return d;
}

void display_destroy(struct display *d)
{
    if (!d)
        return;
    pthread_mutex_destroy(&d->lock);
    free(d->cursor.pixels);
    free(d->pixels);
    free(d);
}

void display_attach(struct display *d, const struct display_ops *ops, void *adapter)
{
    d->ops = ops;
    d->adapter = adapter;
}

/* ---- Damage ---- */

static void damage(struct display *d, unsigned y, unsigned left, unsigned right)
{
    unsigned band = y / DISPLAY_BAND;
    for (unsigned i = 0; i < DISPLAY_VIEWERS_MAX; i++) {
        struct display_viewer *v = &d->viewers[i];
        struct display_damage *to = &v->damage;
        if (!v->used)
            continue;
        if (to->left[band] >= to->right[band]) {
            to->left[band] = (uint16_t)left;
            to->right[band] = (uint16_t)right;
        } else {
            to->left[band] = (uint16_t)MIN(to->left[band], left);
            to->right[band] = (uint16_t)MAX(to->right[band], right);
        }
        v->any = true;
    }
}

bool display_take_damage(struct display *d, struct display_viewer *viewer,
                         struct display_damage *out)
{
    if (!viewer->any)
        return false;
    *out = viewer->damage;
    memset(&viewer->damage, 0, sizeof viewer->damage);
    viewer->any = false;
    return true;
}

/* ---- The adapter's side ---- */

bool display_resize(struct display *d, unsigned width, unsigned height)
{
    if (width == d->width && height == d->height)
        return true;
    if (!width || !height || width > DISPLAY_MAX_WIDTH || height > DISPLAY_MAX_HEIGHT)
        return false;
    uint32_t *pixels = calloc((size_t)width * height, sizeof *pixels);
    if (!pixels)
        return false;
    free(d->pixels);
    d->pixels = pixels;
    d->width = width;
    d->height = height;
    for (unsigned i = 0; i < DISPLAY_VIEWERS_MAX; i++) {
        d->viewers[i].damage.resized = true;
        d->viewers[i].any = true;
    }
    return true;
}

void display_put_line(struct display *d, unsigned y, const uint32_t *pixels)
{
    if (y >= d->height)
        return;
    uint32_t *to = d->pixels + (size_t)y * d->width;
    if (memcmp(to, pixels, d->width * sizeof *to) == 0)
        return;
    unsigned left = 0, right = d->width;
    while (to[left] == pixels[left])
        left++;
    while (to[right - 1] == pixels[right - 1])
        right--;
    memcpy(to + left, pixels + left, (right - left) * sizeof *to);
    damage(d, y, left, right);
}

void display_fill(struct display *d, uint32_t pixel)
{
    for (unsigned x = 0; x < d->width; x++)
        d->line[x] = pixel;
    for (unsigned y = 0; y < d->height; y++)
        display_put_line(d, y, d->line);
}

void display_set_cursor(struct display *d, const struct display_cursor *cursor)
{
    free(d->cursor.pixels);
    d->cursor = (struct display_cursor){0};
    if (cursor && cursor->width && cursor->height && cursor->width <= DISPLAY_CURSOR_MAX &&
        cursor->height <= DISPLAY_CURSOR_MAX) {
        size_t size = (size_t)cursor->width * cursor->height * sizeof *cursor->pixels;
        uint32_t *pixels = malloc(size);
        if (pixels) {
            memcpy(pixels, cursor->pixels, size);
            d->cursor = *cursor;
            d->cursor.pixels = pixels;
        }
    }
    for (unsigned i = 0; i < DISPLAY_VIEWERS_MAX; i++) {
        d->viewers[i].damage.cursor = true;
        d->viewers[i].any = true;
    }
}

/* ---- Linear frame buffers ---- */

static uint32_t from_555(unsigned v)
{
    unsigned r = v >> 10 & 31, g = v >> 5 & 31, b = v & 31;
    return (r << 3 | r >> 2) << 16 | (g << 3 | g >> 2) << 8 | (b << 3 | b >> 2);
}

static uint32_t from_565(unsigned v)
{
    unsigned r = v >> 11 & 31, g = v >> 5 & 63, b = v & 31;
    return (r << 3 | r >> 2) << 16 | (g << 2 | g >> 4) << 8 | (b << 3 | b >> 2);
}

static void convert_line(uint32_t *to, const uint8_t *from, const struct display_linear *l)
{
    switch (l->format) {
    case DISPLAY_INDEXED8:
        for (unsigned x = 0; x < l->width; x++)
            to[x] = l->palette[from[x]];
        break;
    case DISPLAY_RGB555:
        for (unsigned x = 0; x < l->width; x++)
            to[x] = from_555(from[2 * x] | from[2 * x + 1] << 8);
        break;
    case DISPLAY_RGB565:
        for (unsigned x = 0; x < l->width; x++)
            to[x] = from_565(from[2 * x] | from[2 * x + 1] << 8);
        break;
    case DISPLAY_RGB888:
        for (unsigned x = 0; x < l->width; x++)
            to[x] = from[3 * x] | (uint32_t)from[3 * x + 1] << 8 | (uint32_t)from[3 * x + 2] << 16;
        break;
    case DISPLAY_XRGB8888:
        for (unsigned x = 0; x < l->width; x++) {
            uint32_t v;
            memcpy(&v, from + 4 * x, sizeof v);
            to[x] = v & 0xffffff;
        }
        break;
    }
}

/* ---- The viewers' side ---- */

struct display_viewer *display_viewer_add(struct display *d)
{
    struct display_viewer *found = NULL;
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; !found && i < DISPLAY_VIEWERS_MAX; i++)
        if (!d->viewers[i].used)
            found = &d->viewers[i];
    if (found) {
        memset(found, 0, sizeof *found);
        found->used = true;
        found->any = true;
        found->damage.resized = true;
        found->damage.cursor = true;
    }
    pthread_mutex_unlock(&d->lock);
    return found;
}

void display_viewer_remove(struct display *d, struct display_viewer *viewer)
{
    pthread_mutex_lock(&d->lock);
    viewer->used = false;
    pthread_mutex_unlock(&d->lock);
}

void display_refresh(struct display *d)
{
    if (!d->ops)
        return;
    pthread_mutex_lock(&d->lock);
    pthread_mutex_lock(d->device_lock);
    struct display_linear *l = &d->linear;
    bool linear = d->ops->refresh(d->adapter, d, l);
    pthread_mutex_unlock(d->device_lock);
    if (linear && display_resize(d, l->width, l->height)) {
        for (unsigned y = 0; y < l->height; y++) {
            convert_line(d->line, l->base + y * l->pitch, l);
            display_put_line(d, y, d->line);
        }
    }
    pthread_mutex_unlock(&d->lock);
}

void display_lock(struct display *d)
{
    pthread_mutex_lock(&d->lock);
}

void display_unlock(struct display *d)
{
    pthread_mutex_unlock(&d->lock);
}

const uint32_t *display_pixels(const struct display *d, unsigned *width, unsigned *height)
{
    *width = d->width;
    *height = d->height;
    return d->pixels;
}

const struct display_cursor *display_cursor(const struct display *d)
{
    return &d->cursor;
}

int display_screenshot(struct display *d, const char *path, struct tv_error *err)
{
    display_refresh(d);
    unsigned width, height;
    display_lock(d);
    const uint32_t *pixels = display_pixels(d, &width, &height);
    size_t size = (size_t)width * height * sizeof *pixels;
    uint32_t *copy = malloc(size);
    if (copy)
        memcpy(copy, pixels, size);
    display_unlock(d);
    if (!copy)
        return tv_fail(err, "%s: out of memory", path);
    int result = png_write(path, copy, width, height, err);
    free(copy);
    return result;
}
