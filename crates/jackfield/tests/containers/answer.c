/* All that is in a container of these tests.
 *
 *   answer                      sends back what it is sent, by TCP and UDP, on port 7
 *   answer tcp|udp ADDRESS...   asks such ones from here; exit status 0 where all answered
 */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { PORT = 7, SECONDS = 5 };

static char buffer[65536];

/* Whom it asks. */
static const char *address = "";

static void fail(const char *what)
{
	fprintf(stderr, "%s ", address);
	perror(what);
	exit(1);
}

/* The first process of a container has no default actions: asked to stop, it would not. */
static void stop(int signal)
{
	(void)signal;
	_exit(0);
}

static int bound(int type)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(PORT) };
	int on = 1, off = 0, fd = socket(AF_INET6, type, 0);

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (bind(fd, (struct sockaddr *)&any, sizeof any))
		fail("bind");
	return fd;
}

static void answer(void)
{
	int tcp = bound(SOCK_STREAM), udp = bound(SOCK_DGRAM);
	struct pollfd ready[] = { { tcp, POLLIN, 0 }, { udp, POLLIN, 0 } };

	if (listen(tcp, 128))
		fail("listen");
	while (poll(ready, 2, -1) > 0) {
		if (ready[1].revents) {
			struct sockaddr_storage peer;
			socklen_t size = sizeof peer;
			ssize_t length = recvfrom(udp, buffer, sizeof buffer, 0,
						  (struct sockaddr *)&peer, &size);
			/* An error is that of an earlier answer. */
			if (length >= 0)
				sendto(udp, buffer, length, 0, (struct sockaddr *)&peer, size);
		}
		if (ready[0].revents) {
			int peer = accept(tcp, NULL, NULL);
			ssize_t length;

			if (peer >= 0 && fork() == 0) {
				while ((length = read(peer, buffer, sizeof buffer)) > 0)
					if (write(peer, buffer, length) != length)
						break;
				_exit(0);
			}
			close(peer);
		}
	}
	fail("poll");
}

static void ask(int type)
{
	static const char question[] = "is this line plugged in?";
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(PORT) };
	struct timeval patience = { .tv_sec = SECONDS };
	int is_v6 = inet_pton(AF_INET6, address, &v6.sin6_addr) == 1;
	int fd = socket(is_v6 ? AF_INET6 : AF_INET, type, 0);
	ssize_t length;

	if (!is_v6 && inet_pton(AF_INET, address, &v4.sin_addr) != 1)
		fail("inet_pton");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	if (is_v6 ? connect(fd, (struct sockaddr *)&v6, sizeof v6)
		  : connect(fd, (struct sockaddr *)&v4, sizeof v4))
		fail("connect");
	if (write(fd, question, sizeof question) != sizeof question)
		fail("write");
	length = recv(fd, buffer, sizeof question, MSG_WAITALL);
	if (length != sizeof question || memcmp(buffer, question, sizeof question) != 0)
		fail("recv");
	close(fd);
}

int main(int count, char **arguments)
{
	signal(SIGTERM, stop);
	signal(SIGINT, stop);
	signal(SIGCHLD, SIG_IGN);
	if (count == 1)
		answer();
	for (int next = 2; next < count; next++) {
		address = arguments[next];
		ask(strcmp(arguments[1], "udp") ? SOCK_STREAM : SOCK_DGRAM);
	}
	return 0;
}
