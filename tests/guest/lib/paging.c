#include "guest.h"

#define POOL_PAGES 128

static u8 pool[POOL_PAGES][4096] __attribute__((aligned(4096)));
static unsigned used;

void *page_alloc(void)
{
    if (used == POOL_PAGES)
        fail("out of pages");
    return memset(pool[used++], 0, 4096);
}

u64 *pte_of(u64 *root, int levels, u64 va, int level)
{
    u64 *table = root;
    for (int l = levels; l > level; l--) {
        u64 *entry = &table[va >> (12 + 9 * (l - 1)) & 511];
        if (!*entry)
            *entry = (word)page_alloc() | (levels == 3 && l == 3 ? PTE_P : PTE_P | PTE_W | PTE_U);
        table = (u64 *)(word)(*entry & 0xffffffffff000);
    }
    return &table[va >> (12 + 9 * (level - 1)) & 511];
}

u32 *pte32_of(u32 *root, u32 va, int level)
{
    u32 *entry = &root[va >> 22];
    if (level == 2)
        return entry;
    if (!*entry)
        *entry = (u32)(word)page_alloc() | PTE_P | PTE_W | PTE_U;
    return (u32 *)(word)(*entry & ~0xfffu) + (va >> 12 & 1023);
}
