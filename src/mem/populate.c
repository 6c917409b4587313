#include "mem/populate.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "util/util.h"

#define QUEUE 16

struct populator {
    pthread_mutex_t lock;
    pthread_cond_t asked, done;
    pthread_t thread;
    enum { NOT_STARTED, RUNS, FAILED } state;
    bool ending;
    unsigned first, count; /* the one under way is still among them */
    struct {
        void *start;
        uint64_t length;
        int advice;
    } queue[QUEUE];
};

struct populator *populator_create(void)
{
    struct populator *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->asked, NULL);
    pthread_cond_init(&p->done, NULL);
    return p;
}

static void *populator_main(void *opaque)
{
    struct populator *p = opaque;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->count && !p->ending)
            pthread_cond_wait(&p->asked, &p->lock);
        if (!p->count)
            break;
        void *start = p->queue[p->first].start;
        uint64_t length = p->queue[p->first].length;
        int advice = p->queue[p->first].advice;
        bool skip = p->ending;
        pthread_mutex_unlock(&p->lock);
        if (!skip)
            madvise(start, length, advice);
        pthread_mutex_lock(&p->lock);
        p->first = (p->first + 1) % QUEUE;
        if (!--p->count)
            pthread_cond_broadcast(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void start(struct populator *p)
{
    p->state = pthread_create(&p->thread, NULL, populator_main, p) == 0 ? RUNS : FAILED;
    if (p->state == RUNS)
        pthread_setname_np(p->thread, "memory");
}

void populator_ask(struct populator *p, const void *at, uint64_t length, bool exec)
{
    pthread_mutex_lock(&p->lock);
    if (p->state == NOT_STARTED)
        start(p);
    if (p->state == RUNS && p->count < QUEUE) {
        unsigned n = (p->first + p->count++) % QUEUE;
        p->queue[n].start = (void *)(uintptr_t)at;
        p->queue[n].length = length;
        p->queue[n].advice = exec ? MADV_POPULATE_READ : MADV_POPULATE_WRITE;
        pthread_cond_signal(&p->asked);
    }
    pthread_mutex_unlock(&p->lock);
}

void populator_wait(struct populator *p)
{
    pthread_mutex_lock(&p->lock);
    while (p->count)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void populator_destroy(struct populator *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_signal(&p->asked);
    pthread_mutex_unlock(&p->lock);
    if (p->state == RUNS)
        pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->asked);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
