/*
 * What a stub has mapped: a TLB of its address space, as large as it likes to be.
 *
 * A page is mapped when an access to it faults and the guest's page tables allow the access, for
 * writing only once its dirty bit is set. It goes when the guest flushes it. When the guest flushes
 * everything (the tag of the interpreter's TLB is another one) each page is looked up again and
 * stays if nothing has changed.
 *
 * No page is mapped for writing that an engine has made code from (physmem.page_flags), and none
 * for execution that holds an instruction which would tell the guest about the host.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/machine.h"
#include "cpu/paging.h"
#include "dev/lapic.h"
#include "direct/internal.h"
#include "util/thread_bases.h"

#define AROUND   16 /* pages that are mapped together */
#define PF_WRITE 2u
#define PF_FETCH 16u

bool space_create_pages(struct space *s)
{
    s->pages = calloc(SPACE_PAGES, sizeof *s->pages);
    s->hash = calloc(SPACE_HASH, sizeof *s->hash);
    s->free = 0;
    s->count = 0;
    s->top = 1;
    if (s->pages && s->hash)
        return true;
    space_free_pages(s);
    return false;
}

void space_free_pages(struct space *s)
{
    free(s->pages);
    free(s->hash);
    s->pages = NULL;
    s->hash = NULL;
}

static uint32_t *chain(struct space *s, uint64_t linear)
{
    return &s->hash[(linear >> PAGE_SHIFT ^ linear >> 25) & (SPACE_HASH - 1)];
}

static struct stub_page *find(struct space *s, uint64_t linear, bool large)
{
    linear &= ~((large ? LARGE_PAGE : PAGE_SIZE) - 1);
    for (uint32_t i = *chain(s, linear); i; i = s->pages[i].next)
        if (s->pages[i].linear == linear && s->pages[i].large == large)
            return &s->pages[i];
    return NULL;
}

static uint64_t size_of(const struct stub_page *p)
{
    return p->large ? LARGE_PAGE : PAGE_SIZE;
}

static void drop(struct space *s, struct stub_page *p)
{
    stub_unmap(&s->stub, p->linear, size_of(p));
    uint32_t number = (uint32_t)(p - s->pages), *at = chain(s, p->linear);
    while (*at != number)
        at = &s->pages[*at].next;
    *at = p->next;
    *p = (struct stub_page){.next = s->free};
    s->free = number;
    s->count--;
}

static void drop_all(struct space *s)
{
    for (uint32_t i = 1; i < s->top; i++)
        if (s->pages[i].used)
            drop(s, &s->pages[i]);
}

static void map(struct direct *d, struct space *s, uint64_t linear, uint64_t index, int protection,
                bool large)
{
    struct stub_page *p = find(s, linear, large);
    if (!p) {
        if (!s->free && s->top == SPACE_PAGES)
            drop_all(s);
        uint32_t number = s->free ? s->free : s->top++;
        p = &s->pages[number];
        if (s->free)
            s->free = p->next;
        uint32_t *at = chain(s, linear);
        *p = (struct stub_page){.linear = linear, .next = *at, .large = large, .used = true};
        *at = number;
        s->count++;
    }
    p->index = (uint32_t)index;
    p->protection = (uint8_t)protection;
    for (uint64_t i = 0; i < size_of(p) / PAGE_SIZE; i++)
        d->mapped[(index + i) / 64] |= UINT64_C(1) << (index + i) % 64;
    stub_map(&s->stub, linear, size_of(p), protection, index << PAGE_SHIFT);
    d->stats.pages++;
}

/* ---- Code that must not run directly ---- */

/* Where the instruction with the opcode at `escape` begins if it has an F3 prefix, and perhaps a
 * REX prefix between the two; NULL: it has none. */
static const uint8_t *after_f3(const uint8_t *start, const uint8_t *escape)
{
    if (escape > start && escape[-1] == 0xf3)
        return escape - 1;
    return escape > start + 1 && (escape[-1] & 0xf0) == 0x40 && escape[-2] == 0xf3 ? escape - 2
                                                                                   : NULL;
}

