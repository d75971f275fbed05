/*
 * Compiled before tree-walk.c for the expected trees: overlayfs lists a whiteout that hides nothing
 * in a folder that is not merged, but nobody can open such a name (docs/equality.md).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/stat.h>

static struct dirent *openable(DIR *dir) {
  for (;;) {
    struct stat st;
    errno = 0;
    struct dirent *entry = readdir(dir);
    if (entry == NULL) return NULL;
    if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0) return entry;
    if (errno != ENOENT) return entry;
  }
}
#define readdir openable
#undef _GNU_SOURCE
