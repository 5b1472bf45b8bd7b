/* The physical limit: a WebSocket server on epoll in C, one send(2) per recipient, nothing else.
 *
 *     cc -O2 climit.c -o climit && ./climit      # prints its port
 *
 * Understands only what the benchmarks send: whole masked frames, texts to echo, binary messages of
 * 1 or 3 bytes that broadcast 100 bytes or 64 KiB. No checks, no limits: not a server to use.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 20000
static struct client { unsigned char *data; size_t size, room; int open; } clients[MOST];
static int members[MOST], places[MOST], count, loop;
static unsigned char small[102], large[65546], out[1 << 22];

static void leave(int fd) {
    if (clients[fd].open) {
        members[places[fd]] = members[--count];
        places[members[places[fd]]] = places[fd];
    }
    free(clients[fd].data);
    memset(&clients[fd], 0, sizeof clients[fd]);
    close(fd);
}

static void put(int fd, const unsigned char *data, size_t size) {
    while (size) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = {fd, POLLOUT, 0};
            poll(&wait, 1, -1);
            continue;
        }
        if (sent < 0) return;
        data += sent, size -= sent;
    }
}

static void greet(int fd) {
    static const char *yes = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                             "Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
    if (clients[fd].size < 4 || !memmem(clients[fd].data, clients[fd].size, "\r\n\r\n", 4)) return;
    clients[fd].size = 0;
    clients[fd].open = 1;
    places[fd] = count;
    members[count++] = fd;
    put(fd, (const unsigned char *)yes, strlen(yes));
}

static size_t frame(unsigned char *to, const unsigned char *payload, size_t size) {
    size_t head = size < 126 ? 2 : size < 65536 ? 4 : 10, i;
    to[0] = 0x81;
    to[1] = head == 2 ? size : head == 4 ? 126 : 127;
    for (i = 2; i < head; i++) to[i] = size >> 8 * (head - 1 - i);
    memcpy(to + head, payload, size);
    return head + size;
}

static void take(int fd) {
    struct client *c = &clients[fd];
    size_t at = 0, filled = 0, i;
    while (c->size - at >= 6) {
        unsigned char *p = c->data + at, *payload;
        size_t length = p[1] & 127, head = 6;
        if (length >= 126) {
            size_t bytes = length == 126 ? 2 : 8;
            head += bytes;
            if (c->size - at < head) break;
            for (length = 0, i = 0; i < bytes; i++) length = length << 8 | p[2 + i];
        }
        if (c->size - at < head + length) break;
        payload = p + head;
        for (i = 0; i < length; i++) payload[i] ^= p[head - 4 + (i & 3)];
        at += head + length;
        if ((p[0] & 15) == 1) {
            if (filled + length + 10 > sizeof out) { put(fd, out, filled); filled = 0; }
            filled += frame(out + filled, payload, length);
        } else if ((p[0] & 15) == 2) {
            for (int m = 0; m < count; m++)
                length == 1 ? put(members[m], small, sizeof small)
                            : put(members[m], large, sizeof large);
        }
    }
    put(fd, out, filled);
    memmove(c->data, c->data + at, c->size -= at);
}

static void hear(int fd) {
    struct client *c = &clients[fd];
    if (c->room - c->size < 65536) {
        c->room = c->room ? c->room * 2 : 4096;
        if (c->room < c->size + 4096) c->room = c->size + 4096;
        c->data = realloc(c->data, c->room);
    }
    ssize_t got = recv(fd, c->data + c->size, c->room - c->size, 0);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) leave(fd);
        return;
    }
    c->size += got;
    c->open ? take(fd) : greet(fd);
    if (clients[fd].size == 0) { free(c->data); c->data = NULL; c->room = 0; }
}

int main(void) {
    struct sockaddr_in address = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
    socklen_t length = sizeof address;
    struct rlimit files = {MOST, MOST};
    int door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    static unsigned char payload[65536];
    setrlimit(RLIMIT_NOFILE, &files);
    memset(payload, 'x', sizeof payload);
    frame(small, payload, 100);
    frame(large, payload, 65536);
    bind(door, (struct sockaddr *)&address, length);
    listen(door, 1024);
    getsockname(door, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    loop = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.fd = door}}, events[256];
    epoll_ctl(loop, EPOLL_CTL_ADD, door, &e);
    for (;;) {
        int n = epoll_wait(loop, events, 256, -1);
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd != door) { hear(events[i].data.fd); continue; }
            for (int fd; (fd = accept4(door, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
                if (fd >= MOST) { close(fd); continue; }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                struct epoll_event new = {EPOLLIN, {.fd = fd}};
                epoll_ctl(loop, EPOLL_CTL_ADD, fd, &new);
            }
        }
    }
}
