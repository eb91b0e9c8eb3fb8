/*
 * The floor of tc-redirect-tap: the least work by which its kernel state can be made.
 *
 * It is called like the plugin, reads its input without looking at it, believes everything, looks
 * at nothing that it does not need, undoes nothing, and prints a fixed result: what the plugin
 * takes longer than this is what its guarantees cost.
 *
 *   tap                      VERSION, ADD, CHECK and DEL, by CNI_COMMAND
 *   tap rusage PROGRAM ...   runs a program and says its peak of resident memory, KiB
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/if.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PREFERENCE = 0xc000, EVERY_PROTOCOL = 0x0300 /* ETH_P_ALL, in network order */ };
#define TAP "tap0"

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- netlink ----------------------------------------------------------------------------- */

static int rtnetlink;
static char batch[4096];
static size_t used;
static unsigned count;
static struct nlmsghdr *message;

static void begin(uint16_t type, uint16_t flags, const void *header, size_t length)
{
	message = (struct nlmsghdr *)(batch + used);
	memset(message, 0, sizeof batch - used);
	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	message->nlmsg_seq = ++count;
	message->nlmsg_len = (uint32_t)NLMSG_LENGTH(length);
	memcpy(NLMSG_DATA(message), header, length);
}

static void end(void)
{
	used += NLMSG_ALIGN(message->nlmsg_len);
}

static struct rtattr *attribute(uint16_t type, const void *value, size_t length)
{
	size_t at = NLMSG_ALIGN(message->nlmsg_len);
	struct rtattr *its = (struct rtattr *)((char *)message + at);
	its->rta_type = type;
	its->rta_len = (uint16_t)RTA_LENGTH(length);
	memcpy(RTA_DATA(its), value, length);
	message->nlmsg_len = (uint32_t)(at + RTA_ALIGN(its->rta_len));
	return its;
}

static void close_nest(struct rtattr *nest)
{
	nest->rta_len = (uint16_t)((char *)message + message->nlmsg_len - (char *)nest);
}

static void send_batch(void)
{
	if (send(rtnetlink, batch, used, 0) != (ssize_t)used)
		die("send");
	used = 0;
}

/* Waits for the acknowledgements of all that was sent. */
static void acknowledged(void)
{
	unsigned missing = count;
	char answer[16384];
	while (missing) {
		ssize_t got = recv(rtnetlink, answer, sizeof answer, 0);
		if (got < 0)
			die("receive");
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
			struct nlmsgerr *error = NLMSG_DATA(h);
			if (h->nlmsg_type == NLMSG_ERROR && error->error) {
				errno = -error->error;
				die("the kernel refuses");
			}
			missing--;
		}
	}
	count = 0;
}

static void add_qdisc(int index)
{
	struct tcmsg tc = { .tcm_ifindex = index, .tcm_handle = 0xffff0000, .tcm_parent = TC_H_INGRESS };
	begin(RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &tc, sizeof tc);
	attribute(TCA_KIND, "ingress", 8);
	end();
}

static void add_redirect(int from, int to)
{
	struct tcmsg tc = {
		.tcm_ifindex = from,
		.tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
		.tcm_info = (uint32_t)PREFERENCE << 16 | EVERY_PROTOCOL,
	};
	begin(RTM_NEWTFILTER, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &tc, sizeof tc);
	attribute(TCA_KIND, "u32", 4);
	struct rtattr *options = attribute(TCA_OPTIONS, "", 0);
	struct tc_u32_sel selector = { .flags = TC_U32_TERMINAL };
	attribute(TCA_U32_SEL, &selector, sizeof selector);
	struct rtattr *actions = attribute(TCA_U32_ACT, "", 0);
	struct rtattr *action = attribute(1, "", 0);
	attribute(TCA_ACT_KIND, "mirred", 7);
	struct rtattr *parameters = attribute(TCA_ACT_OPTIONS, "", 0);
	struct tc_mirred mirred = {
		.action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to,
	};
	attribute(TCA_MIRRED_PARMS, &mirred, sizeof mirred);
	close_nest(parameters);
	attribute(TCA_ACT_COOKIE, "0123456789abcdef", 16);
	close_nest(action);
	close_nest(actions);
	close_nest(options);
	end();
}

/* ---- what is known of the interface -------------------------------------------------------- */

static int index_of_interface;
static uint32_t mtu;
static unsigned char mac[6];

static void look(const char *name)
{
	struct ifinfomsg link = { 0 };
	begin(RTM_GETLINK, 0, &link, sizeof link);
	attribute(IFLA_IFNAME, name, strlen(name) + 1);
	end();
	send_batch();
	char answer[16384];
	ssize_t got = recv(rtnetlink, answer, sizeof answer, 0);
	struct nlmsghdr *h = (void *)answer;
	if (got < 0 || h->nlmsg_type != RTM_NEWLINK)
		die(name);
	struct ifinfomsg *its = NLMSG_DATA(h);
	index_of_interface = its->ifi_index;
	int rest = (int)IFLA_PAYLOAD(h);
	for (struct rtattr *a = IFLA_RTA(its); RTA_OK(a, rest); a = RTA_NEXT(a, rest)) {
		if (a->rta_type == IFLA_MTU)
			memcpy(&mtu, RTA_DATA(a), sizeof mtu);
		if (a->rta_type == IFLA_ADDRESS)
			memcpy(mac, RTA_DATA(a), sizeof mac);
	}
	count = 0;
}

