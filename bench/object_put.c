/* CPU that uploads of parts need, beside libcurl's multi interface in the same run against the same server:
 *
 *	object_put [GIGABYTES]
 *
 * The server is a child process, so the figures are the client's alone (all its threads). Each keeps four parts of 8 MiB in flight on kept
 * connections. libcurl sends the bytes and no more; ours signs, as OSS compares the CRC64 of the answer (known beforehand, or computed from the body) and as
 * S3 sends a CRC32C. */
#include "base/clock.h"
#include "base/digest.h"
#include "base/pool.h"
#include "object/write.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/tcp.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define PART ((size_t)8 << 20)
#define AT_ONCE 4

/* ---- the server: takes bodies and answers ---- */

static char *content;
static uint64_t crc64;

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char *in = cst_xmalloc(1 << 20);
	char answer[160];
	size_t len = 0, left = 0;
	int size = snprintf(answer, sizeof(answer),
			    "HTTP/1.1 200 OK\r\nETag: \"0123456789abcdef\"\r\nx-oss-hash-crc64ecma: %llu\r\n"
			    "Content-Length: 0\r\n\r\n",
			    (unsigned long long)crc64);
	for (;;) {
		ssize_t n = recv(fd, in + len, (1 << 20) - 1 - len, 0);
		if (n <= 0)
			break;
		if (left == 0) {
			len += (size_t)n;
			in[len] = '\0';
			char *end = strstr(in, "\r\n\r\n"), *length = strstr(in, "Content-Length: ");
			if (!end)
				continue;
			CST_ASSERT(length && length < end);
			left = strtoull(length + 16, NULL, 10);
			n = (ssize_t)len - (end + 4 - in);
			len = 0;
		}
		left -= (size_t)n;
		if (left == 0 && send(fd, answer, (size_t)size, 0) != size)
			break;
	}
	close(fd);
	free(in);
	return NULL;
}

