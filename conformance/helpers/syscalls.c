/* syscalls: tries calls that reach the kernel's less guarded parts, each in a process of
   its own, and prints "NAME ERRNO", 0 for success. The arguments are such that a kernel
   without a filter answers something else than EPERM to an unprivileged process. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef AF_VSOCK
#define AF_VSOCK 40
#endif

struct attempt {
    const char *name;
    long number, a, b, c, d, e;
};

static const struct attempt attempts[] = {
    {"keyctl", SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1},
    {"add_key", SYS_add_key, (long)"user", (long)"name", (long)"x", 1, KEY_SPEC_PROCESS_KEYRING},
    {"request_key", SYS_request_key, (long)"user", (long)"no-such-key", 0, 0},
    {"io_uring_setup", SYS_io_uring_setup, 1, 0},
    {"socket-alg", SYS_socket, AF_ALG, SOCK_SEQPACKET, 0},
    {"socket-vsock", SYS_socket, AF_VSOCK, SOCK_STREAM, 0},
    {"clone-user", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0},
    {"unshare-user", SYS_unshare, CLONE_NEWUSER},
    {"mount", SYS_mount, 0, 0, 0, 0, 0},
    {"umount", SYS_umount2, 0, ~0L},
    {"open_tree", SYS_open_tree, -1, (long)"none", 0},
    {"setns", SYS_setns, -1, 0},
    {"bpf", SYS_bpf, 9999, 0, 0},
    {"perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0},
    {"userfaultfd", SYS_userfaultfd, 1},
    {"personality", SYS_personality, 0x0040000},
    {"clock_settime", SYS_clock_settime, 0, 0},
    {"get_mempolicy", SYS_get_mempolicy, 0, 0, 0, 0, 0},
    {"clone3", SYS_clone3, 0, 0},
    /* These must go on working. */
    {"ptrace", SYS_ptrace, PTRACE_TRACEME, 0, 0, 0},
    {"personality-linux", SYS_personality, 0},
    {"socket-inet", SYS_socket, AF_INET, SOCK_STREAM, 0},
    {"socket-unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0},
};

int main(void) {
    for (unsigned at = 0; at < sizeof attempts / sizeof *attempts; at++) {
        const struct attempt *try = &attempts[at];
        pid_t parent = getpid(), child = fork();
        if (child < 0)
            return 1;
        if (child == 0) {
            errno = 0;
            long got = syscall(try->number, try->a, try->b, try->c, try->d, try->e);
            int error = got < 0 ? errno : 0;
            /* What clone made is a grandchild of the first. */
            if (getppid() != parent)
                _exit(0);
            printf("%s %d\n", try->name, error);
            fflush(stdout);
            _exit(0);
        }
        while (waitpid(child, 0, 0) < 0 && errno == EINTR)
            ;
    }
    return 0;
}
