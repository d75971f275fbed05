/*
 * tree-walk DIR: one line for each path below a folder, itself first, sorted by bytes:
 *
 *   path type mode uid gid size nlink link-group rdev mtime xattrs target sha256
 *
 * separated by tabs; "-" where a field does not apply. Bytes of names outside the printable ones,
 * and the backslash, are written \xHH. The link group is the first path of the same inode, for
 * files with more than one name. Sizes and link counts of folders are the file system's own
 * business and left out. A process of its own: a mount must never be read by who serves it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* libcrypto's digest interface, declared here because only the library itself is installed. */
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
EVP_MD_CTX *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(EVP_MD_CTX *);
const EVP_MD *EVP_sha256(void);
int EVP_DigestInit_ex(EVP_MD_CTX *, const EVP_MD *, void *);
int EVP_DigestUpdate(EVP_MD_CTX *, const void *, size_t);
int EVP_DigestFinal_ex(EVP_MD_CTX *, unsigned char *, unsigned int *);

enum { XATTR_LIST_MAX_BYTES = 65536, XATTR_VALUE_MAX_BYTES = 65536, READ_BYTES = 1 << 20 };

static int hash_content = 1;

static void die(const char *what, const char *path) {
  fprintf(stderr, "tree-walk: %s %s: %s\n", what, path, strerror(errno));
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = malloc(bytes);
  if (memory == NULL) die("malloc", "");
  return memory;
}

static void put_text(const char *text) {
  for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
    if (*p > 0x20 && *p < 0x7f && *p != '\\') putchar(*p);
    else printf("\\x%02x", *p);
  }
}

/* ---- names of one inode ---------------------------------------------------------------------- */

struct link { dev_t dev; ino_t ino; char *path; };
static struct link *links;
static size_t links_count, links_room;

static uint64_t mix(dev_t dev, ino_t ino) {
  uint64_t x = (uint64_t)ino * 0x9e3779b97f4a7c15u ^ (uint64_t)dev * 0xc2b2ae3d27d4eb4fu;
  return x ^ (x >> 29);
}

static struct link *link_slot(struct link *table, size_t room, dev_t dev, ino_t ino) {
  size_t i = mix(dev, ino) & (room - 1);
  while (table[i].path != NULL && (table[i].dev != dev || table[i].ino != ino)) i = (i + 1) & (room - 1);
  return &table[i];
}

static const char *first_path(const struct stat *st, const char *path) {
  if (2 * (links_count + 1) > links_room) {
    size_t room = links_room ? 2 * links_room : 1024;
    struct link *grown = calloc(room, sizeof *grown);
    if (grown == NULL) die("calloc", path);
    for (size_t i = 0; i < links_room; i++)
      if (links[i].path) *link_slot(grown, room, links[i].dev, links[i].ino) = links[i];
    free(links);
    links = grown;
    links_room = room;
  }
  struct link *slot = link_slot(links, links_room, st->st_dev, st->st_ino);
  if (slot->path == NULL) {
    *slot = (struct link){ st->st_dev, st->st_ino, strdup(path) };
    if (slot->path == NULL) die("strdup", path);
    links_count++;
  }
  return slot->path;
}

/* ---- fields ------------------------------------------------------------------------------------ */

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void put_xattrs(const char *full, const char *path) {
  static char names[XATTR_LIST_MAX_BYTES];
  static unsigned char value[XATTR_VALUE_MAX_BYTES];
  ssize_t bytes = llistxattr(full, names, sizeof names);
  if (bytes < 0 && errno != ENOTSUP) die("listxattr", path);
  if (bytes <= 0) { putchar('-'); return; }
  size_t count = 0;
  for (char *p = names; p < names + bytes; p += strlen(p) + 1) count++;
  char **sorted = allocate(count * sizeof *sorted);
  size_t n = 0;
  for (char *p = names; p < names + bytes; p += strlen(p) + 1) sorted[n++] = p;
  qsort(sorted, count, sizeof *sorted, by_bytes);
  for (size_t i = 0; i < count; i++) {
    ssize_t length = lgetxattr(full, sorted[i], value, sizeof value);
    if (length < 0) die("getxattr", path);
    if (i > 0) putchar(',');
    put_text(sorted[i]);
    putchar('=');
    for (ssize_t j = 0; j < length; j++) printf("%02x", value[j]);
  }
  free(sorted);
}

