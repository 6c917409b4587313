#include "util/tsc_fault.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static bool faults;

static void try_it(void)
{
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_TSC, PR_TSC_SIGSEGV) < 0)
            _exit(1);
        __asm__ volatile("rdtsc" : : : "eax", "edx");
        _exit(1);
    }
    int status = 0;
    faults = child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
             WTERMSIG(status) == SIGSEGV;
}

bool host_faults_tsc(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, try_it);
    return faults;
}
