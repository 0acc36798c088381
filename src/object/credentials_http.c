/* The cold HTTP client of the credential providers: libcurl, one request at a time, answers in secret memory. */
#include "object/credentials_internal.h"

#include "base/clock.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>

#define TIMEOUT_MS 5000
#define CONNECT_TIMEOUT_MS 3000
/* Metadata services are one hop away: whoever doesn't answer at once isn't there (the machine is no ECS instance). */
#define CONNECT_TIMEOUT_DIRECT_MS 1000

struct transfer {
	const struct cst_cred_call *call;
	struct cst_secret_buf *answer;
	bool too_big;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_start(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
	struct transfer *t = arg;
	if (cst_secret_buf_add(t->answer, data, size * count) < 0) {
		t->too_big = true;
		return 0;
	}
	return size * count;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	(void)a, (void)b, (void)c, (void)d;
	const struct transfer *t = arg;
	return cst_cred_stopped(t->call) ? 1 : 0;
}

const char *cst_cred_url_shown(const char *url, char *out, size_t size)
{
	const char *host = strstr(url, "://");
	host = host ? host + 3 : url;
	size_t len = strcspn(host, "?#");
	size_t authority = strcspn(host, "/?#");
	for (size_t i = authority; i > 0; i--)
		if (host[i - 1] == '@') {
			snprintf(out, size, "%.*s%.*s", (int)(host - url), url, (int)(len - i), host + i);
			return out;
		}
	snprintf(out, size, "%.*s", (int)((size_t)(host - url) + len), url);
	return out;
}

static int failed(struct cst_error *err, const char *url, const struct transfer *t, CURLcode code, const char *text)
{
	int number = EIO;
	if (t->call->stop && __atomic_load_n(t->call->stop, __ATOMIC_ACQUIRE))
		number = ECANCELED;
	else if (code == CURLE_OPERATION_TIMEDOUT || code == CURLE_ABORTED_BY_CALLBACK)
		number = ETIMEDOUT;
	else if (code == CURLE_COULDNT_CONNECT)
		number = ECONNREFUSED;
	else if (code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY)
		number = EHOSTUNREACH;
	else if (code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL)
		number = EINVAL;
	char shown[200];
	cst_error_set(err, number, "can't get credentials from %s", cst_cred_url_shown(url, shown, sizeof(shown)));
	if (t->too_big)
		cst_error_why(err, "the answer is larger than %d bytes", CST_SECRET_SOURCE_MAX);
	else if (code == CURLE_ABORTED_BY_CALLBACK)
		cst_error_why(err, "no answer in time");
	else
		cst_error_why(err, "%s", text[0] ? text : curl_easy_strerror(code));
	return -number;
}

static long time_left_ms(const struct cst_cred_call *call)
{
	int64_t left = (call->deadline - cst_now()) / CST_NS_PER_MS;
	return (long)cst_max(cst_min(left, (int64_t)TIMEOUT_MS), (int64_t)1);
}

static void set_options(CURL *curl, const struct cst_cred_http *req, struct transfer *t)
{
	curl_easy_setopt(curl, CURLOPT_URL, req->url);
	curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, req->method);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, time_left_ms(t->call));
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(req->direct ? CONNECT_TIMEOUT_DIRECT_MS : CONNECT_TIMEOUT_MS));
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "cistern/" CST_VERSION);
	if (req->direct)
		curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	if (req->ca_file)
		curl_easy_setopt(curl, CURLOPT_CAINFO, req->ca_file);
	/* A body of zero bytes for PUT: curl would leave Content-Length out, which some services refuse. */
	if (req->body.len > 0 || strcmp(req->method, "GET") != 0) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body.len);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, req->body.data ? req->body.data : "");
	}
}

int cst_cred_http(const struct cst_cred_call *call, const struct cst_cred_http *req, struct cst_secret_buf *answer,
		  long *status, struct cst_error *err)
{
	char text[CURL_ERROR_SIZE] = "";
	struct transfer t = {.call = call, .answer = answer};
	pthread_once(&curl_once, curl_start);
	cst_secret_buf_clear(answer);
	CURL *curl = curl_easy_init();
	if (!curl)
		cst_panic(__FILE__, __LINE__, "out of memory");
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	for (size_t i = 0; req->headers && req->headers[i]; i++)
		headers = curl_slist_append(headers, req->headers[i]);
	if (req->body.len == 0)
		headers = curl_slist_append(headers, "Content-Type:");
	set_options(curl, req, &t);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, text);
	CURLcode code = curl_easy_perform(curl);
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
	curl_easy_cleanup(curl);
	curl_slist_free_all(headers);
	return code == CURLE_OK ? 0 : failed(err, req->url, &t, code, text);
}
