/*
 * reader [-s SIZE] [-p PAUSE_US] LIST: reads every file that LIST names (a path a line)
 * with pread calls of SIZE bytes, PAUSE_US apart, and tells how long each call took.
 *
 * Standard output, a line each:
 *   ready                             the list is read, the first call comes next
 *   slow START_MS LATENCY_US OFFSET PATH    a call of 20 ms or more; CLOCK_MONOTONIC
 *   file SHA256 BYTES PATH            a whole file
 *   error ERRNO OFFSET PATH           a call that failed; the file is given up
 *   done READS BYTES MAX_US P99_US FILES ERRORS
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLOW_US 20000
/* Latencies are counted in steps of 10 us up to 10 s. */
#define STEP_US 10
#define STEPS 1000000

static uint32_t counts[STEPS + 1];
static uint64_t reads, total, slowest, errors;

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* FIPS 180-4. */
struct sha256 {
	uint32_t h[8];
	uint64_t bytes;
	unsigned char block[64];
};

static const uint32_t K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

#define ROTR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))

static void sha256_block(struct sha256 *s, const unsigned char *p)
{
	uint32_t w[64], a[8];
	for (int i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	for (int i = 16; i < 64; i++) {
		uint32_t x = w[i - 15], y = w[i - 2];
		w[i] = w[i - 16] + (ROTR(x, 7) ^ ROTR(x, 18) ^ x >> 3) + w[i - 7] +
		       (ROTR(y, 17) ^ ROTR(y, 19) ^ y >> 10);
	}
	memcpy(a, s->h, sizeof a);
	for (int i = 0; i < 64; i++) {
		uint32_t e = a[4], c = a[0];
		uint32_t t1 = a[7] + (ROTR(e, 6) ^ ROTR(e, 11) ^ ROTR(e, 25)) +
			      ((e & a[5]) ^ (~e & a[6])) + K[i] + w[i];
		uint32_t t2 = (ROTR(c, 2) ^ ROTR(c, 13) ^ ROTR(c, 22)) +
			      ((c & a[1]) ^ (c & a[2]) ^ (a[1] & a[2]));
		memmove(a + 1, a, 7 * sizeof a[0]);
		a[4] += t1;
		a[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		s->h[i] += a[i];
}

static void sha256_start(struct sha256 *s)
{
	static const uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
				       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	memcpy(s->h, h, sizeof h);
	s->bytes = 0;
}

static void sha256_add(struct sha256 *s, const unsigned char *p, size_t n)
{
	while (n > 0) {
		size_t at = s->bytes % 64, take = 64 - at < n ? 64 - at : n;
		if (at == 0 && n >= 64) {
			sha256_block(s, p);
		} else {
			memcpy(s->block + at, p, take);
			if (at + take == 64)
				sha256_block(s, s->block);
		}
		s->bytes += take;
		p += take;
		n -= take;
	}
}

static void sha256_end(struct sha256 *s, char *hex)
{
	uint64_t bits = s->bytes * 8;
	unsigned char tail[72] = { 0x80 };
	size_t pad = (119 - s->bytes % 64) % 64 + 1;
	for (int i = 0; i < 8; i++)
		tail[pad + i] = (unsigned char)(bits >> (56 - 8 * i));
	sha256_add(s, tail, pad + 8);
	for (int i = 0; i < 8; i++)
		sprintf(hex + 8 * i, "%08x", s->h[i]);
}

static void note(uint64_t started, off_t offset, const char *path)
{
	uint64_t took = now_us() - started, step = took / STEP_US;
	counts[step < STEPS ? step : STEPS]++;
	reads++;
	if (took > slowest)
		slowest = took;
	if (took >= SLOW_US)
		printf("slow %llu %llu %lld %s\n", (unsigned long long)(started / 1000),
		       (unsigned long long)took, (long long)offset, path);
}

static void read_file(const char *path, size_t size, unsigned char *buffer, useconds_t pause)
{
	struct sha256 sum;
	char hex[65];
	off_t at = 0;
	int file = open(path, O_RDONLY | O_NOFOLLOW);
	sha256_start(&sum);
	while (file >= 0) {
		uint64_t started = now_us();
		ssize_t got = pread(file, buffer, size, at);
		int failed = errno;
		note(started, at, path);
		if (got < 0) {
			errno = failed;
			break;
		}
		if (got == 0) {
			close(file);
			sha256_end(&sum, hex);
			printf("file %s %lld %s\n", hex, (long long)at, path);
			return;
		}
		sha256_add(&sum, buffer, (size_t)got);
		at += got;
		total += (uint64_t)got;
		if (pause > 0)
			usleep(pause);
	}
	printf("error %d %lld %s\n", errno, (long long)at, path);
	errors++;
	if (file >= 0)
		close(file);
}

int main(int argc, char **argv)
{
	size_t size = 65536, length = 0;
	useconds_t pause = 0;
	uint64_t files = 0, seen = 0, p99 = 0;
	char *line = NULL;
	int option;
	while ((option = getopt(argc, argv, "s:p:")) != -1) {
		if (option == 's')
			size = strtoul(optarg, NULL, 10);
		else if (option == 'p')
			pause = (useconds_t)strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	unsigned char *buffer = malloc(size);
	FILE *list = optind < argc ? fopen(argv[optind], "r") : NULL;
	if (list == NULL || buffer == NULL) {
		perror("reader");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 4096);
	puts("ready");
	for (ssize_t n; (n = getline(&line, &length, list)) > 0; files++) {
		if (line[n - 1] == '\n')
			line[n - 1] = '\0';
		read_file(line, size, buffer, pause);
	}
	for (uint64_t step = 0; step <= STEPS && (seen += counts[step]) * 100 < reads * 99; step++)
		p99 = (step + 1) * STEP_US;
	printf("done %llu %llu %llu %llu %llu %llu\n", (unsigned long long)reads,
	       (unsigned long long)total, (unsigned long long)slowest, (unsigned long long)p99,
	       (unsigned long long)files, (unsigned long long)errors);
	return errors > 0;
}
