/*
 * page-reader FILE REFERENCE OFFSET: starts readers of FILE and says what they saw, compared with
 * REFERENCE, where the same bytes lie from OFFSET on. Commands on standard input, one answer each:
 *
 *   cold MORE...           takes FILE and the files named out of the page cache
 *                          -> cold | warm PAGES (of FILE; more than none are still there)
 *   start HOW FROM TO      a reader in a process of its own: HOW is read (read(2)), map (mmap(2))
 *                          or ahead (readahead(2), then read(2))   -> started
 *   wait                   -> right PAGES ERRORS | wrong OFFSET zeros|bytes | hung
 *   kill                   kill -9 once it is blocked (or 200 ms have gone), and a second for it to
 *                          go -> killed blocked|running | lingers | ended
 *   reap                   waits for one that lingers -> gone | hung
 *
 * A reader takes what fails page by page and gives up after 16 errors. Offsets are in bytes. A
 * process of its own, because a mount must never be read by who serves it; in C and linked
 * statically, because it also runs in virtual machines that have nothing else.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  PAGE = 4096,
  PIECE = 65536,
  ERRORS_MAX = 16,
  BLOCKED_POLLS = 800,
  BLOCKED_POLL_US = 250,
  FAST_POLLS = 20,
  FAST_POLL_US = 50,
  POLL_US = 1000,
  GO_POLLS = 1000,
  END_POLLS = 30000,
};

static const char *path;
static const unsigned char *reference;
static long size;
static pid_t reader;
static int answers;

static void die(const char *what) {
  fprintf(stderr, "page-reader: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int open_file(const char *name) {
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) die(name);
  return fd;
}

/* ---- the reader -------------------------------------------------------------------------------- */

static long right_pages, errors;

static void say_wrong(long at, const unsigned char *got, long length) {
  long i = 0;
  while (i < length && got[i] == reference[at + i]) i++;
  dprintf(answers, "wrong %ld %s\n", at + i, got[i] == 0 ? "zeros" : "bytes");
  _exit(0);
}

static void check(long at, const unsigned char *got, long length) {
  if (memcmp(got, reference + at, length) != 0) say_wrong(at, got, length);
  right_pages += (length + PAGE - 1) / PAGE;
}

/* False when not all of it could be read. */
static int read_once(int fd, long at, long length) {
  static unsigned char buffer[PIECE];
  memset(buffer, 0xee, length);
  for (long done = 0; done < length;) {
    ssize_t n = pread(fd, buffer + done, length - done, at + done);
    if (n > 0) done += n;
    else if (n < 0 && errno == EINTR) continue;
    else {
      /* What came before the error counts as read. */
      if (done > 0 && memcmp(buffer, reference + at, done) != 0) say_wrong(at, buffer, done);
      return 0;
    }
  }
  check(at, buffer, length);
  return 1;
}

static void read_range(int fd, long from, long to) {
  for (long at = from; at < to; at += PIECE) {
    long end = at + PIECE < to ? at + PIECE : to;
    if (read_once(fd, at, end - at)) continue;
    for (long page = at; page < end; page += PAGE) {
      long length = page + PAGE < end ? PAGE : end - page;
      if (read_once(fd, page, length)) continue;
      if (++errors >= ERRORS_MAX) return;
    }
  }
}

static sigjmp_buf jump;

static void on_bus_error(int signal) { siglongjmp(jump, signal); }

static void map_range(int fd, long from, long to) {
  unsigned char *map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) die("mmap");
  signal(SIGBUS, on_bus_error);
  for (volatile long page = from; page < to; page += PAGE) {
    long length = page + PAGE < to ? PAGE : to - page;
    if (sigsetjmp(jump, 1) == 0) check(page, map + page, length);
    else if (++errors >= ERRORS_MAX) return;
  }
}

static void run_reader(const char *how, long from, long to) {
  int fd = open_file(path);
  if (strcmp(how, "ahead") == 0) readahead(fd, from, to - from);
  if (strcmp(how, "map") == 0) map_range(fd, from, to);
  else read_range(fd, from, to);
  dprintf(answers, "right %ld %ld\n", right_pages, errors);
  _exit(0);
}

/* ---- commands ---------------------------------------------------------------------------------- */

static void start(const char *how, long from, long to) {
  int ends[2];
  if (pipe(ends) != 0) die("pipe");
  if (answers > 0) close(answers);
  fflush(stdout);
  reader = fork();
  if (reader < 0) die("fork");
  if (reader == 0) {
    close(ends[0]);
    answers = ends[1];
    run_reader(how, from, to);
  }
  close(ends[1]);
  answers = ends[0];
  puts("started");
}

