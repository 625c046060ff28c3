/* count FROM TO [MICROSECONDS]: one numbered line after another, each by one write. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    long from = atol(argv[1]), to = atol(argv[2]);
    useconds_t pause = argc > 3 ? (useconds_t)atol(argv[3]) : 0;
    for (long number = from; number <= to; number++) {
        char line[32];
        int length = snprintf(line, sizeof line, "line %ld\n", number);
        for (int done = 0; done < length;) {
            ssize_t written = write(1, line + done, (size_t)(length - done));
            if (written < 0)
                return 1;
            done += (int)written;
        }
        if (pause)
            usleep(pause);
    }
    return 0;
}
