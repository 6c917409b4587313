/* Transfers to and from the grains of a sparse extent. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/vmdk.h"
#include "util/util.h"

enum run_kind { RUN_ABSENT, RUN_ZEROED, RUN_STORED, RUN_COMPRESSED };

struct run {
    enum run_kind kind;
    uint32_t entry;  /* of the first grain */
    uint64_t length; /* bytes from the offset on */
};

static enum run_kind kind_of(const struct vmdk_extent *e, uint32_t entry)
{
    if (entry == 0)
        return RUN_ABSENT;
    if (entry == VMDK_GTE_ZEROED && e->header.flags & VMDK_ZEROED_GTES)
        return RUN_ZEROED;
    return e->header.flags & VMDK_COMPRESSED ? RUN_COMPRESSED : RUN_STORED;
}

/* How far grains of the same kind go, and where stored, how far they are one piece of the file. */
static int run_at(struct vmdk_extent *e, uint64_t offset, uint64_t length, struct run *run)
{
    uint64_t grain = offset / e->grain, within = offset % e->grain;
    int error = sparse_lookup(e, grain, &run->entry);
    if (error)
        return error;
    run->kind = kind_of(e, run->entry);
    run->length = e->grain - within;
    while (run->length < length && run->kind != RUN_COMPRESSED) {
        uint32_t entry, step = run->kind == RUN_STORED ? (uint32_t)e->header.grain_size : 0;
        uint64_t n = (run->length + within) / e->grain;
        error = sparse_lookup(e, grain + n, &entry);
        if (error) /* it will be met again, as the first */
            break;
        if (kind_of(e, entry) != run->kind || (step && entry != run->entry + n * step))
            break;
        run->length += e->grain;
    }
    run->length = MIN(run->length, length);
    return 0;
}

static uint64_t file_offset(const struct vmdk_extent *e, uint32_t entry, uint64_t offset)
{
    return (uint64_t)entry * DISK_SECTOR + offset % e->grain;
}

int sparse_read(struct vmdk *vmdk, struct vmdk_extent *e, uint64_t offset,
                struct iov_cursor *cursor, uint64_t length)
{
    int error = 0;
    while (length && !error) {
        struct run run;
        error = run_at(e, offset, length, &run);
        if (error)
            break;
        switch (run.kind) {
        case RUN_ABSENT:
            error = vmdk_read_parent(vmdk, e->start + offset, cursor, run.length);
            break;
        case RUN_ZEROED:
            iov_put(cursor, NULL, run.length);
            break;
        case RUN_STORED:
            error = file_readv(&e->file, cursor, run.length, file_offset(e, run.entry, offset));
            break;
        case RUN_COMPRESSED:
            error = compressed_read(e, offset / e->grain, run.entry, offset % e->grain, cursor,
                                    run.length);
            break;
        }
        offset += run.length;
        length -= run.length;
    }
    return error;
}

static void claim(struct vmdk_extent *e, struct grain_claim *mine, uint64_t first, uint64_t last)
{
    *mine = (struct grain_claim){.first = first, .last = last};
    pthread_mutex_lock(&e->lock);
    for (struct grain_claim *c = e->claims; c;) {
        if (c->first <= last && first <= c->last) {
            pthread_cond_wait(&e->claim_ended, &e->lock);
            c = e->claims;
        } else {
            c = c->next;
        }
    }
    mine->next = e->claims;
    e->claims = mine;
    pthread_mutex_unlock(&e->lock);
}

static void claim_end(struct vmdk_extent *e, struct grain_claim *mine)
{
    pthread_mutex_lock(&e->lock);
    struct grain_claim **p = &e->claims;
    while (*p != mine)
        p = &(*p)->next;
    *p = mine->next;
    pthread_cond_broadcast(&e->claim_ended);
    pthread_mutex_unlock(&e->lock);
}

/* Write part of a new grain over what was there before, as one write of the whole grain. */
static int write_merged(struct vmdk *vmdk, struct vmdk_extent *e, uint64_t offset,
                        struct iov_cursor *cursor, uint64_t length, uint64_t to)
{
    uint64_t begin = ALIGN_DOWN(offset, e->grain);
    uint64_t whole = MIN(e->grain, e->length - begin);
    char *buffer = malloc(whole);
    if (!buffer)
        return ENOMEM;
    struct iovec iov = {.iov_base = buffer, .iov_len = whole};
    struct iov_cursor under = iov_start(&iov, 1);
    int error = vmdk_read_parent(vmdk, e->start + begin, &under, whole);
    if (!error && cursor)
        iov_get(cursor, buffer + (offset - begin), length);
    else if (!error)
        memset(buffer + (offset - begin), 0, length);
    if (!error)
        error = file_write(&e->file, buffer, whole, to);
    free(buffer);
    return error;
}

/*
 * Write to grains of which none is in the file yet: all of `length`, or its part in one grain where
 * the grain is not covered and has a parent under it. The claim is held.
 */
