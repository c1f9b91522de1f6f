/* SPDX-License-Identifier: Apache-2.0
 *
 * pid 1 of the tests' guest.  ../console.py reads what it says on the serial
 * console: a word, then JSON or a number, on one line.
 *
 *   GUEST-MARKER {...}        once, when it is up: its disks, boots so far,
 *                             the last counter that the root disk holds
 *   GUEST-DISKS {...}         whenever the disks have changed since
 *   GUEST-CONFIG-DRIVE {...}  once: uuid and name from it, or null
 *   GUEST-COUNTER n           n and all before it are safe on the root disk
 *   GUEST-COUNTER-ERROR n     writing n failed
 *   GUEST-FAILED text         no root disk was found
 *   GUEST-POWEROFF            it was asked to go down: see shutdown
 *
 * This is a program and not a script because the guests are emulated: a shell
 * that starts a program for each number keeps a fifth of a core busy.
 */

#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECTOR 512
#define RING_SECTORS 2048 /* of partition 3: sector n % RING_SECTORS holds n */
#define ANNOUNCE_EVERY 20
#define COUNT_PAUSE_MS 50
#define LOOK_PAUSE_MS 500
#define FIND_PAUSE_MS 20
#define FIND_ROOT_TRIES 500 /* 10 s */
#define FIND_DRIVE_TRIES 250 /* 5 s */
#define MAX_DISKS 32
#define AGENT "/root/agent/"
#define DRIVE "/config/openstack/latest/"

typedef struct {
    char name[16];
    long long sectors;
} Disk;

typedef struct {
    int count;
    Disk disks[MAX_DISKS];
} Disks;

typedef struct {
    char type[8]; /* "" if nothing known was found */
    char label[33];
} FileSystem;

/* -- files and programs --------------------------------------------------- */

static void sleep_ms(int ms) { usleep(ms * 1000); }

/* Read the text of a small file; "" if there is none. */
static char *text_of(const char *path)
{
    static char text[64 * 1024];
    int file = open(path, O_RDONLY);
    ssize_t length = read(file, text, sizeof(text) - 1);
    text[length > 0 ? length : 0] = '\0';
    close(file);
    return text;
}

static void write_text(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (write(file, text, strlen(text)) < 0)
        perror(path);
    close(file);
}

/* Start a program; return its pid. */
static pid_t start(char *const words[])
{
    pid_t child = fork();
    if (child == 0) {
        execv(words[0], words);
        _exit(127);
    }
    return child;
}

/* Load the modules whose paths are the lines of a file. */
static void load_modules(const char *list)
{
    char path[128];
    FILE *lines = fopen(list, "r");
    while (lines && fscanf(lines, "%127s", path) == 1) {
        int module = open(path, O_RDONLY);
        syscall(SYS_finit_module, module, "", 0);
        close(module);
    }
    if (lines)
        fclose(lines);
}

/* -- what is on the disks ------------------------------------------------- */

static Disks find_disks(void)
{
    Disks found = {0};
    DIR *folder = opendir("/sys/block");
    for (struct dirent *entry; (entry = readdir(folder));) {
        char file[300];
        snprintf(file, sizeof(file), "/sys/block/%s/size", entry->d_name);
        const char *size = text_of(file);
        /* A disk may be unplugged in the middle of it. */
        if (!strchr("vs", entry->d_name[0]) || !*size ||
            found.count == MAX_DISKS)
            continue;
        Disk *disk = &found.disks[found.count++];
        snprintf(disk->name, sizeof(disk->name), "%.15s", entry->d_name);
        disk->sectors = atoll(size);
    }
    closedir(folder);
    return found;
}

static FileSystem named(const char *type, const char *label, int length)
{
    FileSystem found = {0};
    snprintf(found.type, sizeof(found.type), "%s", type);
    snprintf(found.label, sizeof(found.label), "%.*s", length, label);
    for (size_t n = strlen(found.label); n && found.label[n - 1] == ' '; n--)
        found.label[n - 1] = '\0';
    return found;
}

