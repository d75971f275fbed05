/*
 * packets capture IFACE PORT: every IPv4 UDP packet to or from PORT that passes IFACE, on
 * standard output as length:u16 (big-endian) and the frame, until it is killed.
 * packets send IFACE: the same from standard input, each frame sent as it is, but from
 * IFACE's own hardware address: a switch would otherwise send the owner's packets here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Ethernet, IPv4 without options, UDP. */
#define HEADERS 42
#define FRAME_MAX 2048

static int fail(const char *what)
{
	fprintf(stderr, "packets: %s: %s\n", what, strerror(errno));
	return 1;
}

static int open_on(const char *name, unsigned char *own)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	if (fd < 0)
		return -1;
	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		return -1;
	memcpy(own, request.ifr_hwaddr.sa_data, ETH_ALEN);
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	at.sll_ifindex = (int)if_nametoindex(name);
	return bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ? -1 : fd;
}

static int capture(int fd, unsigned port)
{
	unsigned char frame[FRAME_MAX];
	for (;;) {
		ssize_t n = recv(fd, frame, sizeof(frame), 0);
		if (n < 0)
			return fail("recv");
		int is_udp = n >= HEADERS && frame[12] == 8 && frame[13] == 0 &&
			     frame[14] == 0x45 && frame[23] == IPPROTO_UDP;
		if (!is_udp)
			continue;
		unsigned from = frame[34] << 8 | frame[35], to = frame[36] << 8 | frame[37];
		if (from != port && to != port)
			continue;
		unsigned char length[2] = { (unsigned char)(n >> 8), (unsigned char)n };
		if (fwrite(length, 2, 1, stdout) != 1 || fwrite(frame, n, 1, stdout) != 1)
			return fail("write");
		fflush(stdout);
	}
}

static int replay(int fd, const unsigned char *own)
{
	unsigned char length[2], frame[FRAME_MAX];
	while (fread(length, 2, 1, stdin) == 1) {
		size_t n = (size_t)length[0] << 8 | length[1];
		if (n < HEADERS || n > sizeof(frame) || fread(frame, n, 1, stdin) != 1) {
			errno = EINVAL;
			return fail("read");
		}
		memcpy(frame + ETH_ALEN, own, ETH_ALEN);
		if (send(fd, frame, n, 0) < 0 && errno != ENOBUFS)
			return fail("send");
	}
	return 0;
}

int main(int argc, char **argv)
{
	unsigned char own[ETH_ALEN];
	if (argc < 3)
		return 2;
	int fd = open_on(argv[2], own);
	if (fd < 0)
		return fail(argv[2]);
	if (argc == 4 && strcmp(argv[1], "capture") == 0)
		return capture(fd, (unsigned)atoi(argv[3]));
	if (argc == 3 && strcmp(argv[1], "send") == 0)
		return replay(fd, own);
	return 2;
}
