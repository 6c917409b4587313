#include <string.h>

#include "dev/svga_internal.h"
#include "util/util.h"

#define DESCRIPTORS_PER_PAGE (PAGE_SIZE / 8)
#define DESCRIPTOR_PAGES_MAX 64

/* Give the region's pages back; those behind them move up. */
static void forget(struct svga *s, uint32_t id)
{
    uint32_t start = s->gmr_start[id], count = s->gmr_count[id];
    memmove(s->gmr_pool + start, s->gmr_pool + start + count,
            (s->gmr_used - start - count) * sizeof s->gmr_pool[0]);
    s->gmr_used -= count;
    s->gmr_count[id] = 0;
    for (unsigned i = 0; i < SVGA_GMRS; i++)
        if (s->gmr_start[i] > start)
            s->gmr_start[i] -= count;
}

void svga_gmr_define(struct svga *s, uint32_t id, uint32_t pages)
{
    if (id >= SVGA_GMRS) {
        svga_odd(s, "memory region", id);
        return;
    }
    forget(s, id);
    if (pages > SVGA_GMR_PAGES - s->gmr_used) {
        svga_odd(s, "no room for pages of a memory region", pages);
        return;
    }
    s->gmr_start[id] = s->gmr_used;
    s->gmr_count[id] = pages;
    memset(s->gmr_pool + s->gmr_used, 0xff, pages * sizeof s->gmr_pool[0]); /* no memory there */
    s->gmr_used += pages;
}

void svga_gmr_set_page(struct svga *s, uint32_t id, uint32_t index, uint64_t page)
{
    if (id < SVGA_GMRS && index < s->gmr_count[id])
        s->gmr_pool[s->gmr_start[id] + index] = page;
}

void svga_gmr_from_list(struct svga *s, uint32_t id, uint32_t page)
{
    if (id >= SVGA_GMRS)
        return;
    svga_gmr_define(s, id, 0);
    uint32_t count = 0, lists = 0;
    s->gmr_start[id] = s->gmr_used;
    while (page && lists++ < DESCRIPTOR_PAGES_MAX) {
        struct {
            uint32_t page, count;
        } list[DESCRIPTORS_PER_PAGE];
        if (!physmem_read(s->vga.env->mem, (uint64_t)page << PAGE_SHIFT, list, sizeof list))
            break;
        page = 0;
        for (unsigned i = 0; i < DESCRIPTORS_PER_PAGE; i++) {
            if (!list[i].count) {
                page = list[i].page; /* the list goes on there; 0: it ends */
                break;
            }
            uint32_t run = MIN(list[i].count, SVGA_GMR_PAGES - s->gmr_used);
            for (uint32_t j = 0; j < run; j++)
                s->gmr_pool[s->gmr_used++] = (uint64_t)list[i].page + j;
            count += run;
        }
    }
    s->gmr_count[id] = count;
}

/* One piece inside a page: its address in guest memory and its length. */
static bool piece(const struct svga *s, uint32_t id, uint64_t offset, uint32_t size, uint64_t *gpa,
                  uint32_t *length)
{
    uint64_t index = offset >> PAGE_SHIFT, in_page = offset & (PAGE_SIZE - 1);
    if (id >= SVGA_GMRS || index >= s->gmr_count[id])
        return false;
    uint64_t page = s->gmr_pool[s->gmr_start[id] + index];
    if (page >> (64 - PAGE_SHIFT))
        return false;
    *gpa = page << PAGE_SHIFT | in_page;
    *length = (uint32_t)MIN(size, PAGE_SIZE - in_page);
    return true;
}

static bool in_frame_buffer(const struct svga *s, uint64_t offset, uint32_t size)
{
    return offset <= s->vga.vram_size && size <= s->vga.vram_size - offset;
}

bool svga_gmr_read(const struct svga *s, uint32_t id, uint64_t offset, void *to, uint32_t size)
{
    if (id == SVGA_GMR_FRAMEBUFFER) {
        if (!in_frame_buffer(s, offset, size))
            return false;
        memmove(to, s->vga.vram + offset, size);
        return true;
    }
    for (uint8_t *at = to; size;) {
        uint64_t gpa;
        uint32_t length;
        if (!piece(s, id, offset, size, &gpa, &length) ||
            !physmem_read(s->vga.env->mem, gpa, at, length))
            return false;
        at += length;
        offset += length;
        size -= length;
    }
    return true;
}

bool svga_gmr_write(struct svga *s, uint32_t id, uint64_t offset, const void *from, uint32_t size)
{
    if (id == SVGA_GMR_FRAMEBUFFER) {
        if (!in_frame_buffer(s, offset, size))
            return false;
        memmove(s->vga.vram + offset, from, size);
        vga_written(&s->vga, s->vga.vram + offset, size);
        return true;
    }
    for (const uint8_t *at = from; size;) {
        uint64_t gpa;
        uint32_t length;
        if (!piece(s, id, offset, size, &gpa, &length) ||
            !physmem_write(s->vga.env->mem, gpa, at, length))
            return false;
        at += length;
        offset += length;
        size -= length;
    }
    return true;
}

void svga_gmr_check(struct svga *s)
{
    s->gmr_used = MIN(s->gmr_used, SVGA_GMR_PAGES);
    for (unsigned i = 0; i < SVGA_GMRS; i++) {
        if (s->gmr_start[i] > s->gmr_used)
            s->gmr_start[i] = s->gmr_used;
        if (s->gmr_count[i] > s->gmr_used - s->gmr_start[i])
            s->gmr_count[i] = s->gmr_used - s->gmr_start[i];
    }
}