/* Tell what a disk or a partition holds as a whole. */
static FileSystem file_system(const char *name)
{
    static char data[34 * 1024];
    char path[64];
    snprintf(path, sizeof(path), "/dev/%s", name);
    int disk = open(path, O_RDONLY);
    memset(data, 0, sizeof(data));
    ssize_t length = pread(disk, data, sizeof(data), 0);
    close(disk);
    if (length < 0)
        return named("", "", 0);
    if (!memcmp(data + 4086, "SWAPSPACE2", 10))
        return named("swap", data + 1052, 16);
    if (!memcmp(data + 1080, "\x53\xef", 2))
        return named("ext4", data + 1144, 16);
    if (!memcmp(data + 82, "FAT32", 5))
        return named("vfat", data + 71, 11);
    if (!memcmp(data + 54, "FAT1", 4))
        return named("vfat", data + 43, 11);
    if (!memcmp(data + 32769, "CD001", 5))
        return named("iso9660", data + 32808, 32);
    return named("", "", 0);
}

/* Print {"vda": {"bytes": 1073741824, "type": "", "label": ""}, ...} */
static void print_disks(const Disks *disks)
{
    putchar('{');
    for (int i = 0; i < disks->count; i++) {
        const Disk *disk = &disks->disks[i];
        FileSystem found = file_system(disk->name);
        printf("%s\"%s\": {\"bytes\": %lld, \"type\": \"%s\", "
               "\"label\": \"%s\"}", i ? ", " : "", disk->name,
               disk->sectors * SECTOR, found.type, found.label);
    }
    putchar('}');
}

/* Return the disk that the guest was booted from, or NULL.
 *
 * That is the first in boot order: a rescued guest sees its own root disk as
 * a second one. */
static const char *find_root(void)
{
    static const char *const names[] = {"vda", "sda", "vdb",
                                        "sdb", "vdc", "sdc"};
    for (int i = 0; i < 6; i++) {
        char partition[8];
        snprintf(partition, sizeof(partition), "%s2", names[i]);
        if (!strcmp(file_system(partition).label, "guest-root"))
            return names[i];
    }
    return NULL;
}

/* -- the counter ---------------------------------------------------------- */

static char ring[RING_SECTORS][SECTOR] __attribute__((aligned(4096)));

/* Return the highest number in the ring.
 *
 * Also count the numbers below it that are not there, as far as the ring
 * reaches back.  Lost writes show as such. */
static long read_ring(int disk, long *missing)
{
    long numbers[RING_SECTORS] = {0}, last = 0;
    if (pread(disk, ring, sizeof(ring), 0) != sizeof(ring))
        perror("the counter's partition");
    for (int i = 0; i < RING_SECTORS; i++) {
        sscanf(ring[i], "COUNTER %ld", &numbers[i]);
        if (numbers[i] > last)
            last = numbers[i];
    }
    *missing = 0;
    for (long n = last; n > 0 && n > last - RING_SECTORS; n--)
        *missing += numbers[n % RING_SECTORS] != n;
    return last;
}

static void count(int disk, long n)
{
    char *sector = ring[0];
    for (;; sleep_ms(COUNT_PAUSE_MS)) {
        n++;
        int length = sprintf(sector, "COUNTER %ld", n);
        memset(sector + length, ' ', SECTOR - length);
        sector[SECTOR - 1] = '\n';
        off_t place = n % RING_SECTORS * SECTOR;
        if (pwrite(disk, sector, SECTOR, place) != SECTOR || fsync(disk))
            printf("GUEST-COUNTER-ERROR %ld\n", n);
        else if (n % ANNOUNCE_EVERY == 0)
            printf("GUEST-COUNTER %ld\n", n);
    }
}

/* -- what comes and goes -------------------------------------------------- */

/* Start the guest agent once its port is there; return whether it was. */
static int start_agent(void)
{
    int found = 0;
    DIR *ports = opendir("/sys/class/virtio-ports");
    for (struct dirent *port; ports && !found && (port = readdir(ports));) {
        char path[300];
        snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name",
                 port->d_name);
        if (strcmp(text_of(path), "org.qemu.guest_agent.0\n"))
            continue;
        snprintf(path, sizeof(path), "/dev/%s", port->d_name);
        start((char *[]){AGENT "ld.so", "--library-path", AGENT,
                         AGENT "qemu-ga", "-m", "virtio-serial", "-p", path,
                         "-t", "/run", "-f", "/run/agent.pid", "-l",
                         "/run/agent.log", NULL});
        found = 1;
    }
    if (ports)
        closedir(ports);
    return found;
}

static void watch(Disks known)
{
    for (int agent = 0;; sleep_ms(LOOK_PAUSE_MS)) {
        Disks now = find_disks();
        if (memcmp(&now, &known, sizeof(now))) {
            printf("GUEST-DISKS ");
            print_disks(&now);
            putchar('\n');
            known = now;
        }
        agent = agent || start_agent();
    }
}