static int write_new(struct vmdk *vmdk, struct vmdk_extent *e, uint64_t offset,
                     struct iov_cursor *cursor, uint64_t length, enum run_kind kind)
{
    uint64_t first = offset / e->grain, last = (offset + length - 1) / e->grain, to;
    int error = sparse_allocate(e, last - first + 1, &to);
    if (error)
        return error;
    bool whole = offset % e->grain == 0 &&
                 ((offset + length) % e->grain == 0 || offset + length == e->length);
    if (kind == RUN_ABSENT && vmdk->image.parent && !whole) {
        struct iov_cursor before = cursor ? *cursor : (struct iov_cursor){0};
        error = write_merged(vmdk, e, offset, cursor, length, to);
        if (error && cursor)
            *cursor = before;
    } else if (cursor) { /* the rest is a hole: zeroes */
        error = file_writev(&e->file, cursor, length, to + offset % e->grain);
    }
    if (!error)
        error = sparse_set(e, first, last - first + 1, (uint32_t)(to / DISK_SECTOR),
                           (uint32_t)e->header.grain_size);
    return error;
}

/* How much of `length` write_new() can do at once. */
static uint64_t new_length(const struct vmdk *vmdk, const struct vmdk_extent *e, uint64_t offset,
                           uint64_t length, enum run_kind kind)
{
    if (kind == RUN_ZEROED || !vmdk->image.parent)
        return length;
    uint64_t in_grain = e->grain - offset % e->grain;
    if (offset % e->grain || length < e->grain)
        return MIN(length, in_grain);
    return offset + length == e->length ? length : ALIGN_DOWN(length, e->grain);
}

int sparse_write(struct vmdk *vmdk, struct vmdk_extent *e, uint64_t offset,
                 struct iov_cursor *cursor, uint64_t length)
{
    int error = 0;
    if (e->header.flags & VMDK_COMPRESSED)
        return EROFS;
    while (length && !error) {
        struct run run;
        error = run_at(e, offset, length, &run);
        if (error)
            break;
        if (run.kind == RUN_STORED) {
            uint64_t to = file_offset(e, run.entry, offset);
            error = cursor ? file_writev(&e->file, cursor, run.length, to)
                           : file_zero(&e->file, to, run.length);
        } else {
            struct grain_claim mine;
            claim(e, &mine, offset / e->grain, (offset + run.length - 1) / e->grain);
            /* Somebody may have been here before the claim. */
            error = run_at(e, offset, run.length, &run);
            if (!error && run.kind != RUN_STORED) {
                run.length = new_length(vmdk, e, offset, run.length, run.kind);
                error = write_new(vmdk, e, offset, cursor, run.length, run.kind);
            } else {
                run.length = 0;
            }
            claim_end(e, &mine);
        }
        offset += run.length;
        length -= run.length;
    }
    return error;
}

int sparse_zero(struct vmdk *vmdk, struct vmdk_extent *e, uint64_t offset, uint64_t length,
                bool discard)
{
    int error = 0;
    if (e->header.flags & VMDK_COMPRESSED)
        return EROFS;
    while (length && !error) {
        struct run run;
        error = run_at(e, offset, length, &run);
        if (error)
            break;
        if (run.kind == RUN_STORED) {
            /* The grain keeps its place, so nothing has to be ordered; the host gets the space. */
            uint64_t at = file_offset(e, run.entry, offset);
            error = discard ? file_discard(&e->file, at, run.length)
                            : file_zero(&e->file, at, run.length);
        } else if (run.kind == RUN_ABSENT && !discard && vmdk->image.parent) {
            uint64_t whole = offset % e->grain ? 0 : ALIGN_DOWN(run.length, e->grain);
            if (whole && e->header.flags & VMDK_ZEROED_GTES) {
                struct grain_claim mine;
                run.length = whole;
                claim(e, &mine, offset / e->grain, (offset + whole - 1) / e->grain);
                error = run_at(e, offset, whole, &run);
                if (!error && run.kind == RUN_ABSENT)
                    error =
                        sparse_set(e, offset / e->grain, run.length / e->grain, VMDK_GTE_ZEROED, 0);
                else
                    run.length = 0;
                claim_end(e, &mine);
            } else {
                error = sparse_write(vmdk, e, offset, NULL, run.length);
            }
        }
        offset += run.length;
        length -= run.length;
    }
    return error;
}

int sparse_map(struct vmdk *vmdk, struct vmdk_extent *e, uint64_t offset, uint64_t length,
               struct image_range *range)
{
    struct run run;
    int error = run_at(e, offset, length, &run);
    if (error)
        return error;
    *range = (struct image_range){.length = run.length, .absent = run.kind == RUN_ABSENT};
    if (run.kind == RUN_STORED) {
        uint64_t at = file_offset(e, run.entry, offset);
        range->data = true;
        range->file = e->file.path;
        range->file_offset = at;
    } else if (run.kind == RUN_COMPRESSED) {
        range->data = range->compressed = true;
    } else if (run.kind == RUN_ABSENT && vmdk->image.parent) {
        struct image *parent = vmdk->image.parent;
        uint64_t from = e->start + offset;
        if (from >= parent->size)
            return 0;
        error = parent->ops->map(parent, from, MIN(run.length, parent->size - from), range);
        range->depth++;
    }
    return error;
}
