/*
 * The floor: the least work by which a new interface can be made to work.
 *
 * A resident program that waits for RTM_NEWLINK and then asks the metadata service what jackfield
 * asks, and gives the kernel the state that jackfield gives it. It has one thread, looks at
 * nothing before it writes and at nothing afterwards, survives no error, and believes everything
 * that it is told: what jackfield takes longer than this is what its guarantees cost.
 *
 *   floor [--udev]
 *
 * --udev: the device is left alone until systemd-udevd has named it. The requests do not wait.
 *
 * It says "ready" when it has the token and knows the primary interface, and "plugged" when the
 * last change is acknowledged.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	OURS = 106,		/* protocol of addresses, routes and rules */
	GROUP = 106,		/* link group of cloud interfaces */
	TABLE_BASE = 10000,
	LAST_RESORT = 10000,	/* metric of default routes in main */
	RULE_MAIN = 14000,	/* priorities */
	RULE_SOURCE = 14100,
	IPV6_METRIC = 1024,
	CHUNK = 200,		/* messages in one send; the kernel answers at most 256 */
	MAX_ADDRESSES = 128,
	MAX_INTERFACES = 16,
	MAX_QUESTIONS = 12,
};
#define LAST_METRIC 4278198272u
#define IPV6_GATEWAY "fe80:ec2::1"
#ifndef IFA_PROTO
#define IFA_PROTO 11
#endif

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- metadata ---------------------------------------------------------------------------- */

static const char *const METADATA = "169.254.169.254";
static char token[256];

struct question {
	char path[160];
	char answer[16384];	/* head and body as they arrive; the body alone when done */
	size_t length;
	int fd, sent, kept, done, status;
};

/* Connections that the service keeps. */
static int idle[MAX_QUESTIONS];
static int idle_count;

static void connect_to_service(struct question *q, int fresh)
{
	q->sent = 0;
	q->length = 0;
	q->kept = !fresh && idle_count > 0;
	if (q->kept) {
		q->fd = idle[--idle_count];
		return;
	}
	q->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (q->fd < 0)
		die("socket");
	int one = 1;
	setsockopt(q->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	struct sockaddr_in service = { .sin_family = AF_INET, .sin_port = htons(80) };
	inet_pton(AF_INET, METADATA, &service.sin_addr);
	if (connect(q->fd, (struct sockaddr *)&service, sizeof service) && errno != EINPROGRESS)
		die("connect to the metadata service");
}

static void send_question(struct question *q)
{
	char request[1024];
	int put = !token[0];
	int length = snprintf(request, sizeof request,
		"%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: floor\r\nAccept: */*\r\n%s: %s\r\n%s\r\n",
		put ? "PUT" : "GET", q->path, METADATA,
		put ? "X-aws-ec2-metadata-token-ttl-seconds" : "X-aws-ec2-metadata-token",
		put ? "21600" : token, put ? "Content-Length: 0\r\n" : "");
	ssize_t sent = send(q->fd, request, (size_t)length, MSG_NOSIGNAL);
	if (sent == length)
		q->sent = 1;
	else if (sent >= 0 || (errno != EAGAIN && errno != ENOTCONN && !q->kept))
		die("send a request");
}

static void read_answer(struct question *q)
{
	ssize_t got = read(q->fd, q->answer + q->length, sizeof q->answer - 1 - q->length);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0 && q->length == 0 && q->kept) {
		/* Closed while it was idle. */
		close(q->fd);
		connect_to_service(q, 1);
		send_question(q);
		return;
	}
	if (got <= 0)
		die("read an answer");
	q->length += (size_t)got;
	q->answer[q->length] = 0;
	char *body = strstr(q->answer, "\r\n\r\n");
	if (!body)
		return;
	body += 4;
	char *field = strcasestr(q->answer, "\r\ncontent-length:");
	size_t length = field && field < body ? strtoul(field + 17, NULL, 10) : 0;
	size_t head = (size_t)(body - q->answer);
	if (q->length < head + length)
		return;
	char *close_field = strcasestr(q->answer, "\r\nconnection: close");
	if ((close_field && close_field < body) || idle_count == MAX_QUESTIONS)
		close(q->fd);
	else
		idle[idle_count++] = q->fd;
	q->status = atoi(q->answer + 9);
	memmove(q->answer, body, length);
	q->answer[length] = 0;
	q->done = 1;
}