/* -- the config drive ----------------------------------------------------- */

static int mount_config_drive(void)
{
    Disks disks = find_disks();
    for (int i = 0; i < disks.count; i++) {
        const char *name = disks.disks[i].name;
        FileSystem found = file_system(name);
        char path[64];
        snprintf(path, sizeof(path), "/dev/%s", name);
        if (!strcasecmp(found.label, "config-2") &&
            mount(path, "/config", found.type, MS_RDONLY, "") == 0)
            return 1;
    }
    return 0;
}

/* Print the string that the config drive's metadata gives for a key. */
static void print_metadata(const char *key)
{
    char pattern[32];
    snprintf(pattern, sizeof(pattern), "\"%s\": \"", key);
    const char *at = text_of(DRIVE "meta_data.json"), *value = NULL;
    while ((at = strstr(at, pattern)))
        value = at += strlen(pattern);
    printf("\"%s\": \"%.*s\"", key, value ? (int)strcspn(value, "\"") : 0,
           value ? value : "");
}

static void read_config_drive(void)
{
    int mounted, tries = FIND_DRIVE_TRIES;
    while (!(mounted = mount_config_drive()) && --tries)
        sleep_ms(FIND_PAUSE_MS);
    if (!mounted) {
        printf("GUEST-CONFIG-DRIVE null\n");
        return;
    }
    printf("GUEST-CONFIG-DRIVE {");
    print_metadata("uuid");
    printf(", ");
    print_metadata("name");
    printf("}\n");
    if (!strncmp(text_of(DRIVE "user_data"), "#!/bin/sh", 9))
        start((char *[]){"/bin/sh", DRIVE "user_data", NULL});
}

/* -- start ---------------------------------------------------------------- */

static void open_console(void)
{
    int null = open("/dev/null", O_RDONLY);
    int console = open("/dev/ttyS0", O_WRONLY);
    dup2(null, 0);
    dup2(console, 1);
    dup2(console, 2);
    /* Several processes write here: each line in one piece. */
    setvbuf(stdout, NULL, _IOLBF, 16 * 1024);
    write_text("/proc/sys/kernel/printk", "0");
}

/* Mount the root file system; return how often it was, now included. */
static int count_boots(const char *root)
{
    char path[16], text[16];
    snprintf(path, sizeof(path), "/dev/%s2", root);
    if (mount(path, "/root", "ext4", 0, "discard"))
        perror(path);
    int boots = atoi(text_of("/root/boots")) + 1;
    snprintf(text, sizeof(text), "%d\n", boots);
    write_text("/root/boots", text);
    sync();
    return boots;
}

static void come_up(const char *root)
{
    char path[16];
    long missing;
    int boots = count_boots(root);
    snprintf(path, sizeof(path), "/dev/%s3", root);
    int disk = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    long counter = read_ring(disk, &missing);
    Disks disks = find_disks();
    printf("\nGUEST-MARKER {\"boots\": %d, \"counter\": %ld, "
           "\"missing\": %ld, \"root\": \"%s\", \"disks\": ", boots, counter,
           missing, root);
    print_disks(&disks);
    printf("}\n");
    if (fork() == 0)
        count(disk, counter);
    close(disk);
    if (fork() == 0)
        watch(disks);
}

int main(void)
{
    mount("dev", "/dev", "devtmpfs", 0, "");
    mount("proc", "/proc", "proc", 0, "");
    mount("sys", "/sys", "sysfs", 0, "");
    mount("run", "/run", "tmpfs", 0, "");
    setenv("PATH", "/bin", 1);
    open_console();
    load_modules("/modules/first");

    const char *root;
    int tries = FIND_ROOT_TRIES;
    while (!(root = find_root()) && --tries)
        sleep_ms(FIND_PAUSE_MS);
    if (root) {
        come_up(root);
    } else {
        Disks disks = find_disks();
        printf("GUEST-FAILED no root disk ");
        print_disks(&disks);
        putchar('\n');
    }

    load_modules("/modules/later");
    waitpid(start((char *[]){"/bin/busybox", "--install", "-s", "/bin",
                             NULL}), NULL, 0);
    start((char *[]){"/bin/busybox", "acpid", "-d", "-c", "/etc/acpi", "-l",
                     "/dev/null", NULL});
    read_config_drive();
    for (;;)
        if (wait(NULL) < 0)
            sleep_ms(1000);
}
