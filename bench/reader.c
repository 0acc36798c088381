/* The readers of the benchmarks, where Python would distort: each mode prints one line of JSON.
 *
 *	reader sequential FILE…            one after the other, reads of 1 MiB
 *	reader files THREADS LIST          the files named in LIST, a line each: open, read to the end, close
 *	reader first LIST                  one after the other: open and read one byte
 *	reader random FILE SIZE COUNT SEED COUNT reads of SIZE bytes at aligned places, one at a time
 *	reader together SECONDS LIST       a thread for each file, for that time: bytes of each
 *	reader tensors COPY|MAP FILE…      safetensors: the header, then each tensor in order, into memory of its own
 *	reader fetch THREADS ADDR PORT LIST  the limit: plain HTTP GETs over kept connections; lines of LIST are
 *	                                   "PATH OFFSET LENGTH" (LENGTH 0: the whole object)
 *
 * Latencies are in milliseconds; "cpu" is this process's own, all threads, in seconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BUFFER (1u << 20)
#define THREADS_MAX 1024

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "reader: %s: %s\n", what, errno ? strerror(errno) : "wrong");
	exit(1);
}

static double clock_s(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double now(void)
{
	return clock_s(CLOCK_MONOTONIC);
}

static void *need(void *memory)
{
	if (!memory)
		die("out of memory");
	return memory;
}

/* Memory that is there already, so that no page faults are timed. */
static char *buffer_new(void)
{
	char *buffer = need(aligned_alloc(4096, BUFFER));
	memset(buffer, 1, BUFFER);
	return buffer;
}

/* ---- lists ---- */

struct job {
	const char *path;
	uint64_t offset, length;
	double first, took; /* s from the start of the operation to its first byte, to its end */
	uint64_t bytes;
};

static struct job *jobs;
static size_t job_count, job_next; /* job_next: atomic */

static void jobs_read(const char *list, bool ranges)
{
	FILE *f = fopen(list, "r");
	char *line = NULL;
	size_t room = 0, cap = 0;
	ssize_t n;
	if (!f)
		die(list);
	while ((n = getline(&line, &room, f)) > 0) {
		struct job job = {0};
		if (line[n - 1] == '\n')
			line[--n] = '\0';
		if (ranges) {
			char *length = strrchr(line, ' ');
			if (!length)
				die(line);
			*length = '\0';
			char *offset = strrchr(line, ' ');
			if (!offset)
				die(line);
			*offset = '\0';
			job.offset = strtoull(offset + 1, NULL, 10);
			job.length = strtoull(length + 1, NULL, 10);
		}
		job.path = need(strdup(line));
		if (job_count == cap) {
			cap = cap ? 2 * cap : 256;
			jobs = need(realloc(jobs, cap * sizeof(*jobs)));
		}
		jobs[job_count++] = job;
	}
	free(line);
	fclose(f);
}