/* Asks all of them side by side. */
static void ask(struct question *questions, int count)
{
	for (int i = 0; i < count; i++) {
		questions[i].done = 0;
		connect_to_service(&questions[i], 0);
		send_question(&questions[i]);
	}
	for (;;) {
		struct pollfd polled[MAX_QUESTIONS];
		struct question *asked[MAX_QUESTIONS];
		nfds_t open = 0;
		for (int i = 0; i < count; i++) {
			struct question *q = &questions[i];
			if (q->done)
				continue;
			asked[open] = q;
			polled[open++] = (struct pollfd){ q->fd, q->sent ? POLLIN : POLLOUT, 0 };
		}
		if (!open)
			return;
		if (poll(polled, open, 5000) <= 0)
			die("wait for the metadata service");
		for (nfds_t i = 0; i < open; i++) {
			if (!polled[i].revents)
				continue;
			if (asked[i]->sent)
				read_answer(asked[i]);
			else
				send_question(asked[i]);
		}
	}
}

__attribute__((format(printf, 2, 3)))
static void path(struct question *q, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vsnprintf(q->path, sizeof q->path, format, list);
	va_end(list);
}

/* ---- the kernel -------------------------------------------------------------------------- */

static int kernel;
static unsigned sequence;

struct batch {
	char bytes[128 * 1024];
	size_t length;
	int count;
	struct nlmsghdr *last;
};
static struct batch batch;

/* Sends what was collected, and takes in the acknowledgements. */
static void flush(void)
{
	if (!batch.count)
		return;
	if (send(kernel, batch.bytes, batch.length, 0) < 0)
		die("send to the kernel");
	int missing = batch.count;
	while (missing) {
		static char buffers[64][256];
		struct mmsghdr messages[64];
		struct iovec parts[64];
		for (int i = 0; i < 64; i++) {
			parts[i] = (struct iovec){ buffers[i], sizeof buffers[i] };
			messages[i] = (struct mmsghdr){
				.msg_hdr = { .msg_iov = &parts[i], .msg_iovlen = 1 } };
		}
		int got = recvmmsg(kernel, messages, 64, MSG_WAITFORONE, NULL);
		if (got < 0)
			die("receive from the kernel");
		for (int i = 0; i < got; i++) {
			struct nlmsghdr *header = (struct nlmsghdr *)buffers[i];
			struct nlmsgerr *error = NLMSG_DATA(header);
			if (header->nlmsg_type != NLMSG_ERROR)
				continue;
			missing--;
			if (error->error) {
				errno = -error->error;
				fprintf(stderr, "floor: message %u of type %u: %s\n", header->nlmsg_seq,
					error->msg.nlmsg_type, strerror(errno));
			}
		}
	}
	batch.length = 0;
	batch.count = 0;
}

static void *message(unsigned short type, unsigned short flags, size_t body)
{
	if (batch.count == CHUNK || batch.length > sizeof batch.bytes - 1024)
		flush();
	struct nlmsghdr *header = (struct nlmsghdr *)(batch.bytes + batch.length);
	memset(header, 0, NLMSG_SPACE(body));
	header->nlmsg_len = NLMSG_LENGTH(body);
	header->nlmsg_type = type;
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	header->nlmsg_seq = ++sequence;
	batch.last = header;
	batch.length += NLMSG_SPACE(body);
	batch.count++;
	return NLMSG_DATA(header);
}

static void attribute(unsigned short type, const void *value, size_t length)
{
	struct rtattr *attribute = (struct rtattr *)(batch.bytes + batch.length);
	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(length);
	memset(RTA_DATA(attribute), 0, RTA_SPACE(length) - RTA_LENGTH(0));
	memcpy(RTA_DATA(attribute), value, length);
	batch.length += RTA_SPACE(length);
	batch.last->nlmsg_len = (unsigned)(batch.bytes + batch.length - (char *)batch.last);
}

