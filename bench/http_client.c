/* CPU that the HTTP client needs, beside libcurl's multi interface in the same run against the same server:
 *
 *	http_client [SMALL-REQUESTS [GIGABYTES [RECEIVE-BUFFER]]]
 *
 * The server is a child process, so the figures are the client's alone (all its threads). Both keep 16 requests of 4 KiB, then
 * four of 8 MiB in flight, on kept connections, and receive into fixed memory. */
#include "net/http_client.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/tcp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "base/pool.h"

#define SMALL 4096
#define LARGE (8 << 20)
#define SMALL_AT_ONCE 16
#define LARGE_AT_ONCE 4

/* ---- the server ---- */

static char *content;
static int receive_buffer; /* of our sockets; 0: the default */

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char request[4096], head[128];
	size_t len = 0;

	for (;;) {
		ssize_t n = recv(fd, request + len, sizeof(request) - 1 - len, 0);
		size_t size;
		struct iovec iov[2];

		if (n <= 0)
			break;
		len += n;
		request[len] = '\0';
		if (!strstr(request, "\r\n\r\n"))
			continue;
		len = 0;
		size = strncmp(request, "GET /small ", 11) == 0 ? SMALL : LARGE;
		iov[0] = (struct iovec){
			head,
			snprintf(head, sizeof(head),
				 "HTTP/1.1 200 OK\r\nETag: \"0123456789abcdef\"\r\nContent-Length: %zu\r\n\r\n", size)};
		iov[1] = (struct iovec){content, size};
		while (iov[1].iov_len > 0) {
			n = writev(fd, iov, 2);
			if (n < 0)
				goto out;
			for (int i = 0; i < 2; i++) {
				size_t took = cst_min((size_t)n, iov[i].iov_len);

				iov[i].iov_base = (char *)iov[i].iov_base + took;
				iov[i].iov_len -= took;
				n -= took;
			}
		}
	}
out:
	close(fd);
	return NULL;
}

static pid_t start_server(uint16_t *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	pid_t pid;

	CST_ASSERT(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 128) == 0);
	CST_ASSERT(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*port = ntohs(address.sin_port);
	pid = fork();
	CST_ASSERT(pid >= 0);
	if (pid > 0) {
		close(fd);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	content = cst_xcalloc(1, LARGE);
	for (;;) {
		int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

		if (conn < 0)
			_exit(1);
		setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		CST_ASSERT(cst_thread_start(NULL, "serve", 0, serve, (void *)(intptr_t)conn) == 0);
	}
}

/* ---- figures ---- */

struct figures {
	double cpu, user, seconds;
	uint64_t requests, bytes;
};

static double user_now(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6;
}

static double cpu_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- ours ---- */

struct run {
	struct cst_http_client *client;
	struct cst_http_origin origin;
	const char *target;
	size_t size;
	int64_t left; /* to start; atomic */
	sem_t ended;
};

struct lane {
	struct run *run;
	struct iovec memory;
};

static void lane_next(struct lane *lane);

static void lane_done(void *arg, int rc, size_t received, const struct cst_error *err)
{
	struct lane *lane = arg;
	char text[CST_ERROR_TEXT_MAX];

	if (rc || received != lane->run->size) {
		fprintf(stderr, "failed: %s\n", cst_error_text(err, text, sizeof(text)));
		exit(1);
	}
	lane_next(lane);
}

static void lane_next(struct lane *lane)
{
	struct run *run = lane->run;

	if (__atomic_fetch_sub(&run->left, 1, __ATOMIC_RELAXED) <= 0) {
		sem_post(&run->ended);
		return;
	}
	cst_http_release(cst_http_start(run->client, &(struct cst_http_request){.origin = &run->origin,
										.method = "GET",
										.target = run->target,
										.into = &lane->memory,
										.into_count = 1,
										.on_done = lane_done,
										.arg = lane}));
}

static struct figures run_ours(uint16_t port, const char *target, size_t size, unsigned at_once, int64_t count)
{
	struct cst_http_client_config config = {.receive_buffer = receive_buffer};
	struct run run = {.target = target, .size = size, .left = count};
	struct lane lanes[SMALL_AT_ONCE];
	struct figures f = {.requests = count, .bytes = count * size};
	int64_t began = cst_now();

	f.cpu = cpu_now();
	f.user = user_now();
	run.client = cst_http_client_new(&config, NULL);
	CST_ASSERT(run.client);
	run.origin = (struct cst_http_origin){.host = "127.0.0.1", .port = port};
	sem_init(&run.ended, 0, 0);
	for (unsigned i = 0; i < at_once; i++) {
		lanes[i] = (struct lane){&run, {cst_xmalloc(size), size}};
		lane_next(&lanes[i]);
	}
	for (unsigned i = 0; i < at_once; i++)
		sem_wait(&run.ended);
	cst_http_client_free(run.client);
	f.cpu = cpu_now() - f.cpu;
	f.user = user_now() - f.user;
	f.seconds = (double)(cst_now() - began) / 1e9;
	for (unsigned i = 0; i < at_once; i++)
		free(lanes[i].memory.iov_base);
	return f;
}

/* ---- libcurl ---- */

struct sink {
	char *memory;
	size_t len, size;
};

static size_t sink_write(char *data, size_t size, size_t count, void *arg)
{
	struct sink *sink = arg;

	CST_ASSERT(sink->len + size * count <= sink->size);
	memcpy(sink->memory + sink->len, data, size * count);
	sink->len += size * count;
	return size * count;
}

static CURL *new_easy(const char *url, struct sink *sink)
{
	CURL *easy = curl_easy_init();

	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, sink_write);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, sink);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, sink);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 512L * 1024);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	return easy;
}

