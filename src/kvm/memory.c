/*
 * Guest-physical memory under KVM. Each stretch that is contiguous in guest and host is a slot;
 * read-only memory is a read-only slot, whose writes come to us. When the map changes the slots
 * that are not wanted any more go first, then the new ones come: other vCPUs that touch them in
 * between get an MMIO exit, which reads and writes the memory all the same.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/internal.h"
#include "util/error.h"
#include "util/util.h"

struct wanted {
    struct kvm_userspace_memory_region slots[KVM_SLOTS_MAX];
    unsigned count;
};

static void want(struct wanted *w, uint64_t gpa, uint64_t size, const uint8_t *host, uint32_t flags)
{
    if (!size || w->count == KVM_SLOTS_MAX)
        return;
    w->slots[w->count++] = (struct kvm_userspace_memory_region){.flags = flags,
                                                                .guest_phys_addr = gpa,
                                                                .memory_size = size,
                                                                .userspace_addr = (uintptr_t)host};
}

static void want_low(struct wanted *w, const struct physmem *mem)
{
    uint64_t start = 0;
    const uint8_t *host = NULL;
    uint32_t flags = 0;
    for (uint64_t gpa = 0; gpa <= LOW_MAP_END; gpa += PAGE_SIZE) {
        bool end = gpa == LOW_MAP_END;
        const uint8_t *read = end ? NULL : physmem_host(mem, gpa, 1);
        uint32_t now = end || physmem_host_write(mem, gpa, 1) ? 0 : KVM_MEM_READONLY;
        if (host && read == host + (gpa - start) && now == flags)
            continue;
        if (host)
            want(w, start, gpa - start, host, flags);
        start = gpa;
        host = read;
        flags = now;
    }
}

static bool same(const struct kvm_userspace_memory_region *a,
                 const struct kvm_userspace_memory_region *b)
{
    return a->guest_phys_addr == b->guest_phys_addr && a->memory_size == b->memory_size &&
           a->userspace_addr == b->userspace_addr && a->flags == b->flags;
}

static bool is_in(const struct kvm_userspace_memory_region *slot,
                  const struct kvm_userspace_memory_region *list, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (list[i].memory_size && same(slot, &list[i]))
            return true;
    return false;
}

int kvm_memory_update(struct kvm_vm *vm, const struct physmem *mem, struct tv_error *err)
{
    struct wanted w = {.count = 0};
    uint64_t plain = mem->low_mapped ? LOW_MAP_END : 0;
    if (plain)
        want_low(&w, mem);
    want(&w, plain, mem->low_size - plain, mem->ram + plain, 0);
    want(&w, HIGH_RAM_BASE, mem->size - mem->low_size, mem->ram + mem->low_size, 0);
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct physmem_region *r = &mem->regions[i];
        uint64_t base = atomic_load(&r->base);
        if (base != REGION_UNMAPPED)
            want(&w, base, r->size, r->host,
                 r->writable ? KVM_MEM_LOG_DIRTY_PAGES : KVM_MEM_READONLY);
    }
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        struct kvm_userspace_memory_region *slot = &vm->slots[i];
        if (!slot->memory_size || is_in(slot, w.slots, w.count))
            continue;
        slot->slot = i;
        slot->memory_size = 0;
        kvm_ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, slot);
    }
    for (unsigned i = 0, free = 0; i < w.count; i++) {
        if (is_in(&w.slots[i], vm->slots, KVM_SLOTS_MAX))
            continue;
        while (vm->slots[free].memory_size)
            free++;
        w.slots[i].slot = free;
        if (kvm_ioctl(vm->vm_fd, KVM_SET_USER_MEMORY_REGION, &w.slots[i]) < 0)
            return tv_fail_errno(err, errno, "KVM does not take guest memory at %#" PRIx64,
                                 (uint64_t)w.slots[i].guest_phys_addr);
        vm->slots[free] = w.slots[i];
    }
    return 0;
}

#define LOG_WORDS (EXTRA_MAX / PAGE_SIZE / 64)

void kvm_memory_sync_log(void *opaque, const struct physmem_region *region)
{
    struct kvm_vm *vm = opaque;
    static _Thread_local uint64_t bits[LOG_WORDS];
    for (unsigned i = 0; i < KVM_SLOTS_MAX; i++) {
        const struct kvm_userspace_memory_region *slot = &vm->slots[i];
        if (slot->userspace_addr != (uintptr_t)region->host || slot->memory_size != region->size ||
            !(slot->flags & KVM_MEM_LOG_DIRTY_PAGES))
            continue;
        struct kvm_dirty_log log = {.slot = i, .dirty_bitmap = bits};
        if (kvm_ioctl(vm->vm_fd, KVM_GET_DIRTY_LOG, &log) < 0)
            return;
        for (uint64_t page = 0; page < region->size >> PAGE_SHIFT; page++)
            if (bits[page / 64] >> (page % 64) & 1)
                physmem_note_dirty(vm->mem, region->host + (page << PAGE_SHIFT));
        return;
    }
}