static void number(unsigned short type, unsigned value)
{
	attribute(type, &value, sizeof value);
}

enum change { ADD, REMOVE };

/* Of the source so many bits count; those of one address match whatever comes in, those of more only
 * what is made here. */
static void rule(enum change change, int family, unsigned priority, unsigned table,
		 const void *source, int bits)
{
	size_t length = family == AF_INET ? 4 : 16;
	struct fib_rule_hdr *rule = message(change == ADD ? RTM_NEWRULE : RTM_DELRULE,
		change == ADD ? NLM_F_CREATE | NLM_F_EXCL : 0, sizeof *rule);
	unsigned char protocol = OURS;
	rule->family = (unsigned char)family;
	rule->action = FR_ACT_TO_TBL;
	rule->table = table < 256 ? (unsigned char)table : RT_TABLE_COMPAT;
	rule->src_len = (unsigned char)bits;
	number(FRA_PRIORITY, priority);
	number(FRA_TABLE, table);
	attribute(FRA_PROTOCOL, &protocol, 1);
	if (source)
		attribute(FRA_SRC, source, length);
	if (source && (size_t)bits < length * 8)
		attribute(FRA_IIFNAME, "lo", sizeof "lo");
	if (priority == RULE_MAIN) {
		number(FRA_SUPPRESS_PREFIXLEN, 0);
		number(FRA_SUPPRESS_IFGROUP, GROUP);
	}
}

static void route(enum change change, int family, unsigned char type, const void *destination,
		  int prefix, unsigned table, unsigned metric, unsigned interface,
		  const void *gateway)
{
	size_t length = family == AF_INET ? 4 : 16;
	struct rtmsg *route = message(change == ADD ? RTM_NEWROUTE : RTM_DELROUTE,
		change == ADD ? NLM_F_CREATE | NLM_F_EXCL : 0, sizeof *route);
	route->rtm_family = (unsigned char)family;
	route->rtm_dst_len = (unsigned char)prefix;
	route->rtm_table = table < 256 ? (unsigned char)table : RT_TABLE_COMPAT;
	route->rtm_protocol = OURS;
	route->rtm_type = type;
	route->rtm_scope = family == AF_INET && interface && !gateway ? RT_SCOPE_LINK
		: RT_SCOPE_UNIVERSE;
	if (prefix)
		attribute(RTA_DST, destination, length);
	number(RTA_TABLE, table);
	if (metric)
		number(RTA_PRIORITY, metric);
	if (interface)
		number(RTA_OIF, interface);
	if (gateway) {
		route->rtm_flags = RTNH_F_ONLINK;
		attribute(RTA_GATEWAY, gateway, length);
	}
}

static void add_address(int family, const void *address, unsigned interface)
{
	size_t length = family == AF_INET ? 4 : 16;
	struct ifaddrmsg *message_ = message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
		sizeof *message_);
	unsigned char protocol = OURS;
	message_->ifa_family = (unsigned char)family;
	message_->ifa_prefixlen = (unsigned char)(length * 8);
	message_->ifa_index = interface;
	attribute(IFA_LOCAL, address, length);
	attribute(IFA_ADDRESS, address, length);
	number(IFA_FLAGS, IFA_F_NOPREFIXROUTE | (family == AF_INET6 ? IFA_F_NODAD : 0));
	attribute(IFA_PROTO, &protocol, 1);
}

static void set_group(unsigned interface, unsigned group)
{
	struct ifinfomsg *link = message(RTM_NEWLINK, 0, sizeof *link);
	link->ifi_index = (int)interface;
	number(IFLA_GROUP, group);
}

/* ---- an interface ------------------------------------------------------------------------ */

struct link {
	unsigned index, mtu, group, up;
	char name[IFNAMSIZ];
	unsigned char mac[6];
};

struct family {
	int family;
	size_t length;
	unsigned char addresses[MAX_ADDRESSES][16];
	int count;
	unsigned char subnet[16];
	int prefix;
};

struct plugged {
	unsigned index, table;
	struct family families[2];
};

static struct link primary;
static struct plugged plugged[MAX_INTERFACES];
static int plugged_count;
static int wait_for_udev, device_entries;

