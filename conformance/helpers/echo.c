/* echo PORT: answers every UDP datagram and every TCP line with the same bytes. */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int listener(int type, unsigned short port) {
    int one = 1, fd = socket(AF_INET6, type, 0);
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (fd < 0) {
        struct sockaddr_in old = {.sin_family = AF_INET, .sin_port = htons(port)};
        fd = socket(AF_INET, type, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        return bind(fd, (struct sockaddr *)&old, sizeof old) ? -1 : fd;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    return bind(fd, (struct sockaddr *)&address, sizeof address) ? -1 : fd;
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 2;
    signal(SIGCHLD, SIG_IGN);
    unsigned short port = (unsigned short)atoi(argv[1]);
    int udp = listener(SOCK_DGRAM, port), tcp = listener(SOCK_STREAM, port);
    if (udp < 0 || tcp < 0 || listen(tcp, 64))
        return 1;
    struct pollfd ready[2] = {{.fd = udp, .events = POLLIN}, {.fd = tcp, .events = POLLIN}};
    char bytes[65536];
    while (poll(ready, 2, -1) > 0) {
        if (ready[0].revents) {
            struct sockaddr_storage peer;
            socklen_t size = sizeof peer;
            ssize_t got = recvfrom(udp, bytes, sizeof bytes, 0, (struct sockaddr *)&peer, &size);
            if (got >= 0)
                sendto(udp, bytes, (size_t)got, 0, (struct sockaddr *)&peer, size);
        }
        if (ready[1].revents) {
            int connection = accept(tcp, 0, 0);
            if (connection >= 0 && fork() == 0) {
                ssize_t got;
                while ((got = read(connection, bytes, sizeof bytes)) > 0)
                    if (write(connection, bytes, (size_t)got) != got)
                        break;
                _exit(0);
            }
            close(connection);
        }
    }
    return 0;
}
