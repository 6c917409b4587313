/* Memory that the host is asked for ahead is there, and nothing else is. */
#include "mem/populate.h"

#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

#define PAGE  4096u
#define PAGES 256u

/* How many of the pages are there. */
static unsigned resident(void *at, unsigned pages)
{
    unsigned char there[PAGES];
    unsigned count = 0;
    CHECK(mincore(at, (size_t)pages * PAGE, there) == 0);
    for (unsigned i = 0; i < pages; i++)
        count += there[i] & 1;
    return count;
}

static uint8_t *map(int protection, int flags, int fd)
{
    void *at = mmap(NULL, (size_t)PAGES * PAGE, protection, flags, fd, 0);
    CHECK(at != MAP_FAILED);
    madvise(at, (size_t)PAGES * PAGE, MADV_NOHUGEPAGE);
    return at;
}

int main(void)
{
    struct populator *p = populator_create();
    CHECK(p != NULL);
    populator_wait(p); /* nothing was asked for */

    uint8_t *anonymous = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    populator_ask(p, anonymous + 8 * PAGE, 32 * PAGE, false);
    populator_wait(p);
    CHECK(resident(anonymous, 8) == 0);
    CHECK(resident(anonymous + 8 * PAGE, 32) == 32);
    CHECK(resident(anonymous + 40 * PAGE, PAGES - 40) == 0);

    /* Pages of a file are there once for all of its mappings. */
    int fd = memfd_create("populate", MFD_CLOEXEC);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)PAGES * PAGE) == 0);
    uint8_t *write = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    uint8_t *exec = map(PROT_READ | PROT_EXEC, MAP_SHARED, fd);
    populator_ask(p, exec, 16 * PAGE, true);
    populator_wait(p);
    CHECK(resident(write, 16) == 16 && resident(write + 16 * PAGE, PAGES - 16) == 0);

    /* More than there is room for, and memory that is not there: neither does harm. */
    for (unsigned i = 0; i < PAGES; i++)
        populator_ask(p, write + i * PAGE, PAGE, false);
    populator_ask(p, (void *)(uintptr_t)PAGE, PAGE, false);
    populator_wait(p);
    write[PAGES * PAGE - 1] = 1;
    CHECK(exec[PAGES * PAGE - 1] == 1);

    populator_ask(p, anonymous, (uint64_t)PAGES * PAGE, false);
    populator_destroy(p); /* with something under way, or not begun */
    populator_destroy(NULL);
    return check_result();
}
