/* What shows the translator's work. --verify: the translator and the interpreter agree on code, and
 * a difference is found. The perf map: it names blocks, by symbol where there is one. */
#include <pthread.h>
#include <unistd.h>

#include "bare.h"
#include "bt/perf_map.h"

GUEST(compute, "movl $2000, %ecx\n"
               "xorl %eax, %eax\n"
               "1: addq %rcx, %rax\n"
               "imulq $31, %rax\n"
               "movq %rax, (%rbx)\n"
               "pushq %rax\n popq 8(%rbx)\n"
               "movq %rbx, %rsi\n leaq 64(%rbx), %rdi\n"
               "pushq %rcx\n movl $5, %ecx\n cld\n rep movsq\n popq %rcx\n"
               "loop 1b\n"
               "hlt\n");

/* Memory that the test changes behind both engines' backs. */
GUEST(look, "1: movq (%rbx), %rax\n"
            "jmp 1b\n");

static struct bare *translated(bool verify, struct perf_map *map)
{
    struct tv_error err = {0};
    struct bare *b = bare_new();
    interp_engine.vcpu_fini(b->cpu);
    b->m->verify = verify;
    b->m->perf_map = map;
    CHECK(!verify || !log_open(&b->m->log, "verify:/dev/null", &err));
    CHECK(!bt_engine.machine_init(b->m, &err));
    CHECK(!bt_engine.vcpu_init(b->cpu, &err));
    b->cpu->gpr[RBX] = BARE_DATA;
    b->cpu->rip = BARE_CODE;
    b->cpu->activity = ACTIVITY_RUNNING;
    return b;
}

static void finish(struct bare *b)
{
    bt_engine.vcpu_fini(b->cpu);
    bt_engine.machine_fini(b->m);
    log_close(&b->m->log);
    vcpu_destroy(b->cpu);
    physmem_destroy(b->m->mem);
    free(b->m);
    free(b);
}

static void test_agreement(void)
{
    struct tv_error err = {0};
    struct bare *b = translated(true, NULL);
    bare_load(b, BARE_CODE, compute);
    CHECK(bt_engine.run(b->cpu, &err) == VCPU_EXIT_HALT);
    uint64_t sum = 0;
    for (uint64_t n = 2000; n; n--)
        sum = (sum + n) * 31;
    CHECK(b->cpu->gpr[RAX] == sum);
    CHECK(bare_get(b, BARE_DATA + 8) == sum && bare_get(b, BARE_DATA + 64) == sum);
    finish(b);
}

static _Atomic bool stop;

static void *scribble(void *arg)
{
    _Atomic uint64_t *word = arg;
    while (!stop)
        (*word)++;
    return NULL;
}

static void test_difference(void)
{
    struct tv_error err = {0};
    struct bare *b = translated(true, NULL);
    bare_load(b, BARE_CODE, look);
    pthread_t thread;
    CHECK(!pthread_create(&thread, NULL, scribble, physmem_host(b->m->mem, BARE_DATA, 8)));
    CHECK(bt_engine.run(b->cpu, &err) == VCPU_EXIT_ERROR);
    stop = true;
    pthread_join(thread, NULL);
    CHECK(strstr(err.message, "differ in rax"));
    finish(b);
}

static void test_one_cpu(void)
{
    struct tv_error err = {0};
    struct machine m = {.verify = true, .vcpu_count = 2};
    CHECK(bt_engine.machine_init(&m, &err) < 0);
    CHECK(strstr(err.message, "--cpus 1"));
}

static void test_perf_map(bool evicted)
{
    struct tv_error err = {0};
    char symbols[] = "/tmp/trivisor-symbols-XXXXXX", path[] = "/tmp/trivisor-map-XXXXXX",
         text[4096];
    int fd = mkstemp(symbols), map_fd = mkstemp(path);
    CHECK(fd >= 0 && map_fd >= 0);
    dprintf(fd, "0000000000500000 d data\n0000000000400002 T second\n0000000000400000 t first\n");
    struct perf_map *map = perf_map_create(path, symbols, &err);
    CHECK(map);
    struct bare *b = translated(false, map);
    bare_load(b, BARE_CODE, compute);
    CHECK(bt_engine.run(b->cpu, &err) == VCPU_EXIT_HALT);
    if (evicted)
        perf_map_evicted(map);
    finish(b);
    perf_map_free(map);
    ssize_t n = read(map_fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    CHECK(strstr(text, " translator stubs\n"));
    CHECK(strstr(text, " first+0\n"));
    CHECK(strstr(text, " second+0x"));
    close(fd);
    close(map_fd);
    unlink(symbols);
    unlink(path);
    CHECK(!perf_map_create(path, "/nonexistent", &err));
    CHECK(strstr(err.message, "/nonexistent"));
    unlink(path);
}

int main(void)
{
    test_perf_map(false);
    test_perf_map(true);
    test_agreement();
    test_difference();
    test_one_cpu();
    return check_result();
}
