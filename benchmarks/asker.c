/* Asks an HTTP server of this machine at a steady pace, and takes little of the machine itself: one thread, epoll.

       asker PORT PER_S CONNECTIONS

   Open loop: question i is due i / PER_S seconds after the beginning, whether or not those before were answered. It goes out
   over the first connection that is free, and its latency counts from when it was due. Standard input: the number of requests
   (4 bytes), each request after its length (4 bytes), then `b` to begin and `e` to end, again and again. After `e` every
   question that is due is still asked; standard output then has their number (8 bytes) and a `struct asked` for each.
   All in this machine's byte order. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define LARGEST_ANSWER 65536
#define TIMEOUT_S 30.0
#define LOOK_EVERY_MS 100 /* for answers that never come */

struct asked {
    double latency_s, late_s; /* of the answer, and of this program itself when the question was due: it is no server's fault */
    int64_t good;             /* answered 200, in full */
};

struct connection {
    int fd;         /* -1: made with the next question */
    int64_t number; /* of its question, -1 when free */
    double sent_s;
    size_t sent, received;
    char answer[LARGEST_ANSWER + 1];
};

static struct { uint32_t length; char *bytes; } *requests;
static uint32_t kinds;
static struct connection *connections;
static int count, epoll, timer, port, next_free;
static double per_s, began;
static struct asked *asked;
static int64_t room, due, next, answered; /* questions: kept room for, due so far, next to go out, answered or failed */
static int running, ending;

static void check(int good, const char *what) {
    if (!good) { perror(what); exit(1); }
}

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void watch(int fd, uint32_t events, void *what) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
}

static void wake_at(double at_s) { /* 0: no more */
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)at_s, .tv_nsec = (long)((at_s - (time_t)at_s) * 1e9)}};
    check(timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL) == 0, "timerfd_settime");
}

static void hang_up(struct connection *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

static void finish(struct connection *c, int good) {
    struct asked *a = &asked[c->number];
    a->latency_s = now_s() - (began + c->number / per_s);
    a->good = good;
    answered++;
    c->number = -1;
    if (!good) hang_up(c);
}

/* 1: the answer is whole; 0: more is to come; -1: it is none whose length is told and fits. */
static int whole(struct connection *c) {
    c->answer[c->received] = 0;
    char *end = strstr(c->answer, "\r\n\r\n"), *length = strcasestr(c->answer, "\r\ncontent-length:");
    if (!end) return c->received < LARGEST_ANSWER ? 0 : -1;
    if (!length || length > end) return -1;
    long size = atol(length + strlen("\r\ncontent-length:")), all = end + 4 - c->answer + size;
    if (size < 0 || all > LARGEST_ANSWER || (long)c->received > all) return -1;
    return (long)c->received == all;
}

static void advance(struct connection *c) {
    if (c->fd < 0) return;
    if (c->number >= 0) {
        uint32_t kind = c->number % kinds;
        while (c->sent < requests[kind].length) {
            ssize_t n = send(c->fd, requests[kind].bytes + c->sent, requests[kind].length - c->sent, MSG_NOSIGNAL);
            if (n < 0 && errno == EAGAIN) return;
            if (n < 0) { finish(c, 0); return; }
            c->sent += n;
        }
    }
    for (;;) {
        ssize_t n = recv(c->fd, c->answer + c->received, LARGEST_ANSWER - c->received, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0 || c->number < 0) { /* closed, or an answer to nothing */
            if (c->number >= 0) finish(c, 0);
            hang_up(c);
            return;
        }
        c->received += n;
        int is_whole = whole(c);
        if (is_whole) {
            finish(c, is_whole > 0 && !strncmp(c->answer, "HTTP/1.1 200 ", 13));
            if (strcasestr(c->answer, "\r\nconnection: close\r\n")) hang_up(c);
            return;
        }
    }
}

static int dial(struct connection *c) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    check(c->fd >= 0, "socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) return 0;
    watch(c->fd, EPOLLIN | EPOLLOUT | EPOLLET, c);
    return 1;
}

/* Note what has become due, and send what is due over connections that are free, in turn. */
static void ask(void) {
    double now = now_s();
    for (; running && !ending && began + due / per_s <= now; due++) {
        if (due == room) check((asked = realloc(asked, (room = room ? 2 * room : 4096) * sizeof *asked)) != NULL, "realloc");
        asked[due] = (struct asked){.late_s = now - (began + due / per_s)};
    }
    if (running && !ending) wake_at(began + due / per_s);
    for (int tried = 0; next < due && tried < count; tried++) {
        struct connection *c = &connections[next_free];
        next_free = (next_free + 1) % count;
        if (c->number >= 0) continue;
        c->number = next++;
        c->sent = c->received = 0;
        c->sent_s = now;
        if (c->fd < 0 && !dial(c)) finish(c, 0);
        else advance(c);
        tried = -1; /* it may be free again already */
    }
}

static void give_up(void) {
    static double looked_s;
    double now = now_s();
    if (now - looked_s < LOOK_EVERY_MS / 1e3) return;
    looked_s = now;
    for (int i = 0; i < count; i++)
        if (connections[i].number >= 0 && now - connections[i].sent_s > TIMEOUT_S) finish(&connections[i], 0);
}

static void tell(void) {
    check(fwrite(&due, sizeof due, 1, stdout) == 1 && fwrite(asked, sizeof *asked, due, stdout) == (size_t)due, "fwrite");
    check(fflush(stdout) == 0, "fflush");
    running = ending = 0;
}

static void read_all(void *to, size_t size) {
    for (ssize_t n; size; to = (char *)to + n, size -= n) check((n = read(0, to, size)) > 0, "requests");
}

static void obey(void) {
    char command;
    if (read(0, &command, 1) <= 0) exit(0);
    if (command == 'b' && !running) {
        due = next = answered = 0;
        running = 1;
        began = now_s();
    } else if (command == 'e' && running) {
        ask(); /* what is due up to now */
        wake_at(0);
        ending = 1;
    }
}

int main(int argc, char **argv) {
    check(argc == 4, "asker PORT PER_S CONNECTIONS");
    port = atoi(argv[1]), per_s = atof(argv[2]), count = atoi(argv[3]);
    read_all(&kinds, sizeof kinds);
    check((requests = calloc(kinds, sizeof *requests)) && (connections = calloc(count, sizeof *connections)), "calloc");
    for (uint32_t i = 0; i < kinds; i++) {
        read_all(&requests[i].length, sizeof requests[i].length);
        check((requests[i].bytes = malloc(requests[i].length)) != NULL, "malloc");
        read_all(requests[i].bytes, requests[i].length);
    }
    for (int i = 0; i < count; i++) connections[i].fd = connections[i].number = -1;
    epoll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    watch(0, EPOLLIN, &running);
    watch(timer, EPOLLIN, &timer);
    for (;;) {
        struct epoll_event events[64];
        int found = epoll_wait(epoll, events, 64, LOOK_EVERY_MS);
        for (int i = 0; i < found; i++) {
            uint64_t ticks;
            if (events[i].data.ptr == &running) obey();
            else if (events[i].data.ptr != &timer) advance(events[i].data.ptr);
            else if (read(timer, &ticks, sizeof ticks) < 0) check(errno == EAGAIN, "timer");
        }
        if (running) ask();
        give_up();
        if (ending && answered == due) tell();
    }
}
