// Preloaded into a process, kills it just before or just after the n-th call that changes files in a folder.
// Files "-shm" do not count: SQLite makes them anew after a kill.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char folder[4096], log_path[4096], wanted[256];
static atomic_int calls;
static int stop, is_after;

void stop_at(const char *under, const char *line, int number, int after, const char *log) {
  snprintf(wanted, sizeof wanted, "%s", line);
  snprintf(log_path, sizeof log_path, "%s", log);
  calls = 0, stop = number, is_after = after;
  snprintf(folder, sizeof folder, "%s", under);
}

static int meet(const char *name, const char *path) {
  if (!folder[0] || strncmp(path, folder, strlen(folder)) || strstr(path, "-shm")) return 0;
  char said[4200];
  snprintf(said, sizeof said, "%s %s", name, path + strlen(folder));
  if (!strstr(said, wanted)) return 0;
  int number = ++calls;
  if (log_path[0]) {
    char line[4200];
    int size = snprintf(line, sizeof line, "%s\n", said);
    int file = syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    syscall(SYS_write, file, line, size);
    syscall(SYS_close, file);
  }
  if (number == stop && !is_after) kill(getpid(), SIGKILL);
  return number == stop;
}

static int meet_file(const char *name, int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return meet(name, path);
}

#define CALL(type, name, given, passed, met)                                \
  type name given {                                                         \
    static type(*real) given;                                               \
    if (!real) real = (type(*) given)dlsym(RTLD_NEXT, #name);               \
    int hit = met;                                                          \
    type result = real passed;                                              \
    if (hit) kill(getpid(), SIGKILL);                                       \
    return result;                                                          \
  }

CALL(int, fsync, (int f), (f), meet_file("fsync", f))
CALL(int, fdatasync, (int f), (f), meet_file("fdatasync", f))
CALL(ssize_t, write, (int f, const void *d, size_t n), (f, d, n), meet_file("write", f))
CALL(ssize_t, pwrite, (int f, const void *d, size_t n, off_t at), (f, d, n, at), meet_file("pwrite", f))
CALL(ssize_t, pwrite64, (int f, const void *d, size_t n, off64_t at), (f, d, n, at), meet_file("pwrite", f))
CALL(int, ftruncate, (int f, off_t n), (f, n), meet_file("ftruncate", f))
CALL(int, ftruncate64, (int f, off64_t n), (f, n), meet_file("ftruncate", f))
CALL(int, truncate, (const char *p, off_t n), (p, n), meet("truncate", p))
CALL(int, truncate64, (const char *p, off64_t n), (p, n), meet("truncate", p))
CALL(int, rename, (const char *p, const char *q), (p, q), meet("rename", q))
CALL(int, renameat, (int f, const char *p, int g, const char *q), (f, p, g, q), meet("rename", q))
CALL(int, unlink, (const char *p), (p), meet("unlink", p))
CALL(int, unlinkat, (int f, const char *p, int flags), (f, p, flags), meet("unlink", p))