static void put_digest(const char *full, const char *path, off_t size) {
  static unsigned char buffer[READ_BYTES];
  unsigned char digest[32];
  int fd = open(full, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME);
  if (fd < 0) die("open", path);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  if (context == NULL || !EVP_DigestInit_ex(context, EVP_sha256(), NULL)) die("sha256", path);
  off_t total = 0;
  for (;;) {
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) die("read", path);
    if (got == 0) break;
    total += got;
    if (!EVP_DigestUpdate(context, buffer, (size_t)got)) die("sha256", path);
  }
  if (total != size) {
    fprintf(stderr, "tree-walk: %s: %lld bytes were read, stat says %lld\n", path, (long long)total,
            (long long)size);
    exit(1);
  }
  EVP_DigestFinal_ex(context, digest, NULL);
  EVP_MD_CTX_free(context);
  close(fd);
  for (int i = 0; i < 32; i++) printf("%02x", digest[i]);
}

static char kind(mode_t mode) {
  if (S_ISREG(mode)) return 'f';
  if (S_ISDIR(mode)) return 'd';
  if (S_ISLNK(mode)) return 'l';
  if (S_ISCHR(mode)) return 'c';
  if (S_ISBLK(mode)) return 'b';
  if (S_ISFIFO(mode)) return 'p';
  if (S_ISSOCK(mode)) return 's';
  return '?';
}

static void put_target(const char *full, const char *path, off_t size) {
  char *target = allocate((size_t)size + 2);
  ssize_t length = readlink(full, target, (size_t)size + 1);
  if (length < 0) die("readlink", path);
  target[length] = 0;
  put_text(target);
  free(target);
}

static void put_line(const char *full, const char *path, const struct stat *st) {
  int is_folder = S_ISDIR(st->st_mode), has_size = S_ISREG(st->st_mode) || S_ISLNK(st->st_mode);
  put_text(path);
  printf("\t%c\t%04o\t%u\t%u\t", kind(st->st_mode), st->st_mode & 07777, st->st_uid, st->st_gid);
  if (has_size) printf("%lld\t", (long long)st->st_size);
  else fputs("-\t", stdout);
  if (is_folder) fputs("-\t", stdout);
  else printf("%llu\t", (unsigned long long)st->st_nlink);
  if (!is_folder && st->st_nlink > 1) put_text(first_path(st, path));
  else putchar('-');
  if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
    printf("\t%u:%u", major(st->st_rdev), minor(st->st_rdev));
  else fputs("\t-", stdout);
  printf("\t%lld.%09ld\t", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
  put_xattrs(full, path);
  putchar('\t');
  if (S_ISLNK(st->st_mode)) put_target(full, path, st->st_size);
  else putchar('-');
  putchar('\t');
  if (S_ISREG(st->st_mode) && hash_content) put_digest(full, path, st->st_size);
  else putchar('-');
  putchar('\n');
}

/* ---- the walk ---------------------------------------------------------------------------------- */

static char **names_of(const char *name, const char *path, size_t *count) {
  DIR *dir = opendir(name);
  if (dir == NULL) die("opendir", path);
  char **names = NULL;
  size_t room = 0;
  *count = 0;
  for (;;) {
    errno = 0;
    struct dirent *entry = readdir(dir);
    if (entry == NULL && errno != 0) die("readdir", path);
    if (entry == NULL) break;
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    if (*count == room) {
      room = room ? 2 * room : 64;
      names = realloc(names, room * sizeof *names);
      if (names == NULL) die("realloc", path);
    }
    names[*count] = strdup(entry->d_name);
    if (names[(*count)++] == NULL) die("strdup", path);
  }
  closedir(dir);
  if (*count > 0) qsort(names, *count, sizeof *names, by_bytes);
  return names;
}

/* The working folder is the one being walked: paths may be longer than PATH_MAX. */
static void walk(const char *path) {
  size_t count;
  char **names = names_of(".", path, &count);
  for (size_t i = 0; i < count; i++) {
    struct stat st;
    char *below = allocate(strlen(path) + strlen(names[i]) + 2);
    sprintf(below, "%s/%s", path, names[i]);
    if (lstat(names[i], &st) != 0) die("lstat", below);
    put_line(names[i], below, &st);
    if (S_ISDIR(st.st_mode)) {
      int above = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (above < 0 || chdir(names[i]) != 0) die("chdir", below);
      walk(below);
      if (fchdir(above) != 0) die("fchdir", below);
      close(above);
    }
    free(below);
    free(names[i]);
  }
  free(names);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "--no-content") == 0) {
    hash_content = 0;
    argv++;
    argc--;
  }
  if (argc != 2) {
    fprintf(stderr, "usage: tree-walk [--no-content] DIR\n");
    return 2;
  }
  struct stat st;
  setvbuf(stdout, NULL, _IOFBF, 1 << 16);
  if (chdir(argv[1]) != 0 || lstat(".", &st) != 0) die("chdir", argv[1]);
  put_line(".", ".", &st);
  walk(".");
  if (fflush(stdout) != 0) die("write", "standard output");
  return 0;
}
