/* How fast the transport alone is: reads /big of the double, served from 64 MiB of memory, and prints wall time, the CPU time of server and
 * reader, and the requests. Each line is one mount; the settings are taken in turn so that a busy machine disturbs all alike.
 *
 *   bench_fuse [GIB [ROUNDS]]
 *
 * As root. Before each run free memory is touched, since a virtual machine may have to get its pages back from the host first. */
#include "double.h"

#include "base/clock.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>

struct setting {
	unsigned read_ahead_kb;
	bool direct;
	size_t step;
	unsigned threads;
};

static double cpu_s(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void touch(size_t size)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return;
	for (size_t i = 0; i < size; i += 4096)
		((volatile char *)p)[i] = 1;
	munmap(p, size);
}

static int run(const struct setting *set, uint64_t size)
{
	struct cst_fuse_config config = {.fsname = "bench",
					 .subtype = "cistern",
					 .mount_flags = MS_RDONLY,
					 .memory = UINT64_C(512) << 20,
					 .read_ahead_kb = set->read_ahead_kb,
					 .threads = set->threads,
					 .readdirplus = true};
	struct double_server s = {0};
	double reader, server, children = cpu_s(RUSAGE_CHILDREN);
	uint64_t total = 0, reads, largest;
	int64_t begun;
	char path[160], *buf;
	ssize_t n;
	int fd;

	touch(size + (UINT64_C(512) << 20));
	if (double_prepare(&s) < 0)
		return 1;
	s.board->big_size = size;
	s.board->pattern_len = 64 << 20;
	s.board->direct_io = set->direct;
	if (double_start(&s, &config, 0) < 0) {
		fprintf(stderr, "%s\n", s.board->error);
		return 1;
	}
	snprintf(path, sizeof(path), "%s/big", s.mnt);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	buf = cst_xmalloc(set->step);
	memset(buf, 1, set->step);
	reader = cpu_s(RUSAGE_SELF);
	begun = cst_now();
	while ((n = read(fd, buf, set->step)) > 0)
		total += (uint64_t)n;
	begun = cst_now() - begun;
	reader = cpu_s(RUSAGE_SELF) - reader;
	close(fd);
	free(buf);
	reads = s.board->reads;
	largest = s.board->max_size;
	double_stop(&s);
	server = cpu_s(RUSAGE_CHILDREN) - children;
	printf("%-8s ra %6u KiB  read %5zu KiB  %u readers  %5.2f GB/s  server %.2f  reader %.2f  CPU s/GB  %6llu "
	       "requests  largest %llu KiB\n",
	       set->direct ? "direct" : "cached", set->read_ahead_kb, set->step >> 10, set->threads,
	       (double)total / (double)begun, server / ((double)total / 1e9), reader / ((double)total / 1e9),
	       (unsigned long long)reads, (unsigned long long)(largest >> 10));
	fflush(stdout);
	return total == size ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const struct setting settings[] = {
		{128, false, 1 << 20, 2},    {1024, false, 1 << 20, 2},	 {2048, false, 1 << 20, 2},
		{4096, false, 1 << 20, 2},   {16384, false, 1 << 20, 2}, {1024, false, 128 << 10, 2},
		{4096, false, 128 << 10, 2}, {4096, false, 1 << 20, 1},	 {0, true, 1 << 20, 2},
		{0, true, 4 << 20, 2},
	};
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 2) << 30;
	int rounds = argc > 2 ? atoi(argv[2]) : 3;

	for (int r = 0; r < rounds; r++)
		for (size_t i = 0; i < CST_ARRAY_LEN(settings); i++)
			if (run(&settings[i], size))
				return 1;
	return 0;
}