static pid_t start_server(uint16_t *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	CST_ASSERT(bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 128) == 0);
	CST_ASSERT(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
	*port = ntohs(address.sin_port);
	pid_t pid = fork();
	CST_ASSERT(pid >= 0);
	if (pid > 0) {
		close(fd);
		return pid;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
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
	double cpu, seconds;
};

static double cpu_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void print(const char *who, int64_t parts, struct figures f)
{
	double bytes = (double)parts * PART;
	printf("%-24s %7.3f s CPU per GB  %8.0f MB/s\n", who, f.cpu * 1e9 / bytes, bytes / 1e6 / f.seconds);
}

/* ---- ours ---- */

struct run {
	struct cst_bucket *bucket;
	bool known;   /* the CRC64 is given */
	int64_t left; /* parts to begin; atomic */
	sem_t ended;
};

static void next(struct run *run);

static void on_part(void *arg, const struct cst_object_written *written)
{
	char text[CST_ERROR_TEXT_MAX];
	if (written->rc) {
		fprintf(stderr, "failed: %s\n", cst_error_text(written->err, text, sizeof(text)));
		exit(1);
	}
	next(arg);
}

static void next(struct run *run)
{
	struct iovec body = {content, PART};
	struct cst_object_part_put put = {
		.key = CST_SLICE("dir/object"),
		.upload_id = CST_SLICE("0123456789ABCDEF"),
		.number = 1,
		.body = {.iov = &body, .iov_count = 1, .length = PART, .crc64 = crc64, .has_crc64 = run->known}};
	if (__atomic_fetch_sub(&run->left, 1, __ATOMIC_RELAXED) <= 0)
		sem_post(&run->ended);
	else
		cst_object_release(cst_object_part_put(run->bucket, &put, on_part, run));
}

static struct figures run_ours(uint16_t port, enum cst_cloud cloud, bool known, int64_t parts)
{
	struct cst_error err = CST_ERROR_INIT;
	struct cst_http_client_config http = {0};
	struct cst_credentials_config keys = {.cloud = cloud, .access_key = "ak", .secret_key = "sk"};
	struct run run = {.known = known, .left = parts};
	struct figures f = {.cpu = cpu_now()};
	int64_t began = cst_now();
	char endpoint[64];
	snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", port);
	struct cst_bucket_config config = {.cloud = cloud,
					   .bucket = "bucket",
					   .endpoint = endpoint,
					   .region = "cn-hangzhou",
					   .credentials = cst_credentials_new(&keys, &err),
					   .http = cst_http_client_new(&http, &err)};
	run.bucket = cst_bucket_new(&config, &err);
	CST_ASSERT(run.bucket);
	sem_init(&run.ended, 0, 0);
	for (unsigned i = 0; i < AT_ONCE; i++)
		next(&run);
	for (unsigned i = 0; i < AT_ONCE; i++)
		sem_wait(&run.ended);
	cst_bucket_free(run.bucket);
	cst_http_client_free(config.http);
	cst_credentials_free(config.credentials);
	f.cpu = cpu_now() - f.cpu;
	f.seconds = (double)(cst_now() - began) / 1e9;
	return f;
}

/* ---- libcurl ---- */

static size_t source_read(char *to, size_t size, size_t count, void *arg)
{
	size_t *at = arg, n = cst_min(size * count, PART - *at);
	memcpy(to, content + *at, n);
	*at += n;
	return n;
}

static struct figures run_curl(uint16_t port, int64_t parts)
{
	int64_t began = cst_now(), left = parts - AT_ONCE;
	struct figures f = {.cpu = cpu_now()};
	CURLM *multi = curl_multi_init();
	CURL *easies[AT_ONCE];
	size_t at[AT_ONCE];
	int running = 1, queued;
	char url[100];
	snprintf(url, sizeof(url), "http://127.0.0.1:%u/bucket/dir/object", port);
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	for (unsigned i = 0; i < AT_ONCE; i++) {
		at[i] = 0;
		easies[i] = curl_easy_init();
		curl_easy_setopt(easies[i], CURLOPT_URL, url);
		curl_easy_setopt(easies[i], CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(easies[i], CURLOPT_INFILESIZE_LARGE, (curl_off_t)PART);
		curl_easy_setopt(easies[i], CURLOPT_READFUNCTION, source_read);
		curl_easy_setopt(easies[i], CURLOPT_READDATA, &at[i]);
		curl_easy_setopt(easies[i], CURLOPT_PRIVATE, &at[i]);
		curl_easy_setopt(easies[i], CURLOPT_UPLOAD_BUFFERSIZE, 2L << 20);
		curl_easy_setopt(easies[i], CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(easies[i], CURLOPT_NOSIGNAL, 1L);
		curl_easy_setopt(easies[i], CURLOPT_PROXY, "");
		curl_multi_add_handle(multi, easies[i]);
	}
	while (running) {
		CURLMsg *message;
		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &queued))) {
			CURL *easy = message->easy_handle;
			size_t *sent;
			CST_ASSERT(message->data.result == CURLE_OK);
			curl_easy_getinfo(easy, CURLINFO_PRIVATE, &sent);
			CST_ASSERT(*sent == PART);
			*sent = 0;
			curl_multi_remove_handle(multi, easy);
			if (left-- > 0) {
				curl_multi_add_handle(multi, easy);
				running = 1;
			}
		}
		if (running)
			curl_multi_poll(multi, NULL, 0, 1000, NULL);
	}
	for (unsigned i = 0; i < AT_ONCE; i++)
		curl_easy_cleanup(easies[i]);
	curl_multi_cleanup(multi);
	curl_slist_free_all(headers);
	f.cpu = cpu_now() - f.cpu;
	f.seconds = (double)(cst_now() - began) / 1e9;
	return f;
}

int main(int argc, char **argv)
{
	int64_t parts = cst_max((argc > 1 ? atoll(argv[1]) : 8) * 120, 8LL);
	uint16_t port;
	setvbuf(stdout, NULL, _IOLBF, 0);
	content = cst_xmalloc(PART);
	for (size_t i = 0; i < PART; i++)
		content[i] = (char)(i * 2654435761u >> 11);
	crc64 = cst_crc64(0, content, PART);
	pid_t server = start_server(&port);
	curl_global_init(CURL_GLOBAL_ALL);
	run_ours(port, CST_CLOUD_OSS, true, 16);
	run_curl(port, 16);
	print("libcurl, no checksum", parts, run_curl(port, parts));
	print("OSS, CRC64 known", parts, run_ours(port, CST_CLOUD_OSS, true, parts));
	print("OSS, CRC64 computed", parts, run_ours(port, CST_CLOUD_OSS, false, parts));
	print("S3, CRC32C computed", parts, run_ours(port, CST_CLOUD_S3, true, parts));
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	return 0;
}