/* One rule for all addresses: they are alone in what they have in common. */
static void source_rule(enum change change, const struct plugged *p, const struct family *f)
{
	int whole = (int)f->length * 8, bits = whole;
	unsigned char common[16];
	memcpy(common, f->addresses[0], f->length);
	for (int a = 1; a < f->count; a++)
		for (int bit = 0; bit < bits; bit++)
			if ((common[bit / 8] ^ f->addresses[a][bit / 8]) & (0x80 >> bit % 8))
				bits = bit;
	for (int bit = bits; bit < whole; bit++)
		common[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
	rule(change, f->family, RULE_SOURCE + (unsigned)(whole - bits), p->table, common, bits);
}

/* Reads a notification or dump answer about an Ethernet device. */
static int read_link(struct nlmsghdr *header, struct link *link)
{
	struct ifinfomsg *info = NLMSG_DATA(header);
	if (info->ifi_family != AF_UNSPEC || info->ifi_type != ARPHRD_ETHER)
		return 0;
	memset(link, 0, sizeof *link);
	link->index = (unsigned)info->ifi_index;
	link->up = info->ifi_flags & IFF_UP ? 1 : 0;
	int left = (int)IFLA_PAYLOAD(header);
	for (struct rtattr *a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFLA_IFNAME)
			snprintf(link->name, sizeof link->name, "%s", (char *)RTA_DATA(a));
		else if (a->rta_type == IFLA_MTU)
			memcpy(&link->mtu, RTA_DATA(a), 4);
		else if (a->rta_type == IFLA_GROUP)
			memcpy(&link->group, RTA_DATA(a), 4);
		else if (a->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(a) == 6)
			memcpy(link->mac, RTA_DATA(a), 6);
	}
	return 1;
}