/*
 * Instructions whose result ring 3 gets from the processor and not from its kernel, which differs
 * between guest and host, and which no setting of the host's makes fault: CPUID, RDPID, RDPKRU,
 * WRPKRU, and LAR and LSL of a register; WRFSBASE and WRGSBASE where the host's kernel does not
 * keep what they write; RDTSC and RDTSCP where they cannot be made to fault. A page that has such
 * bytes, be they code or not, is left to the translator. docs/direct.md tells of the others.
 */
static const uint8_t *find_sensitive(const struct direct *d, const uint8_t *p, const uint8_t *end)
{
    const uint8_t *start = p;
    while (end - p > 2 && (p = memchr(p, 0x0f, (size_t)(end - p) - 1))) {
        uint8_t opcode = p[1], modrm = p + 2 < end ? p[2] : 0;
        if (opcode == 0xa2 || ((opcode == 2 || opcode == 3) && modrm >= 0xc0) ||
            (opcode == 1 && (modrm == 0xee || modrm == 0xef)) ||
            ((opcode == 0x31 || (opcode == 1 && modrm == 0xf9)) && !d->tsc_faults))
            return p;
        bool with_f3 = (opcode == 0xc7 && modrm >= 0xf8) ||
                       (opcode == 0xae && modrm >= 0xd0 && modrm < 0xe0 && !host_keeps_bases());
        const uint8_t *first = with_f3 ? after_f3(start, p) : NULL;
        if (first)
            return first;
        p++;
    }
    return NULL;
}

/* An instruction that lies in both pages, `low` in front of `high`. */
static bool straddler_is_sensitive(const struct direct *d, const uint8_t *low, const uint8_t *high)
{
    enum { REACH = 4 };
    uint8_t bytes[2 * REACH];
    memcpy(bytes, low + PAGE_SIZE - REACH, REACH);
    memcpy(bytes + REACH, high, REACH);
    return find_sensitive(d, bytes, bytes + sizeof bytes) != NULL;
}

/* The bytes of a page if it is mapped for execution. */
static const uint8_t *executable(const struct direct *d, struct space *s, uint64_t linear)
{
    const struct stub_page *p = find(s, linear, false);
    if (!p || !(p->protection & PROT_EXEC))
        return NULL;
    return d->cpu->machine->mem->ram + ((uint64_t)p->index << PAGE_SHIFT);
}

/* RDTSC and RDTSCP fault in the stub: code around them is better off in the interpreter. */
static bool reads_tsc(const uint8_t *page)
{
    return memmem(page, PAGE_SIZE, "\x0f\x31", 2) || memmem(page, PAGE_SIZE, "\x0f\x01\xf9", 3);
}

/* The processor has a few breakpoints: a page with no more sensitive places than that can run all
 * the same. A few times in a window, pages that had them before make room. */
static bool break_at_sites(const struct direct *d, struct space *s, uint64_t linear,
                           const uint8_t *page)
{
    uint64_t sites[STUB_SITES];
    unsigned count = 0;
    if (!d->breakpoints || reads_tsc(page))
        return false;
    for (const uint8_t *p = page; (p = find_sensitive(d, p, page + PAGE_SIZE)); p += 2) {
        if (count == STUB_SITES)
            return false;
        sites[count++] = linear + (uint64_t)(p - page);
    }
    for (unsigned i = 0; i < STUB_SITES; i++) {
        uint64_t other = s->stub.sites[i] & PAGE_MASK;
        bool again = i && (s->stub.sites[i - 1] & PAGE_MASK) == other; /* they stand together */
        if (!other || again || other == linear || !executable(d, s, other))
            continue;
        unsigned sharing = 0;
        for (unsigned n = 0; n < STUB_SITES; n++)
            sharing += (s->stub.sites[n] & PAGE_MASK) == other;
        if (count + sharing > STUB_SITES) {
            if (s->swaps == SWAPS_MAX)
                return false;
            s->swaps++;
            drop(s, find(s, other, false));
            continue;
        }
        for (unsigned n = i; n < STUB_SITES; n++)
            if ((s->stub.sites[n] & PAGE_MASK) == other)
                sites[count++] = s->stub.sites[n];
    }
    return stub_break_at(&s->stub, sites, count);
}