static void dump_filters(int index)
{
	struct tcmsg tc = {
		.tcm_ifindex = index, .tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
	};
	begin(RTM_GETTFILTER, NLM_F_DUMP, &tc, sizeof tc);
	end();
	send_batch();
	for (char answer[16384];;) {
		ssize_t got = recv(rtnetlink, answer, sizeof answer, 0);
		if (got < 0)
			die("receive");
		for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got))
			if (h->nlmsg_type == NLMSG_DONE)
				return;
	}
}

/* ---- commands ------------------------------------------------------------------------------ */

static void enter(void)
{
	int fd = open(getenv("CNI_NETNS"), O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		die("enter the namespace");
	rtnetlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (rtnetlink < 0)
		die("socket");
}

static void print_result(const unsigned char *tap)
{
	char text[2048];
	const char *id = getenv("CNI_CONTAINERID"), *netns = getenv("CNI_NETNS");
	int length = snprintf(text, sizeof text,
		"{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"eth0\",\"sandbox\":\"%s\"},"
		"{\"name\":\"" TAP "\",\"mac\":\"%02x:%02x:%02x:%02x:%02x:%02x\",\"sandbox\":\"%s\"},"
		"{\"name\":\"" TAP "\",\"mac\":\"%02x:%02x:%02x:%02x:%02x:%02x\",\"sandbox\":\"%s\"}],"
		"\"ips\":[{\"address\":\"10.0.0.2/24\",\"gateway\":\"10.0.0.1\",\"interface\":0},"
		"{\"address\":\"10.0.0.2/24\",\"gateway\":\"10.0.0.1\",\"interface\":2}]}\n",
		netns, tap[0], tap[1], tap[2], tap[3], tap[4], tap[5], netns,
		mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], id);
	if (write(1, text, (size_t)length) != length)
		die("write");
}

static void add(void)
{
	enter();
	look(getenv("CNI_IFNAME"));
	int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (short)IFF_TUN_EXCL };
	strcpy(request.ifr_name, TAP);
	if (tun < 0 || ioctl(tun, TUNSETIFF, &request))
		die("make the tap");
	if (ioctl(tun, TUNSETOWNER, 0) || ioctl(tun, TUNSETGROUP, 0))
		die("give the tap away");
	if (ioctl(rtnetlink, SIOCGIFINDEX, &request))
		die("index of the tap");
	int index = request.ifr_ifindex;
	struct ifinfomsg link = { .ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	begin(RTM_NEWLINK, NLM_F_ACK, &link, sizeof link);
	attribute(IFLA_MTU, &mtu, sizeof mtu);
	attribute(IFLA_IFALIAS, "floor", 5);
	end();
	add_qdisc(index);
	add_redirect(index, index_of_interface);
	add_qdisc(index_of_interface);
	add_redirect(index_of_interface, index);
	send_batch();
	acknowledged();
	if (ioctl(tun, SIOCGIFHWADDR, &request) || ioctl(tun, TUNSETPERSIST, 1))
		die("keep the tap");
	print_result((unsigned char *)request.ifr_hwaddr.sa_data);
}

static void del(void)
{
	enter();
	struct ifreq request = { 0 };
	strcpy(request.ifr_name, getenv("CNI_IFNAME"));
	if (ioctl(rtnetlink, SIOCGIFINDEX, &request))
		die("index of the interface");
	struct tcmsg tc = {
		.tcm_ifindex = request.ifr_ifindex, .tcm_handle = 0xffff0000, .tcm_parent = TC_H_INGRESS,
	};
	begin(RTM_DELQDISC, NLM_F_ACK, &tc, sizeof tc);
	end();
	struct ifinfomsg link = { 0 };
	begin(RTM_DELLINK, NLM_F_ACK, &link, sizeof link);
	attribute(IFLA_IFNAME, TAP, sizeof TAP);
	end();
	send_batch();
	acknowledged();
}

static void check(void)
{
	enter();
	look(TAP);
	int tap = index_of_interface;
	look(getenv("CNI_IFNAME"));
	dump_filters(tap);
	dump_filters(index_of_interface);
	struct ifaddrmsg address = { .ifa_family = AF_INET };
	begin(RTM_GETADDR, NLM_F_DUMP, &address, sizeof address);
	end();
	send_batch();
	char answer[16384];
	while (recv(rtnetlink, answer, sizeof answer, 0) > 0)
		if (((struct nlmsghdr *)answer)->nlmsg_type == NLMSG_DONE)
			return;
}

static int rusage(char **program)
{
	pid_t child = fork();
	if (child == 0) {
		execv(program[0], program);
		die(program[0]);
	}
	int status;
	struct rusage usage;
	if (wait4(child, &status, 0, &usage) != child)
		die("wait");
	fprintf(stderr, "%ld\n", usage.ru_maxrss);
	return !WIFEXITED(status) || WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	if (argc > 2 && !strcmp(argv[1], "rusage"))
		return rusage(argv + 2);
	static const char versions[] = "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":"
		"[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";
	const char *command = getenv("CNI_COMMAND");
	if (!command)
		return 1;
	if (!strcmp(command, "VERSION"))
		return write(1, versions, sizeof versions - 1) < 0;
	char input[65536];
	while (read(0, input, sizeof input) > 0)
		;
	if (!strcmp(command, "ADD"))
		add();
	else if (!strcmp(command, "DEL"))
		del();
	else if (!strcmp(command, "CHECK"))
		check();
	else
		return 1;
	return 0;
}