static int setting(const struct link *link, const char *name, const char *value)
{
	char file[128], text[16] = "";
	snprintf(file, sizeof file, "/proc/sys/net/ipv6/conf/%s/%s", link->name, name);
	int fd = open(file, (value ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		die(file);
	if (value ? write(fd, value, 1) != 1 : read(fd, text, sizeof text - 1) <= 0)
		die(file);
	close(fd);
	return atoi(text);
}

/*
 * udev writes its database entry when it has renamed the device, and broadcasts the event when the
 * programs that its rules start have ended besides: the entry is the earliest sign.
 */
static void await_udev(unsigned index)
{
	char file[64], buffer[8192];
	snprintf(file, sizeof file, "/run/udev/data/n%u", index);
	while (access(file, F_OK)) {
		if (read(device_entries, buffer, sizeof buffer) < 0)
			die("wait for udev");
	}
}

/* Takes the next line. */
static char *line(char **rest)
{
	return strsep(rest, "\n");
}

static void read_addresses(struct family *f, char *text)
{
	char *address;
	while ((address = line(&text)) && f->count < MAX_ADDRESSES)
		if (inet_pton(f->family, address, f->addresses[f->count]) == 1)
			f->count++;
}

static void read_subnet(struct family *f, char *text)
{
	char *net = line(&text), *slash = strchr(net, '/');
	if (!slash)
		return;
	*slash = 0;
	f->prefix = atoi(slash + 1);
	inet_pton(f->family, net, f->subnet);
	for (size_t bit = (size_t)f->prefix; bit < f->length * 8; bit++)
		f->subnet[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
}

enum key { INTERFACE_ID, DEVICE_NUMBER, NETWORK_CARD, IPV4S, IPV6S, SUBNET4, SUBNET6, KEYS };
static const char *const NAMES[KEYS] = {
	"interface-id", "device-number", "network-card", "local-ipv4s", "ipv6s",
	"subnet-ipv4-cidr-block", "subnet-ipv6-cidr-blocks",
};

static void plug(const struct link *link)
{
	static struct question questions[MAX_QUESTIONS];
	const unsigned char *m = link->mac;
	char macs[96];
	snprintf(macs, sizeof macs,
		"/latest/meta-data/network/interfaces/macs/%02x:%02x:%02x:%02x:%02x:%02x/",
		m[0], m[1], m[2], m[3], m[4], m[5]);
	path(&questions[0], "%s", macs);
	ask(questions, 1);
	if (questions[0].status != 200)
		return;
	enum key asked[KEYS];
	int count = 0;
	char *rest = questions[0].answer, *name;
	while ((name = line(&rest)))
		for (enum key key = 0; key < KEYS; key++)
			if (!strcmp(name, NAMES[key]) && count < KEYS)
				asked[count++] = key;
	for (int i = 0; i < count; i++)
		path(&questions[i], "%s%s", macs, NAMES[asked[i]]);
	ask(questions, count);

	if (plugged_count == MAX_INTERFACES)
		return;
	struct plugged *p = &plugged[plugged_count++];
	memset(p, 0, sizeof *p);
	p->index = link->index;
	struct family *v4 = &p->families[0], *v6 = &p->families[1];
	*v4 = (struct family){ .family = AF_INET, .length = 4 };
	*v6 = (struct family){ .family = AF_INET6, .length = 16 };
	const char *id = "";
	unsigned device = 0, card = 0;
	for (int i = 0; i < count; i++) {
		char *answer = questions[i].answer;
		switch (asked[i]) {
		case INTERFACE_ID: id = answer; break;
		case DEVICE_NUMBER: device = (unsigned)atoi(answer); break;
		case NETWORK_CARD: card = (unsigned)atoi(answer); break;
		case IPV4S: read_addresses(v4, answer); break;
		case IPV6S: read_addresses(v6, answer); break;
		case SUBNET4: read_subnet(v4, answer); break;
		case SUBNET6: read_subnet(v6, answer); break;
		case KEYS: break;
		}
	}
	p->table = TABLE_BASE + 100 * card + device;
	if (wait_for_udev)
		await_udev(link->index);

	char alias[256];
	int length = snprintf(alias, sizeof alias,
		"jackfield: table=%u mtu=%u group=%u up=%u ra=%d,%d name=%s",
		p->table, link->mtu, link->group, link->up,
		setting(link, "accept_ra_defrtr", NULL), setting(link, "accept_ra_pinfo", NULL), id);
	setting(link, "accept_ra_defrtr", "0");
	setting(link, "accept_ra_pinfo", "0");

	for (int i = 0; i < 2; i++) {
		struct family *f = &p->families[i];
		if (!f->count)
			continue;
		rule(ADD, f->family, RULE_MAIN, RT_TABLE_MAIN, NULL, 0);
		source_rule(ADD, p, f);
	}
	if (primary.group != GROUP) {
		set_group(primary.index, GROUP);
		primary.group = GROUP;
	}
	struct ifinfomsg *info = message(RTM_NEWLINK, 0, sizeof *info);
	info->ifi_index = (int)link->index;
	info->ifi_flags = IFF_UP;
	info->ifi_change = IFF_UP;
	attribute(IFLA_IFALIAS, alias, (size_t)length);
	number(IFLA_GROUP, GROUP);
	if (link->mtu != primary.mtu)
		number(IFLA_MTU, primary.mtu);
	info = message(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, sizeof *info);
	info->ifi_index = (int)link->index;
	struct rtattr *list = (struct rtattr *)(batch.bytes + batch.length);
	attribute(IFLA_PROP_LIST | NLA_F_NESTED, "", 0);
	attribute(IFLA_ALT_IFNAME, id, strlen(id) + 1);
	list->rta_len = (unsigned short)(batch.bytes + batch.length - (char *)list);
	for (int i = 0; i < 2; i++) {
		struct family *f = &p->families[i];
		if (!f->count)
			continue;
		unsigned metric = f->family == AF_INET ? 0 : IPV6_METRIC;
		unsigned char gateway[16];
		memcpy(gateway, f->subnet, sizeof gateway);
		gateway[3]++;
		if (f->family == AF_INET6)
			inet_pton(AF_INET6, IPV6_GATEWAY, gateway);
		route(ADD, f->family, RTN_UNREACHABLE, NULL, 0, p->table, LAST_METRIC, 0, NULL);
		route(ADD, f->family, RTN_UNICAST, f->subnet, f->prefix, p->table, metric,
			link->index, NULL);
		route(ADD, f->family, RTN_UNICAST, NULL, 0, p->table, metric, link->index, gateway);
		route(ADD, f->family, RTN_UNICAST, NULL, 0, RT_TABLE_MAIN,
			LAST_RESORT + p->table - TABLE_BASE, link->index, gateway);
	}
	for (int i = 0; i < 2; i++) {
		struct family *f = &p->families[i];
		for (int a = 0; a < f->count; a++)
			add_address(f->family, f->addresses[a], link->index);
	}
	flush();
	puts("plugged");
	fflush(stdout);
}

/* The kernel has removed all that hung on the device. */
static void unplug(struct plugged *p)
{
	for (int i = 0; i < 2; i++) {
		struct family *f = &p->families[i];
		if (!f->count)
			continue;
		source_rule(REMOVE, p, f);
		if (plugged_count == 1)
			rule(REMOVE, f->family, RULE_MAIN, RT_TABLE_MAIN, NULL, 0);
		route(REMOVE, f->family, RTN_UNREACHABLE, NULL, 0, p->table, LAST_METRIC, 0, NULL);
	}
	if (plugged_count == 1) {
		set_group(primary.index, 0);
		primary.group = 0;
	}
	flush();
	*p = plugged[--plugged_count];
}

static struct plugged *find(unsigned index)
{
	for (int i = 0; i < plugged_count; i++)
		if (plugged[i].index == index)
			return &plugged[i];
	return NULL;
}

static int netlink(int protocol, unsigned groups)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = groups };
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address))
		die("open a netlink socket");
	int room = 1 << 20;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	return fd;
}