static struct figures run_curl(uint16_t port, const char *target, size_t size, unsigned at_once, int64_t count)
{
	struct figures f = {.requests = count, .bytes = count * size};
	int64_t began = cst_now(), left = count - at_once;
	struct sink sinks[SMALL_AT_ONCE];
	CURL *easies[SMALL_AT_ONCE];
	CURLM *multi = curl_multi_init();
	int running = 1, queued;
	char url[100];

	f.cpu = cpu_now();
	f.user = user_now();
	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", port, target);
	for (unsigned i = 0; i < at_once; i++) {
		sinks[i] = (struct sink){cst_xmalloc(size), 0, size};
		easies[i] = new_easy(url, &sinks[i]);
		curl_multi_add_handle(multi, easies[i]);
	}
	while (running) {
		CURLMsg *message;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &queued))) {
			CURL *easy = message->easy_handle;
			struct sink *sink;

			CST_ASSERT(message->data.result == CURLE_OK);
			curl_easy_getinfo(easy, CURLINFO_PRIVATE, &sink);
			CST_ASSERT(sink->len == size);
			sink->len = 0;
			curl_multi_remove_handle(multi, easy);
			if (left-- > 0) {
				curl_multi_add_handle(multi, easy);
				running = 1;
			}
		}
		if (running)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	for (unsigned i = 0; i < at_once; i++) {
		curl_easy_cleanup(easies[i]);
		free(sinks[i].memory);
	}
	curl_multi_cleanup(multi);
	f.cpu = cpu_now() - f.cpu;
	f.user = user_now() - f.user;
	f.seconds = (double)(cst_now() - began) / 1e9;
	return f;
}

static void print_small(const char *who, struct figures f)
{
	printf("small  %-8s %7.2f us CPU per GET (%.2f of it outside the kernel)   %8.0f GET/s\n", who,
	       f.cpu * 1e6 / (double)f.requests, f.user * 1e6 / (double)f.requests, (double)f.requests / f.seconds);
}

static void print_large(const char *who, struct figures f)
{
	printf("large  %-8s %7.3f s CPU per GB     %8.0f MB/s\n", who, f.cpu * 1e9 / (double)f.bytes,
	       (double)f.bytes / 1e6 / f.seconds);
}

int main(int argc, char **argv)
{
	int64_t small = argc > 1 ? atoll(argv[1]) : 100000;
	int64_t large = (argc > 2 ? atoll(argv[2]) : 8) * 125; /* of 8 MiB */
	struct figures ours, curl;
	uint16_t port;
	pid_t server;

	receive_buffer = argc > 3 ? atoi(argv[3]) : 0;
	setvbuf(stdout, NULL, _IOLBF, 0);
	server = start_server(&port);
	curl_global_init(CURL_GLOBAL_ALL);
	/* Both warm up, then run in turn. */
	run_ours(port, "/small", SMALL, SMALL_AT_ONCE, 1000);
	run_curl(port, "/small", SMALL, SMALL_AT_ONCE, 1000);
	ours = run_ours(port, "/small", SMALL, SMALL_AT_ONCE, small);
	curl = run_curl(port, "/small", SMALL, SMALL_AT_ONCE, small);
	print_small("cistern", ours);
	print_small("libcurl", curl);
	printf("small  ratio    %7.2f times less CPU than libcurl, %.2f times outside the kernel\n",
	       curl.cpu / ours.cpu, curl.user / ours.user);
	ours = run_ours(port, "/large", LARGE, LARGE_AT_ONCE, large);
	curl = run_curl(port, "/large", LARGE, LARGE_AT_ONCE, large);
	print_large("cistern", ours);
	print_large("libcurl", curl);
	printf("large  ratio    %7.2f times less CPU than libcurl\n", curl.cpu / ours.cpu);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	return 0;
}
