/* A disk that keeps what was synced, and nothing else. power.py says how it is used.
 *
 * Loaded before the C library (LD_PRELOAD), it takes the place of fsync and fdatasync for the files below
 * POWER_FOLDER: a synced file is copied into POWER_DISK, a synced folder has its names noted there. No other
 * write, no new name and no deleted one reaches POWER_DISK. It can also end the process itself: SIGKILL at the
 * POWER_SYNC-th sync of a file whose name ends with POWER_OF, in place of it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *disk, *folder, *ignored, *of;
static atomic_long syncs;

/* Also called by a copy of a process (fork) that has an environment of its own. */
__attribute__((constructor)) void read_environment(void) {
    disk = getenv("POWER_DISK");
    folder = getenv("POWER_FOLDER");
    ignored = getenv("POWER_IGNORED");
    of = getenv("POWER_OF");
    syncs = of ? atol(getenv("POWER_SYNC")) : 0;
}

static int ends(const char *text, const char *end) {
    size_t length = strlen(text), most = strlen(end);
    return length >= most && !strcmp(text + length - most, end);
}

/* The path of an open file; 0 if it is not below the folder. */
static int path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (!folder || length < 0) return 0;
    path[length] = 0;
    return !strncmp(path, folder, strlen(folder));
}

static void fail(const char *what) {
    perror(what);
    _exit(71);
}

static void note_names(const char *path, FILE *out) {
    DIR *names = opendir(path);
    if (!names) fail(path);
    for (struct dirent *one; (one = readdir(names));) {
        struct stat about;
        if (one->d_name[0] == '.' || fstatat(dirfd(names), one->d_name, &about, 0)) continue;
        fprintf(out, "%lu %s\n", (unsigned long)about.st_ino, one->d_name);
    }
    closedir(names);
}

static void copy(const char *path, int to, off_t size) {
    int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0) fail(path);
    while (size > 0) {
        ssize_t some = sendfile(to, from, NULL, size);
        if (some <= 0) fail(path);
        size -= some;
    }
    close(from);
}

/* What is synced now is on the disk at once or not at all: its copy gets its name when it is whole. */
static int keep(int file) {
    char path[PATH_MAX], part[PATH_MAX], whole[PATH_MAX];
    struct stat about;
    if (!disk || !path_of(file, path)) return 0;
    if (of && ends(path, of) && syncs-- == 1) kill(getpid(), SIGKILL);
    if ((ignored && ends(path, ignored)) || fstat(file, &about)) return 1;
    snprintf(part, sizeof part, "%s/part-%d", disk, gettid());
    snprintf(whole, sizeof whole, "%s/%lu", disk, (unsigned long)about.st_ino);
    FILE *out = fopen(part, "w");
    if (!out) fail(part);
    if (S_ISDIR(about.st_mode))
        note_names(path, out);
    else
        copy(path, fileno(out), about.st_size);
    if (fclose(out) || rename(part, whole)) fail(whole);
    return 1;
}

typedef int Sync(int);
#define NEXT(name) ((Sync *)dlsym(RTLD_NEXT, name))

int fsync(int file) { return keep(file) ? 0 : NEXT("fsync")(file); }

int fdatasync(int file) { return keep(file) ? 0 : NEXT("fdatasync")(file); }