static void find_primary(void)
{
	static struct question question;
	path(&question, "/latest/api/token");
	ask(&question, 1);
	snprintf(token, sizeof token, "%.255s", question.answer);
	path(&question, "/latest/meta-data/mac");
	ask(&question, 1);
	unsigned char mac[6];
	if (sscanf(question.answer, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2],
		   &mac[3], &mac[4], &mac[5]) != 6)
		die("read the primary's MAC");
	struct { struct nlmsghdr header; struct ifinfomsg info; } dump = {
		.header = { sizeof dump, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 0, 0 } };
	if (send(kernel, &dump, sizeof dump, 0) < 0)
		die("list devices");
	for (;;) {
		static char buffer[32768];
		ssize_t got = recv(kernel, buffer, sizeof buffer, 0);
		if (got < 0)
			die("list devices");
		struct nlmsghdr *h = (struct nlmsghdr *)buffer;
		for (int left = (int)got; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			struct link link;
			if (h->nlmsg_type == NLMSG_DONE)
				return;
			if (read_link(h, &link) && !memcmp(link.mac, mac, 6))
				primary = link;
		}
	}
}

int main(int count, char **arguments)
{
	wait_for_udev = count > 1 && !strcmp(arguments[1], "--udev");
	int links = netlink(NETLINK_ROUTE, RTMGRP_LINK), one = 1;
	kernel = netlink(NETLINK_ROUTE, 0);
	setsockopt(kernel, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
	if (wait_for_udev) {
		device_entries = inotify_init1(IN_CLOEXEC);
		if (inotify_add_watch(device_entries, "/run/udev/data", IN_CREATE | IN_MOVED_TO) < 0)
			die("watch udev's database");
	}
	find_primary();
	puts("ready");
	fflush(stdout);
	for (;;) {
		static char buffer[32768];
		ssize_t got = recv(links, buffer, sizeof buffer, 0);
		if (got < 0 && errno == ENOBUFS)
			continue;
		if (got < 0)
			die("wait for devices");
		struct nlmsghdr *h = (struct nlmsghdr *)buffer;
		for (int left = (int)got; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			struct link link;
			if (!read_link(h, &link) || link.index == primary.index)
				continue;
			struct plugged *known = find(link.index);
			if (h->nlmsg_type == RTM_DELLINK && known)
				unplug(known);
			else if (h->nlmsg_type == RTM_NEWLINK && !known)
				plug(&link);
		}
	}
}