static struct job *job_take(void)
{
	size_t i = __atomic_fetch_add(&job_next, 1, __ATOMIC_RELAXED);
	return i < job_count ? &jobs[i] : NULL;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void print_latencies(const char *name, double *values, size_t count)
{
	if (count == 0)
		return;
	qsort(values, count, sizeof(*values), compare);
	printf(", \"%s\": {\"min\": %.3f, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"max\": %.3f}", name,
	       values[0] * 1e3, values[count / 2] * 1e3, values[count * 9 / 10] * 1e3, values[count * 99 / 100] * 1e3,
	       values[count - 1] * 1e3);
}

static void print_jobs(double seconds)
{
	double *first = need(calloc(job_count + 1, sizeof(*first))), *took = need(calloc(job_count + 1, sizeof(*took)));
	uint64_t bytes = 0;
	for (size_t i = 0; i < job_count; i++) {
		bytes += jobs[i].bytes;
		first[i] = jobs[i].first;
		took[i] = jobs[i].took;
	}
	printf("{\"seconds\": %.6f, \"cpu\": %.4f, \"count\": %zu, \"bytes\": %llu", seconds,
	       clock_s(CLOCK_PROCESS_CPUTIME_ID), job_count, (unsigned long long)bytes);
	print_latencies("first", first, job_count);
	print_latencies("took", took, job_count);
	printf("}\n");
}

static void threads_run(unsigned count, void *(*fn)(void *), void *arg)
{
	pthread_t threads[THREADS_MAX];
	if (count == 0 || count > THREADS_MAX)
		die("number of threads");
	double began = now();
	for (unsigned i = 0; i < count; i++)
		if ((errno = pthread_create(&threads[i], NULL, fn, arg)))
			die("thread");
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	print_jobs(now() - began);
}

/* ---- files ---- */

static void read_whole(struct job *job, char *buffer)
{
	double began = now();
	int fd = open(job->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(job->path);
	for (;;) {
		ssize_t n = read(fd, buffer, BUFFER);
		if (n < 0)
			die(job->path);
		if (job->bytes == 0)
			job->first = now() - began;
		if (n == 0)
			break;
		job->bytes += (uint64_t)n;
	}
	close(fd);
	job->took = now() - began;
}

static void *files_main(void *arg)
{
	char *buffer = buffer_new();
	struct job *job;
	(void)arg;
	while ((job = job_take()))
		read_whole(job, buffer);
	free(buffer);
	return NULL;
}

static void run_sequential(char **files, int count)
{
	jobs = need(calloc((size_t)count, sizeof(*jobs)));
	job_count = (size_t)count;
	for (int i = 0; i < count; i++)
		jobs[i].path = files[i];
	threads_run(1, files_main, NULL);
}

static void run_first(void)
{
	double start = now();
	for (size_t i = 0; i < job_count; i++) {
		char byte;
		double began = now();
		int fd = open(jobs[i].path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || pread(fd, &byte, 1, 0) != 1)
			die(jobs[i].path);
		jobs[i].first = jobs[i].took = now() - began;
		jobs[i].bytes = 1;
		close(fd);
	}
	print_jobs(now() - start);
}

static void run_random(const char *path, size_t size, size_t count, uint64_t seed)
{
	char *buffer = need(aligned_alloc(4096, size));
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		die(path);
	memset(buffer, 1, size);
	jobs = need(calloc(count, sizeof(*jobs)));
	job_count = count;
	double start = now();
	for (size_t i = 0; i < count; i++) {
		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		off_t at = (off_t)((seed >> 20) % ((uint64_t)st.st_size / size) * size);
		double began = now();
		if (pread(fd, buffer, size, at) != (ssize_t)size)
			die(path);
		jobs[i].first = jobs[i].took = now() - began;
		jobs[i].bytes = size;
	}
	print_jobs(now() - start);
	close(fd);
}

static double until;

static void *together_main(void *arg)
{
	char *buffer = buffer_new();
	struct job *job = job_take();
	(void)arg;
	if (!job)
		return NULL;
	int fd = open(job->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die(job->path);
	while (now() < until) {
		ssize_t n = read(fd, buffer, BUFFER);
		if (n < 0)
			die(job->path);
		if (n == 0)
			break;
		job->bytes += (uint64_t)n;
	}
	close(fd);
	free(buffer);
	return NULL;
}

static int compare_bytes(const void *a, const void *b)
{
	const struct job *x = a, *y = b;
	return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static void run_together(double seconds)
{
	pthread_t threads[THREADS_MAX];
	uint64_t total = 0;
	if (job_count == 0 || job_count > THREADS_MAX)
		die("number of files");
	double began = now();
	until = began + seconds;
	for (size_t i = 0; i < job_count; i++)
		if ((errno = pthread_create(&threads[i], NULL, together_main, NULL)))
			die("thread");
	for (size_t i = 0; i < job_count; i++)
		pthread_join(threads[i], NULL);
	double took = now() - began;
	qsort(jobs, job_count, sizeof(*jobs), compare_bytes);
	for (size_t i = 0; i < job_count; i++)
		total += jobs[i].bytes;
	printf("{\"seconds\": %.6f, \"cpu\": %.4f, \"count\": %zu, \"bytes\": %llu, \"least\": %llu, \"median\": %llu, \"most\": %llu}\n",
	       took, clock_s(CLOCK_PROCESS_CPUTIME_ID), job_count, (unsigned long long)total,
	       (unsigned long long)jobs[0].bytes, (unsigned long long)jobs[job_count / 2].bytes,
	       (unsigned long long)jobs[job_count - 1].bytes);
}

/* ---- safetensors: 8 bytes of length, that much JSON, then the tensors ---- */

static void read_fully(int fd, char *into, size_t size, off_t at)
{
	while (size > 0) {
		ssize_t n = pread(fd, into, size < BUFFER * 16 ? size : BUFFER * 16, at);
		if (n <= 0)
			die("read");
		into += n;
		size -= (size_t)n;
		at += n;
	}
}

static void tensors_of(struct job *job, bool mapped)
{
	static const char mark[] = "\"data_offsets\":[";
	struct stat st;
	uint64_t header;
	double began = now();
	int fd = open(job->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		die(job->path);
	char *map = mapped ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0) : NULL;
	if (map == MAP_FAILED)
		die(job->path);
	if (mapped)
		memcpy(&header, map, 8);
	else
		read_fully(fd, (char *)&header, 8, 0);
	job->first = now() - began;
	if (header > (uint64_t)st.st_size - 8)
		die("header");
	char *json = need(malloc(header + 1));
	if (mapped)
		memcpy(json, map + 8, header);
	else
		read_fully(fd, json, header, 8);
	json[header] = '\0';
	job->bytes = 8 + header;
	for (char *at = json; (at = strstr(at, mark));) {
		uint64_t from = strtoull(at + sizeof(mark) - 1, &at, 10);
		uint64_t to = strtoull(at + 1, &at, 10);
		if (to < from || to > (uint64_t)st.st_size - 8 - header)
			die("offsets");
		char *tensor = need(malloc(to - from + 1));
		if (mapped)
			memcpy(tensor, map + 8 + header + from, to - from);
		else
			read_fully(fd, tensor, to - from, (off_t)(8 + header + from));
		job->bytes += to - from;
		__asm__ volatile(""
				 :
				 : "r"(tensor)
				 : "memory"); /* else the copy is seen to be of no use, and left out */
		free(tensor);
	}
	free(json);
	if (mapped)
		munmap(map, (size_t)st.st_size);
	close(fd);
	job->took = now() - began;
}

static void run_tensors(bool mapped, char **files, int count)
{
	jobs = need(calloc((size_t)count, sizeof(*jobs)));
	job_count = (size_t)count;
	double began = now();
	for (int i = 0; i < count; i++) {
		jobs[i].path = files[i];
		tensors_of(&jobs[i], mapped);
	}
	print_jobs(now() - began);
}

/* ---- plain HTTP ---- */

static struct sockaddr_in server;

static int http_connect(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)) < 0)
		die("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static uint64_t head_length(const char *head)
{
	const char *at = strcasestr(head, "\r\ncontent-length:");
	if (strncmp(head, "HTTP/1.1 20", 11) != 0 || !at)
		die(head);
	return strtoull(at + 17, NULL, 10);
}

static void http_get(int fd, struct job *job, char *buffer)
{
	char request[4096], range[96] = "";
	double began = now();
	size_t len = 0;
	char *end = NULL;
	if (job->length)
		snprintf(range, sizeof(range), "Range: bytes=%llu-%llu\r\n", (unsigned long long)job->offset,
			 (unsigned long long)(job->offset + job->length - 1));
	int n = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n", job->path, range);
	if (n >= (int)sizeof(request) || send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
		die("send");
	while (!end) {
		ssize_t got = recv(fd, buffer + len, BUFFER - 1 - len, 0);
		if (got <= 0)
			die("answer");
		len += (size_t)got;
		buffer[len] = '\0';
		end = strstr(buffer, "\r\n\r\n");
	}
	*end = '\0';
	uint64_t body = head_length(buffer), got = len - (size_t)(end + 4 - buffer);
	job->first = now() - began;
	while (got < body) {
		uint64_t left = body - got;
		ssize_t more = recv(fd, buffer, left < BUFFER ? left : BUFFER, 0);
		if (more <= 0)
			die("body");
		got += (uint64_t)more;
	}
	job->bytes = got;
	job->took = now() - began;
}

static void *fetch_main(void *arg)
{
	char *buffer = buffer_new();
	struct job *job;
	int fd = http_connect();
	(void)arg;
	while ((job = job_take()))
		http_get(fd, job, buffer);
	close(fd);
	free(buffer);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	if (strcmp(mode, "sequential") == 0 && argc > 2) {
		run_sequential(argv + 2, argc - 2);
	} else if (strcmp(mode, "files") == 0 && argc == 4) {
		jobs_read(argv[3], false);
		threads_run((unsigned)atoi(argv[2]), files_main, NULL);
	} else if (strcmp(mode, "first") == 0 && argc == 3) {
		jobs_read(argv[2], false);
		run_first();
	} else if (strcmp(mode, "random") == 0 && argc == 6) {
		run_random(argv[2], strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10),
			   strtoull(argv[5], NULL, 10));
	} else if (strcmp(mode, "together") == 0 && argc == 4) {
		jobs_read(argv[3], false);
		run_together(atof(argv[2]));
	} else if (strcmp(mode, "tensors") == 0 && argc > 3) {
		run_tensors(strcmp(argv[2], "MAP") == 0, argv + 3, argc - 3);
	} else if (strcmp(mode, "fetch") == 0 && argc == 6) {
		server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[4]))};
		if (inet_pton(AF_INET, argv[3], &server.sin_addr) != 1)
			die(argv[3]);
		jobs_read(argv[5], true);
		threads_run((unsigned)atoi(argv[2]), fetch_main, NULL);
	} else {
		fprintf(stderr,
			"usage: reader sequential|files|first|random|together|tensors|fetch …; see the top of bench/reader.c\n");
		return 2;
	}
	return 0;
}