/* The state letter of /proc/PID/stat: D and S are blocked. */
static char state_of(pid_t pid) {
  char name[64], text[512];
  snprintf(name, sizeof name, "/proc/%d/stat", pid);
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 'X';
  ssize_t n = read(fd, text, sizeof text - 1);
  close(fd);
  text[n > 0 ? n : 0] = 0;
  char *end = strrchr(text, ')');
  return end != NULL && end[1] == ' ' ? end[2] : 'X';
}

/* False when it has not ended after so many milliseconds. */
static int reaped(int polls_max) {
  for (int polls = 0; polls < polls_max; polls++) {
    if (waitpid(reader, NULL, WNOHANG) == reader) {
      reader = 0;
      return 1;
    }
    usleep(polls < FAST_POLLS ? FAST_POLL_US : POLL_US);
  }
  return 0;
}

static void kill_reader(void) {
  int blocked = 0;
  for (int polls = 0; polls < BLOCKED_POLLS && blocked < 2; polls++) {
    char state = state_of(reader);
    if (state == 'Z' || state == 'X') {
      reaped(GO_POLLS);
      puts("ended");
      return;
    }
    blocked = state == 'D' || state == 'S' ? blocked + 1 : 0;
    if (blocked < 2) usleep(BLOCKED_POLL_US);
  }
  kill(reader, SIGKILL);
  if (!reaped(GO_POLLS)) puts("lingers");
  else printf("killed %s\n", blocked >= 2 ? "blocked" : "running");
}

static void wait_reader(void) {
  char text[128];
  if (!reaped(END_POLLS)) {
    kill(reader, SIGKILL);
    puts("hung");
    return;
  }
  ssize_t n = read(answers, text, sizeof text - 1);
  text[n > 0 ? n : 0] = 0;
  fputs(n > 0 ? text : "died\n", stdout);
}

static void take_out(const char *name) {
  int fd = open_file(name);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
}

static long resident(const char *name) {
  int fd = open_file(name);
  struct stat info;
  if (fstat(fd, &info) != 0) die("fstat");
  size_t pages = (info.st_size + PAGE - 1) / PAGE;
  unsigned char *seen = calloc(pages, 1);
  void *map = mmap(NULL, info.st_size, PROT_READ, MAP_SHARED, fd, 0);
  if (seen == NULL || map == MAP_FAILED || mincore(map, info.st_size, seen) != 0) die("mincore");
  long found = 0;
  for (size_t i = 0; i < pages; i++) found += seen[i] & 1;
  munmap(map, info.st_size);
  free(seen);
  close(fd);
  return found;
}

static void cold(char *names) {
  char *list[8];
  int count = 0;
  for (char *name = strtok(names, " \n"); name != NULL && count < 8; name = strtok(NULL, " \n"))
    list[count++] = name;
  long left = 0;
  for (int tries = 0; tries < 50; tries++) {
    take_out(path);
    for (int i = 0; i < count; i++) take_out(list[i]);
    left = resident(path);
    for (int i = 0; i < count; i++) left += resident(list[i]);
    if (left == 0) break;
    usleep(2000); /* a read that is just ending still holds its pages */
  }
  if (left == 0) puts("cold");
  else printf("warm %ld\n", left);
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fputs("usage: page-reader FILE REFERENCE OFFSET\n", stderr);
    return 2;
  }
  path = argv[1];
  struct stat info;
  if (stat(path, &info) != 0) die(path);
  size = info.st_size;
  int fd = open_file(argv[2]);
  if (fstat(fd, &info) != 0) die(argv[2]);
  unsigned char *all = mmap(NULL, info.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
  if (all == MAP_FAILED) die("mmap");
  reference = all + atol(argv[3]);
  setlinebuf(stdout);
  char line[4096], how[16];
  long from, to;
  while (fgets(line, sizeof line, stdin) != NULL) {
    if (strncmp(line, "cold", 4) == 0) cold(line + 4);
    else if (sscanf(line, "start %15s %ld %ld", how, &from, &to) == 3) start(how, from, to);
    else if (strcmp(line, "wait\n") == 0) wait_reader();
    else if (strcmp(line, "kill\n") == 0) kill_reader();
    else if (strcmp(line, "reap\n") == 0) puts(reaped(END_POLLS) ? "gone" : "hung");
    else puts("what?");
  }
  if (reader > 0) kill(reader, SIGKILL);
  return 0;
}
