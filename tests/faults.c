// A failing disk: preloaded into a process, it spoils one of the writes to the files of one folder, or all from one on.
// Built and used by tests/faults.py. Below every library: SQLite, Python, torch and others write through these calls.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, KILL, EIO_ONCE, FULL, SHORT, FLIP };

static char root[PATH_MAX];
static size_t root_length;
static atomic_int kind;
static atomic_long calls, chosen;
static unsigned long where;

// From now on, call `number` (from 1) of those to files in `folder` is spoiled; `bit` is the one to flip, modulo the size.
void fault_arm(const char *folder, int what, long number, unsigned long bit) {
    root_length = (size_t)snprintf(root, sizeof root, "%s", folder);
    atomic_store(&calls, 0);
    atomic_store(&chosen, number);
    where = bit;
    atomic_store(&kind, what);
}

// The same for a program that cannot call it: FAULT="KIND CALL FOLDER" in the environment.
__attribute__((constructor)) static void arm_by_environment(void) {
    const char *text = getenv("FAULT");
    int what, used;
    long number;
    if (text && sscanf(text, "%d %ld %n", &what, &number, &used) == 2) fault_arm(text + used, what, number, 0);
}

// Calls to files in the folder so far.
long fault_calls(void) { return atomic_load(&calls); }

static int is_ours(const char *path) { return root_length && strncmp(path, root, root_length) == 0; }

static int is_our_file(int file) {
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = root_length ? readlink(link, path, sizeof path - 1) : -1;
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

// What is to happen with this call.
static enum kind spoiled(int is_write) {
    long number = atomic_fetch_add(&calls, 1) + 1;
    enum kind what = (enum kind)atomic_load(&kind);
    if (what == FULL) return is_write && number >= chosen ? FULL : NONE;
    if (number != chosen) return NONE;
    return is_write || what == KILL || what == EIO_ONCE ? what : NONE;
}

typedef ssize_t (*put)(int, const void *, size_t, off_t);

static ssize_t plain(int file, const void *data, size_t size, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t);
    (void)offset;
    if (!real) real = dlsym(RTLD_NEXT, "write");
    return real(file, data, size);
}

static ssize_t placed(int file, const void *data, size_t size, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    return real(file, data, size, offset);
}

static ssize_t spoil(put write_it, int file, const void *data, size_t size, off_t offset) {
    if (!size || !is_our_file(file)) return write_it(file, data, size, offset);
    switch (spoiled(1)) {
    case KILL:
        write_it(file, data, size / 2, offset);
        raise(SIGKILL);
        return -1;
    case EIO_ONCE:
        errno = EIO;
        return -1;
    case FULL:
        errno = ENOSPC;
        return -1;
    case SHORT:
        return write_it(file, data, size > 1 ? size / 2 : size, offset);
    case FLIP: {
        char *copy = malloc(size);
        memcpy(copy, data, size);
        copy[where / 8 % size] ^= (char)(1u << (where % 8));
        ssize_t written = write_it(file, copy, size, offset);
        free(copy);
        return written;
    }
    default:
        return write_it(file, data, size, offset);
    }
}

ssize_t write(int file, const void *data, size_t size) { return spoil(plain, file, data, size, 0); }
ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return spoil(placed, file, data, size, offset); }
ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    return spoil(placed, file, data, size, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    // A part of them may be written, as the call allows.
    return count > 0 && is_our_file(file) ? write(file, parts[0].iov_base, parts[0].iov_len) : real(file, parts, count);
}

// Calls that carry no data: they fail, or the process ends before them.
static int fails(int is_one) {
    enum kind what = is_one ? spoiled(0) : NONE;
    if (what == KILL) raise(SIGKILL);
    if (what == EIO_ONCE) errno = EIO;
    return what == EIO_ONCE;
}

#define PASS_ON(name, parameters, arguments, is_one)                                                                  \
    int name parameters {                                                                                              \
        static int(*real) parameters;                                                                                  \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                                                     \
        return fails(is_one) ? -1 : real arguments;                                                                    \
    }

PASS_ON(fsync, (int file), (file), is_our_file(file))
PASS_ON(fdatasync, (int file), (file), is_our_file(file))
PASS_ON(ftruncate, (int file, off_t size), (file, size), is_our_file(file))
PASS_ON(ftruncate64, (int file, off64_t size), (file, size), is_our_file(file))
PASS_ON(rename, (const char *from, const char *to), (from, to), is_ours(from))
PASS_ON(renameat, (int in, const char *from, int to_in, const char *to), (in, from, to_in, to), is_ours(from))
PASS_ON(unlink, (const char *path), (path), is_ours(path))
PASS_ON(mkdir, (const char *path, mode_t mode), (path, mode), is_ours(path))
