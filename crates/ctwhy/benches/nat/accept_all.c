/*
 * A consumer of NFQUEUE that does as little as one can: it accepts everything, with one verdict for each batch.
 *
 *   accept_all QUEUE MARK
 *
 * What comes in queue QUEUE gets the mark MARK, so that the rules of `ctwhy nat queue` hand it over again in the next
 * queue; there it gets the mark 0. No byte of a packet is looked at. It prints a line when it is ready, and ends with its
 * standard input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BATCH = 32,
    LONGEST = 65535 + 4096,
    RECEIVE_BUFFER = 32 << 20,
    QUEUE_LENGTH = 16384,
    HEADERS = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(struct nfgenmsg)),
};

struct queue {
    int socket;
    uint16_t number;
    uint32_t mark;
};

/* A netlink message that is being written. */
struct message {
    _Alignas(4) char bytes[256];
    size_t length;
};

static char (*slots)[LONGEST];

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

static void begin(struct message *message, int kind, uint16_t queue)
{
    struct nlmsghdr header = { .nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | kind, .nlmsg_flags = NLM_F_REQUEST };
    struct nfgenmsg family = { .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(queue) };
    memset(message, 0, sizeof *message);
    memcpy(message->bytes, &header, sizeof header);
    memcpy(message->bytes + NLMSG_HDRLEN, &family, sizeof family);
    message->length = HEADERS;
}

static void add(struct message *message, int kind, const void *value, size_t length)
{
    struct nlattr attribute = { .nla_len = NLA_HDRLEN + length, .nla_type = kind };
    memcpy(message->bytes + message->length, &attribute, sizeof attribute);
    memcpy(message->bytes + message->length + NLA_HDRLEN, value, length);
    message->length += NLA_HDRLEN + NLA_ALIGN(length);
}

static void add32(struct message *message, int kind, uint32_t value)
{
    value = htonl(value);
    add(message, kind, &value, sizeof value);
}

static void end(struct message *message, int socket)
{
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
    uint32_t length = message->length;
    memcpy(message->bytes, &length, sizeof length);
    if (sendto(socket, message->bytes, message->length, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        die("sending to the kernel");
}

static struct queue open_queue(uint16_t number, uint32_t mark)
{
    struct queue queue = { .socket = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), .number = number, .mark = mark };
    struct sockaddr_nl own = { .nl_family = AF_NETLINK };
    struct nfqnl_msg_config_cmd bind_it = { .command = NFQNL_CFG_CMD_BIND };
    struct nfqnl_msg_config_params whole = { .copy_range = htonl(65535), .copy_mode = NFQNL_COPY_PACKET };
    int size = RECEIVE_BUFFER, on = 1;
    struct message message;

    if (queue.socket < 0 || bind(queue.socket, (struct sockaddr *)&own, sizeof own) < 0)
        die("opening a netlink socket");
    /* An ordinary user gets as much as the system gives (net.core.rmem_max). */
    if (setsockopt(queue.socket, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0
        && setsockopt(queue.socket, SOL_SOCKET, SO_RCVBUF, &size, sizeof size) < 0)
        die("SO_RCVBUF");
    if (setsockopt(queue.socket, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on) < 0)
        die("NETLINK_NO_ENOBUFS");
    begin(&message, NFQNL_MSG_CONFIG, number);
    add(&message, NFQA_CFG_CMD, &bind_it, sizeof bind_it);
    add(&message, NFQA_CFG_PARAMS, &whole, sizeof whole);
    add32(&message, NFQA_CFG_QUEUE_MAXLEN, QUEUE_LENGTH);
    add32(&message, NFQA_CFG_MASK, NFQA_CFG_F_GSO);
    add32(&message, NFQA_CFG_FLAGS, NFQA_CFG_F_GSO);
    end(&message, queue.socket);
    return queue;
}

/* The id of a queued packet, in network order; 0 for any other message. */
static uint32_t id_of(const char *bytes, size_t length)
{
    struct nlmsghdr header;
    struct nlattr attribute;
    uint32_t id;
    if (length < HEADERS)
        return 0;
    memcpy(&header, bytes, sizeof header);
    if (header.nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
        return 0;
    for (size_t at = HEADERS; at + NLA_HDRLEN <= length; at += NLA_ALIGN(attribute.nla_len)) {
        memcpy(&attribute, bytes + at, sizeof attribute);
        if ((attribute.nla_type & NLA_TYPE_MASK) == NFQA_PACKET_HDR && at + NLA_HDRLEN + sizeof id <= length) {
            memcpy(&id, bytes + at + NLA_HDRLEN, sizeof id);
            return id;
        }
        if (attribute.nla_len < NLA_HDRLEN)
            break;
    }
    return 0;
}

/* Accepts what waits, up to a batch; how much that was. */
static int serve(const struct queue *queue)
{
    struct mmsghdr headers[BATCH] = { 0 };
    struct iovec vectors[BATCH];
    uint32_t last = 0;
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){ .iov_base = slots[i], .iov_len = LONGEST };
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    int count = recvmmsg(queue->socket, headers, BATCH, MSG_DONTWAIT, NULL);
    for (int i = 0; i < count; i++) {
        uint32_t id = id_of(slots[i], headers[i].msg_len);
        last = id ? id : last;
    }
    if (last) {
        struct nfqnl_msg_verdict_hdr verdict = { .verdict = htonl(NF_ACCEPT), .id = last };
        struct message message;
        begin(&message, NFQNL_MSG_VERDICT_BATCH, queue->number);
        add(&message, NFQA_VERDICT_HDR, &verdict, sizeof verdict);
        add32(&message, NFQA_MARK, queue->mark);
        end(&message, queue->socket);
    }
    return count > 0 ? count : 0;
}

int main(int count, char **arguments)
{
    if (count != 3) {
        fprintf(stderr, "usage: %s QUEUE MARK\n", arguments[0]);
        return 2;
    }
    slots = calloc(BATCH, sizeof *slots);
    if (!slots)
        die("calloc");
    uint16_t number = strtoul(arguments[1], NULL, 0);
    struct queue first = open_queue(number, strtoul(arguments[2], NULL, 0));
    struct queue last = open_queue(number + 1, 0);
    puts("ready");
    fflush(stdout);
    for (;;) {
        int served = serve(&first), again;
        while ((again = serve(&last)) > 0)
            served += again;
        if (served == 0) {
            struct pollfd wait[3] = {
                { .fd = first.socket, .events = POLLIN }, { .fd = last.socket, .events = POLLIN }, { .events = POLLIN },
            };
            if (poll(wait, 3, -1) > 0 && wait[2].revents)
                return 0;
        }
    }
}
