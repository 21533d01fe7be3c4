// Asks the C library that it is linked with, which is musl in the tests, for the addresses of a name.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (argc != 2)
        return 2;
    int error = getaddrinfo(argv[1], NULL, &hints, &found);
    if (error != 0) {
        fprintf(stderr, "%s\n", gai_strerror(error));
        return 1;
    }
    for (struct addrinfo *next = found; next != NULL; next = next->ai_next) {
        char host[NI_MAXHOST];
        if (getnameinfo(next->ai_addr, next->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0)
            return 1;
        puts(host);
    }
    freeaddrinfo(found);
    return 0;
}