/* May the page run in the stub, next to what does already? */
static bool may_run(const struct direct *d, struct space *s, uint64_t linear, const uint8_t *page)
{
    const uint8_t *before = executable(d, s, linear - PAGE_SIZE);
    const uint8_t *behind = executable(d, s, linear + PAGE_SIZE);
    return !(before && straddler_is_sensitive(d, before, page)) &&
           !(behind && straddler_is_sensitive(d, page, behind)) &&
           (!find_sensitive(d, page, page + PAGE_SIZE) || break_at_sites(d, s, linear, page));
}

static uint64_t *refused_slot(struct space *s, uint64_t linear)
{
    return &s->refused[(linear >> PAGE_SHIFT) % REFUSED_PAGES];
}

bool space_refuses(struct space *s, uint64_t rip)
{
    return *refused_slot(s, rip) == (rip & PAGE_MASK) + 1;
}

void space_forgive(struct space *s)
{
    memset(s->refused, 0, sizeof s->refused);
}

/* ---- Filling ---- */

/* The page's index if it is plain RAM. */
static bool ram_index(const struct direct *d, uint64_t gpa, uint64_t size, uint64_t *index)
{
    const struct physmem *mem = d->cpu->machine->mem;
    const uint8_t *host = physmem_host(mem, gpa, size);
    if ((gpa < LOW_MAP_END && mem->low_mapped) || !host ||
        (uint64_t)(host - mem->ram) + size > mem->size)
        return false;
    uint64_t apic = d->cpu->lapic ? lapic_mmio_address(d->cpu->lapic) : ~UINT64_C(0);
    if (apic >= gpa && apic < gpa + size)
        return false;
    *index = physmem_page(mem, host);
    return true;
}

static bool is_flagged(const struct direct *d, uint64_t index, uint64_t count)
{
    const struct physmem *mem = d->cpu->machine->mem;
    for (uint64_t i = 0; i < count; i++)
        if (atomic_load_explicit(&mem->page_flags[index + i], memory_order_relaxed))
            return true;
    return false;
}

static bool fill_large(struct direct *d, struct space *s, uint64_t linear,
                       const struct translation *t, bool write)
{
    uint64_t index, base = linear & ~(LARGE_PAGE - 1);
    if (t->page_size < LARGE_PAGE || stub_owns(&s->stub, base, LARGE_PAGE) ||
        !ram_index(d, t->gpa & ~(LARGE_PAGE - 1), LARGE_PAGE, &index))
        return false;
    bool writable = t->writable && !is_flagged(d, index, LARGE_PAGE_COUNT);
    if (write && !writable)
        return false;
    map(d, s, base, index, PROT_READ | (writable ? PROT_WRITE : 0), true);
    return true;
}

static bool fill_page(struct direct *d, struct space *s, uint64_t linear, unsigned access)
{
    struct translation t;
    uint32_t error;
    uint64_t index;
    bool write = access & ACCESS_WRITE, exec = access & ACCESS_EXEC;
    linear &= PAGE_MASK;
    if (!paging_translate(d->cpu, linear, access | ACCESS_USER, &t, &error))
        return false;
    if (!exec && fill_large(d, s, linear, &t, write))
        return true;
    if (!ram_index(d, t.gpa & PAGE_MASK, PAGE_SIZE, &index))
        return false;
    int protection = PROT_READ;
    if (exec) {
        struct physmem *mem = d->cpu->machine->mem;
        const uint8_t *host = mem->ram + (index << PAGE_SHIFT);
        /* Writers are heard of from here on, so the look at it stays true. */
        physmem_mark_code(mem, host);
        if (!may_run(d, s, linear, host)) {
            *refused_slot(s, linear) = linear + 1;
            return false;
        }
        protection |= PROT_EXEC;
    } else if (t.writable && !is_flagged(d, index, 1)) {
        protection |= PROT_WRITE;
    } else if (write) {
        return false;
    } else {
        const struct stub_page *old = find(s, linear, false);
        if (old && old->index == index)
            protection |= old->protection;
    }
    map(d, s, linear, index, protection, false);
    return true;
}

bool space_fill(struct direct *d, struct space *s, uint64_t linear, uint32_t error)
{
    if (linear >= STUB_TASK_END || stub_owns(&s->stub, linear & PAGE_MASK, PAGE_SIZE))
        return false;
    unsigned access = error & PF_FETCH   ? ACCESS_EXEC
                      : error & PF_WRITE ? ACCESS_WRITE
                                         : ACCESS_READ;
    if (!fill_page(d, s, linear, access))
        return false;
    d->stats.fills++;
    /* The processor may look up translations that nobody asked for: what lies behind is likely
     * to be wanted soon. */
    unsigned ahead = access == ACCESS_EXEC ? ACCESS_EXEC : ACCESS_READ;
    for (unsigned i = 1; i < AROUND; i++) {
        uint64_t next = (linear & PAGE_MASK) + i * PAGE_SIZE;
        if ((next ^ linear) & ~(LARGE_PAGE - 1) || next >= STUB_TASK_END ||
            stub_owns(&s->stub, next, PAGE_SIZE) || find(s, next, false) || find(s, next, true))
            break;
        if (!fill_page(d, s, next, ahead))
            break;
    }
    bool failed = false;
    stub_flush(&s->stub, &failed);
    return !failed;
}

/* ---- Forgetting ---- */

bool space_validate(struct direct *d, struct space *s)
{
    uint32_t before = s->count;
    d->stats.validations++;
    space_forgive(s);
    for (uint32_t i = 1; i < s->top; i++) {
        struct stub_page *p = &s->pages[i];
        struct translation t;
        uint32_t error;
        uint64_t index;
        if (!p->used)
            continue;
        if (!paging_translate(d->cpu, p->linear, ACCESS_USER | ACCESS_PROBE, &t, &error) ||
            t.page_size < size_of(p) || !ram_index(d, t.gpa, size_of(p), &index) ||
            index != p->index || (!t.executable && p->protection & PROT_EXEC)) {
            drop(s, p);
        } else if (!t.writable && p->protection & PROT_WRITE) {
            p->protection &= (uint8_t)~PROT_WRITE;
            stub_protect(&s->stub, p->linear, size_of(p), p->protection);
        }
    }
    return s->count >= before / 2;
}

void direct_flush_page(struct direct *d, uint64_t linear)
{
    for (unsigned i = 0; i < SPACES_MAX; i++) {
        struct space *s = &d->spaces[i];
        if (!s->pages)
            continue;
        for (unsigned large = 0; large < 2; large++) {
            struct stub_page *p = find(s, linear, large);
            if (p)
                drop(s, p);
        }
    }
}

/* Drop all pages that show RAM page `index` with one of these protections. */
static void drop_shown(struct direct *d, uint64_t index, int protection)
{
    if (index >= d->cpu->machine->mem->size >> PAGE_SHIFT) /* of a device: never mapped */
        return;
    if (!(d->mapped[index / 64] >> index % 64 & 1))
        return;
    for (unsigned i = 0; i < SPACES_MAX; i++) {
        struct space *s = &d->spaces[i];
        for (uint32_t n = 1; s->pages && n < s->top; n++) {
            struct stub_page *p = &s->pages[n];
            if (p->used && p->protection & protection && index >= p->index &&
                index < p->index + size_of(p) / PAGE_SIZE)
                drop(s, p);
        }
    }
}

void direct_forget_code(struct direct *d)
{
    for (unsigned i = 0; i < SPACES_MAX; i++) {
        struct space *s = &d->spaces[i];
        for (uint32_t n = 1; s->pages && n < s->top; n++)
            if (s->pages[n].used && s->pages[n].protection & PROT_EXEC)
                drop(s, &s->pages[n]);
    }
}

void direct_page_written(struct direct *d, uint64_t index)
{
    drop_shown(d, index, PROT_EXEC);
}

void direct_page_marked(struct direct *d, uint64_t index)
{
    drop_shown(d, index, PROT_WRITE);
}

void direct_purge_writes(struct direct *d)
{
    for (unsigned i = 0; i < SPACES_MAX; i++) {
        struct space *s = &d->spaces[i];
        for (uint32_t n = 1; s->pages && n < s->top; n++) {
            struct stub_page *p = &s->pages[n];
            if (p->used && p->protection & PROT_WRITE &&
                is_flagged(d, p->index, size_of(p) / PAGE_SIZE))
                drop(s, p);
        }
    }
}
