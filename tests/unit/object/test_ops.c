/* HEAD, listings, symlinks, credentials, clocks, throttling, and the words of the check before a mount. */
#include "bucket_fixture.h"

#include "base/clock.h"
#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <cmocka.h>

static struct cst_credentials *keys(enum cst_cloud cloud, const char *ak)
{
	struct cst_credentials_config c = {.cloud = cloud, .access_key = ak, .secret_key = "sEcReTvAlUe"};
	struct cst_credentials *made = cst_credentials_new(&c, NULL);
	assert_non_null(made);
	return made;
}

/* ---- HEAD ---- */

static enum scripted_end head_answer(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)request;
	if (n == 0)
		cst_buf_add_str(
			out,
			"HTTP/1.1 200 OK\r\nETag: W/\"abc\"\r\nContent-Length: 12345678901\r\nContent-Type: a/b\r\n"
			"x-oss-meta-UID: 1000\r\nX-Oss-Meta-name: %E4=?utf\r\nx-oss-metal: no\r\nx-oss-object-type: Symlink\r\n"
			"x-oss-storage-class: Archive\r\nx-oss-restore: ongoing-request=\"true\"\r\n"
			"x-oss-hash-crc64ecma: 18446744073709551615\r\nLast-Modified: Sat, 16 Dec 2023 16:20:57 GMT\r\n\r\n");
	else
		cst_buf_add_str(out, "HTTP/1.1 200 OK\r\nETag: \"abc\"\r\nContent-Length: 5\r\n\r\n");
	return SCRIPTED_KEEP;
}

static void head(void **state)
{
	(void)state;
	struct fixture f;
	struct outcome o;
	fixture_start(&f, head_answer, NULL, NULL);
	assert_int_equal(fixture_head(&f, false, &o), 0);
	assert_true(o.info.size == 12345678901);
	assert_string_equal(o.info.etag, "abc");
	assert_int_equal(o.info.type, CST_OBJECT_SYMLINK);
	assert_string_equal(o.info.storage_class, "Archive");
	assert_true(o.info.restoring_or_restored);
	assert_true(o.info.has_crc64 && o.info.crc64 == UINT64_MAX);
	assert_string_equal(o.meta.data, "uid=1000;name=%E4=?utf;a/b");
	assert_ptr_equal(strstr(scripted_server_request(f.server, 0), "HEAD /bkt/dir/k%20y HTTP/1.1\r\n"),
			 scripted_server_request(f.server, 0));
	outcome_fini(&o);
	assert_int_equal(fixture_head(&f, true, &o), 0);
	assert_int_equal(o.info.size, 5);
	assert_non_null(strstr(scripted_server_request(f.server, 1), "HEAD /bkt/dir/k%20y?objectMeta HTTP/1.1\r\n"));
	outcome_fini(&o);
	fixture_stop(&f);
}

static enum scripted_end head_error(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const char *const *codes = arg;
	CST_AUTO_BUF xml = CST_BUF_INIT, b64 = CST_BUF_INIT;
	(void)request;
	cst_buf_printf(&xml, "<Error><Code>%s</Code><Message>m</Message><RequestId>HRID</RequestId></Error>", codes[n]);
	cst_text_base64(&b64, xml.data, xml.len);
	cst_buf_printf(out, "HTTP/1.1 404 Not Found\r\nx-oss-err: %s\r\nContent-Length: 200\r\n\r\n", b64.data);
	return SCRIPTED_KEEP;
}

static void head_errors(void **state)
{
	(void)state;
	static const char *const codes[] = {"NoSuchKey", "NoSuchBucket"};
	struct fixture f;
	struct outcome o;
	fixture_start(&f, head_error, codes, NULL);
	assert_int_equal(fixture_head(&f, false, &o), -ENOENT);
	assert_non_null(strstr(o.text, "404 NoSuchKey: m (request id HRID)"));
	outcome_fini(&o);
	assert_int_equal(fixture_head(&f, false, &o), -ENXIO);
	assert_string_equal(o.err.api, "NoSuchBucket");
	outcome_fini(&o);
	fixture_stop(&f);
}

/* ---- listings ---- */

static enum scripted_end list_answer(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	static const char page[] =
		"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
		"<Contents><Key>p%2Fa+b</Key><Size>1</Size></Contents><Contents><Key>p%2Fc</Key><Size>2</Size></Contents>"
		"<CommonPrefixes><Prefix>p%2Fd%2F</Prefix></CommonPrefixes>"
		"<NextContinuationToken>T/+=</NextContinuationToken></ListBucketResult>";
	(void)arg, (void)request;
	scripted_answer(out, 200, "", page);
	if (n == 0)
		out->len -= strlen(page) / 3;
	return n == 0 ? SCRIPTED_CLOSE : SCRIPTED_KEEP;
}

static void listing(void **state)
{
	(void)state;
	struct fixture f;
	struct outcome o;
	struct cst_object_list list = {
		.prefix = CST_SLICE("p/"), .delimiter = "/", .start_after = CST_SLICE("p/0"), .max_keys = 7};
	fixture_start(&f, list_answer, NULL, NULL);
	assert_int_equal(fixture_list(&f, &list, &o), 0);
	assert_int_equal(o.restarts, 1);
	assert_string_equal(o.entries.data, "p/a b;p/c;p/d/*;");
	assert_true(o.truncated);
	assert_string_equal(o.meta.data, "T/+=");
	assert_non_null(strstr(
		scripted_server_request(f.server, 1),
		"GET /bkt/?list-type=2&encoding-type=url&max-keys=7&prefix=p%2F&delimiter=%2F&start-after=p%2F0 HTTP/1.1\r\n"));
	outcome_fini(&o);
	list = (struct cst_object_list){.token = CST_SLICE("T/+=")};
	assert_int_equal(fixture_list(&f, &list, &o), 0);
	assert_non_null(strstr(scripted_server_request(f.server, 2),
			       "max-keys=1000&continuation-token=T%2F%2B%3D HTTP/1.1\r\n"));
	assert_int_equal(o.restarts, 0);
	outcome_fini(&o);
	fixture_stop(&f);
}

/* ---- symlinks ---- */

static enum scripted_end symlink_answer(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)arg, (void)request;
	if (n == 0)
		scripted_answer(out, 200, "x-oss-symlink-target: a%20b%2Fc+d\r\n", "");
	else
		scripted_answer(out, 400, "", "<Error><Code>NotSymlink</Code></Error>");
	return SCRIPTED_KEEP;
}

static void symlinks(void **state)
{
	(void)state;
	for (int cloud = 0; cloud < 2; cloud++) {
		struct cst_bucket_config config = {.cloud = cloud ? CST_CLOUD_S3 : CST_CLOUD_OSS};
		struct fixture f;
		fixture_start(&f, symlink_answer, NULL, &config);
		for (int i = 0; i < 2; i++) {
			struct outcome o;
			outcome_init(&o);
			struct cst_object_op *op =
				cst_object_get_symlink(f.bucket, CST_SLICE("l"), outcome_symlink, &o);
			outcome_wait(&o);
			cst_object_release(op);
			assert_int_equal(o.rc, cloud ? -ENOTSUP : i ? -EINVAL : 0);
			if (!cloud && i == 0)
				assert_string_equal(o.entries.data, "a b/c+d");
			outcome_fini(&o);
		}
		if (!cloud)
			assert_non_null(
				strstr(scripted_server_request(f.server, 0), "GET /bkt/l?symlink HTTP/1.1\r\n"));
		fixture_stop(&f);
	}
}

/* ---- signatures as they go out ---- */

static enum scripted_end check_signature(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	enum cst_sign_kind kind = *(const enum cst_sign_kind *)arg;
	struct cst_slice headers = cst_slice_of(strchr(request, '\n') + 1);
	struct cst_sign_claim claim;
	const char *why = NULL;
	struct cst_credential cred = {.access_key = "AK", .secret_key = "sEcReTvAlUe"};
	CST_AUTO_FREE char *host = NULL;
	struct cst_slice h = cst_sign_find_line(headers, "host");
	(void)n;
	host = cst_xstrndup(h.data, h.len);
	struct cst_sign_request req = {.method = "GET",
				       .bucket = CST_SLICE("bkt"),
				       .key = CST_SLICE("dir/k y"),
				       .path_style = true,
				       .headers = headers,
				       .host = host};
	bool ok = cst_sign_read_claim(headers, NULL, 0, &claim, &why) == 0 && claim.kind == kind &&
		  cst_sign_verify(&req, &claim, &cred, NULL) == 0;
	if (ok)
		scripted_answer(out, 206, "ETag: \"e\"\r\nContent-Range: bytes 0-3/4\r\n", "good");
	else
		scripted_answer(out, 400, "", "<Error><Code>InvalidArgument</Code></Error>");
	return SCRIPTED_KEEP;
}

static void signed_requests(void **state)
{
	(void)state;
	static const struct {
		enum cst_cloud cloud;
		enum cst_sign_kind asked, used;
		const char *region;
	} rows[] = {{CST_CLOUD_OSS, CST_SIGN_NONE, CST_SIGN_OSS_V1, NULL},
		    {CST_CLOUD_OSS, CST_SIGN_NONE, CST_SIGN_OSS_V4, "cn-x"},
		    {CST_CLOUD_OSS, CST_SIGN_OSS_V1, CST_SIGN_OSS_V1, "cn-x"},
		    {CST_CLOUD_S3, CST_SIGN_NONE, CST_SIGN_S3_V4, NULL}};
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++) {
		enum cst_sign_kind kind = rows[i].used;
		struct cst_bucket_config config = {.cloud = rows[i].cloud,
						   .sign = rows[i].asked,
						   .region = rows[i].region,
						   .credentials = keys(rows[i].cloud, "AK")};
		struct fixture f;
		struct outcome o;
		char buffer[8] = "";
		fixture_start(&f, check_signature, &kind, &config);
		for (int k = 0; k < 2; k++) { /* the second with the remembered key */
			assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), 0);
			assert_string_equal(buffer, "good");
			outcome_fini(&o);
		}
		fixture_stop(&f);
	}
	struct cst_bucket_config wrong = {
		.cloud = CST_CLOUD_OSS, .bucket = "b", .endpoint = "http://h", .sign = CST_SIGN_OSS_V4};
	assert_null(cst_bucket_new(&wrong, NULL)); /* no region */
	wrong.sign = CST_SIGN_S3_V4;
	assert_null(cst_bucket_new(&wrong, NULL));
}

/* ---- renewal ---- */

struct rotation {
	char dir[64];
};

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[160], temporary[160];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	snprintf(temporary, sizeof(temporary), "%s/.%s.new", dir, name);
	int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	assert_int_equal(rename(temporary, path), 0);
}

static enum scripted_end refuse_old(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const struct rotation *r = arg;
	if (n == 0) {
		write_file(r->dir, "AccessKeyId", "NEWKEY");
		write_file(r->dir, "AccessKeySecret", "newsecret");
	}
	if (strstr(request, "OSS NEWKEY:"))
		scripted_answer(out, 206, "ETag: \"e\"\r\nContent-Range: bytes 0-3/4\r\n", "good");
	else
		scripted_answer(out, 403, "", "<Error><Code>InvalidAccessKeyId</Code><RequestId>I</RequestId></Error>");
	return SCRIPTED_KEEP;
}

static void renewed(void **state)
{
	(void)state;
	struct rotation r = {"/tmp/cistern-object-XXXXXX"};
	assert_non_null(mkdtemp(r.dir));
	write_file(r.dir, "AccessKeyId", "OLDKEY");
	write_file(r.dir, "AccessKeySecret", "oldsecret");
	struct cst_credentials_config c = {.cloud = CST_CLOUD_OSS, .secret_dir = r.dir};
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .credentials = cst_credentials_new(&c, NULL)};
	assert_non_null(config.credentials);
	struct fixture f;
	struct outcome o;
	char buffer[8] = "", command[128];
	fixture_start(&f, refuse_old, &r, &config);
	assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), 0);
	assert_string_equal(buffer, "good");
	assert_int_equal(scripted_server_requests(f.server), 2);
	outcome_fini(&o);
	fixture_stop(&f);
	snprintf(command, sizeof(command), "rm -r %s", r.dir);
	assert_int_equal(system(command), 0);
}

static enum scripted_end refuse_all(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)n, (void)request;
	scripted_answer(out, 403, "", arg);
	return SCRIPTED_KEEP;
}

static void not_renewed(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .credentials = keys(CST_CLOUD_OSS, "AK")};
	struct fixture f;
	struct outcome o;
	fixture_start(&f, refuse_all, "<Error><Code>SignatureDoesNotMatch</Code><RequestId>I</RequestId></Error>",
		      &config);
	char buffer[8];
	assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), -EACCES);
	assert_int_equal(scripted_server_requests(f.server), 1); /* the same key would be refused again */
	assert_non_null(strstr(o.text, "check the secret key"));
	assert_null(strstr(o.text, "sEcReTvAlUe"));
	outcome_fini(&o);
	fixture_stop(&f);
}

/* ---- clocks ---- */

static enum scripted_end skew_answer(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	(void)n;
	if (strstr(request, "Date: Sat, 16 Dec 2023 16:20:5") && !arg)
		scripted_answer(out, 206, "ETag: \"e\"\r\nContent-Range: bytes 0-3/4\r\n", "good");
	else
		scripted_answer(out, 403, "Date: Sat, 16 Dec 2023 16:20:57 GMT\r\n",
				"<Error><Code>RequestTimeTooSkewed</Code></Error>");
	return SCRIPTED_KEEP;
}

static void clock_learned(void **state)
{
	(void)state;
	struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .credentials = keys(CST_CLOUD_OSS, "AK")};
	struct fixture f;
	struct outcome o;
	char buffer[8] = "";
	fixture_start(&f, skew_answer, NULL, &config);
	f.wall = (INT64_C(1702743657) + 7200) * CST_NS_PER_S;
	assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), 0);
	assert_int_equal(scripted_server_requests(f.server), 2);
	outcome_fini(&o);
	assert_int_equal(fixture_read(&f, 0, 4, NULL, buffer, &o), 0); /* remembered */
	assert_int_equal(scripted_server_requests(f.server), 3);
	outcome_fini(&o);
	fixture_stop(&f);
}

static void clock_hopeless(void **state)
{
	(void)state;
	static const struct {
		int64_t off;
		const char *says;
	} rows[] = {{1810, "30 min 10 s ahead of"}, {-8000, "2 h 13 min behind"}};
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++) {
		struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .credentials = keys(CST_CLOUD_OSS, "AK")};
		struct fixture f;
		struct cst_error err = CST_ERROR_INIT;
		fixture_start(&f, skew_answer, "never", &config);
		f.wall = (INT64_C(1702743657) + rows[i].off) * CST_NS_PER_S;
		assert_int_equal(cst_bucket_probe(f.bucket, CST_SLICE(""), &err), -EACCES);
		assert_non_null(strstr(err.hint, rows[i].says));
		fixture_stop(&f);
	}
}

/* ---- throttling ---- */

static enum scripted_end throttle_answer(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const char *headers = arg;
	(void)request;
	if (n < 20)
		scripted_answer(out, 503, headers, "<Error><Code>TotalQpsLimitExceeded</Code></Error>");
	else
		scripted_answer(out, 206, "ETag: \"e\"\r\nContent-Range: bytes 0-3/4\r\n", "good");
	return SCRIPTED_KEEP;
}

static void throttled(void **state)
{
	(void)state;
	enum { READERS = 20 };
	static const char *const headers[] = {"", "x-oss-qos-delay-time: 60\r\n"};
	for (int h = 0; h < 2; h++) {
		struct fixture f;
		struct outcome o[READERS];
		struct cst_object_op *op[READERS];
		char buffer[READERS][4];
		int64_t began = cst_now();
		fixture_start(&f, throttle_answer, headers[h], NULL);
		for (int i = 0; i < READERS; i++) {
			struct iovec into = {buffer[i], 4};
			struct cst_object_get get = {
				.key = CST_SLICE("k"), .length = 4, .into = &into, .into_count = 1};
			outcome_init(&o[i]);
			op[i] = cst_object_get(f.bucket, &get, outcome_get, &o[i]);
		}
		for (int i = 0; i < READERS; i++) {
			outcome_wait(&o[i]);
			cst_object_release(op[i]);
			assert_int_equal(o[i].rc, 0);
			assert_memory_equal(buffer[i], "good", 4);
			outcome_fini(&o[i]);
		}
		struct cst_bucket_stats stats;
		cst_bucket_stats(f.bucket, &stats);
		assert_int_equal(stats.throttled, 20);
		if (h == 1)
			assert_true(cst_now() - began >= 60 * CST_NS_PER_MS);
		fixture_stop(&f);
	}
}

/* Cancelled while waiting for a place: the one that was to wake the others goes, and they still end. */
static void cancelled_in_queue(void **state)
{
	(void)state;
	enum { READERS = 8 };
	struct fixture f;
	struct outcome o[READERS];
	struct cst_object_op *op[READERS];
	char buffer[READERS][4];
	fixture_start(&f, throttle_answer, "x-oss-qos-delay-time: 30\r\n", NULL);
	f.bucket->limiter.limit = 1; /* nothing runs yet */
	for (int i = 0; i < READERS; i++) {
		struct iovec into = {buffer[i], 4};
		struct cst_object_get get = {.key = CST_SLICE("k"), .length = 4, .into = &into, .into_count = 1};
		outcome_init(&o[i]);
		op[i] = cst_object_get(f.bucket, &get, outcome_get, &o[i]);
	}
	for (int i = 0; i < READERS / 2; i++)
		cst_object_cancel(op[i]);
	for (int i = 0; i < READERS; i++) {
		outcome_wait(&o[i]);
		cst_object_release(op[i]);
		assert_true(o[i].rc == 0 || (i < READERS / 2 && o[i].rc == -ECANCELED));
		outcome_fini(&o[i]);
	}
	fixture_stop(&f);
}

/* ---- the check before a mount ---- */

struct wrong_answer {
	int status;
	const char *headers, *body;
	int rc;
	const char *says[3];
};

static enum scripted_end wrong_play(const void *arg, unsigned n, const char *request, struct cst_buf *out)
{
	const struct wrong_answer *w = arg;
	(void)n, (void)request;
	scripted_answer(out, w->status, w->headers, w->body);
	return SCRIPTED_KEEP;
}

static void probe_answers(void **state)
{
	(void)state;
	static const struct wrong_answer rows[] = {
		{403,
		 "",
		 "<Error><Code>InvalidAccessKeyId</Code><Message>unknown</Message><RequestId>R9</RequestId></Error>",
		 -EACCES,
		 {"403 InvalidAccessKeyId", "R9", "check the access key"}},
		{403,
		 "",
		 "<Error><Code>SignatureDoesNotMatch</Code></Error>",
		 -EACCES,
		 {"check the secret key", "OSS V1", ""}},
		{403,
		 "",
		 "<Error><Code>AccessDenied</Code><Message>The bucket you are attempting to access must be addressed using the specified "
		 "endpoint.</Message><Endpoint>oss-cn-beijing.aliyuncs.com</Endpoint></Error>",
		 -EACCES,
		 {"must be addressed", "served by oss-cn-beijing.aliyuncs.com",
		  "--endpoint oss-cn-beijing.aliyuncs.com"}},
		{403, "", "<Error><Code>AccessDenied</Code></Error>", -EACCES, {"may not do this", "policies", ""}},
		{301,
		 "Location: http://x/\r\n",
		 "<Error><Code>PermanentRedirect</Code><Endpoint>bkt.s3-eu-west-1.amazonaws.com</Endpoint></Error>",
		 -EINVAL,
		 {"--endpoint s3-eu-west-1.amazonaws.com", "301", ""}},
		{400,
		 "",
		 "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
		 -EINVAL,
		 {"--region eu-west-1", "", ""}},
		{404, "", "<Error><Code>NoSuchBucket</Code></Error>", -ENXIO, {"name of the bucket", "its region", ""}},
		{200,
		 "Content-Type: text/html\r\n",
		 "<!DOCTYPE html><html><body>hello</body></html>",
		 -EIO,
		 {"DOCTYPE", "endpoint of an object store?", ""}},
		{200, "", "hello", -EIO, {"not XML", "endpoint of an object store?", ""}},
		{404, "", "<html>nothing here</html>", -ENOENT, {"404", "endpoint of an object store?", ""}},
	};
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++) {
		struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .credentials = keys(CST_CLOUD_OSS, "AK")};
		struct fixture f;
		struct cst_error err = CST_ERROR_INIT;
		char text[CST_ERROR_TEXT_MAX];
		fixture_start(&f, wrong_play, &rows[i], &config);
		assert_int_equal(cst_bucket_probe(f.bucket, CST_SLICE("p/"), &err), rows[i].rc);
		cst_error_text(&err, text, sizeof(text));
		assert_non_null(strstr(text, "can't use oss://bkt at http://127.0.0.1:"));
		for (size_t k = 0; k < 3; k++)
			assert_non_null(strstr(text, rows[i].says[k]));
		assert_null(strstr(text, "sEcReTvAlUe"));
		fixture_stop(&f);
	}
}

static void probe_transport(void **state)
{
	(void)state;
	char refused[64];
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* bound, not listening */
	assert_true(bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
		    getsockname(fd, (struct sockaddr *)&a, &len) == 0);
	snprintf(refused, sizeof(refused), "http://127.0.0.1:%u", ntohs(a.sin_port));
	const struct {
		const char *endpoint, *says;
	} rows[] = {{refused, "nothing accepts connections"},
		    {"http://no-such-host.invalid", "spelling of the endpoint"}};
	for (size_t i = 0; i < CST_ARRAY_LEN(rows); i++) {
		struct cst_bucket_config config = {.cloud = CST_CLOUD_OSS, .endpoint = rows[i].endpoint};
		struct fixture f;
		struct cst_error err = CST_ERROR_INIT;
		fixture_start(&f, refuse_all, "", &config);
		assert_int_equal(cst_bucket_probe(f.bucket, CST_SLICE(""), &err), -EIO);
		assert_non_null(strstr(err.hint, rows[i].says));
		fixture_stop(&f);
	}
	close(fd);
}

/* TLS spoken to a plain server. */
static void probe_tls(void **state)
{
	(void)state;
	struct fixture plain, f;
	struct cst_error err = CST_ERROR_INIT;
	char endpoint[80];
	fixture_start(&plain, refuse_all, "", NULL);
	snprintf(endpoint, sizeof(endpoint), "https://127.0.0.1:%u", scripted_server_port(plain.server));
	struct cst_bucket_config config = {
		.cloud = CST_CLOUD_OSS, .endpoint = endpoint, .request_timeout = CST_NS_PER_S, .max_attempts = 2};
	fixture_start(&f, refuse_all, "", &config);
	f.bucket->deadline = 3 * CST_NS_PER_S;
	assert_true(cst_bucket_probe(f.bucket, CST_SLICE(""), &err) < 0);
	assert_true(err.hint[0] != '\0');
	fixture_stop(&f);
	fixture_stop(&plain);
}

static void probe_good(void **state)
{
	(void)state;
	struct fixture f;
	fixture_start(&f, list_answer, NULL, NULL); /* the first answer is cut */
	assert_int_equal(cst_bucket_probe(f.bucket, CST_SLICE("p/"), NULL), 0);
	assert_string_equal(cst_bucket_name(f.bucket), "bkt");
	assert_non_null(strstr(cst_bucket_describe(f.bucket), "(anonymous)"));
	fixture_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(head),
		cmocka_unit_test(head_errors),
		cmocka_unit_test(listing),
		cmocka_unit_test(symlinks),
		cmocka_unit_test(signed_requests),
		cmocka_unit_test(renewed),
		cmocka_unit_test(not_renewed),
		cmocka_unit_test(clock_learned),
		cmocka_unit_test(clock_hopeless),
		cmocka_unit_test(throttled),
		cmocka_unit_test(cancelled_in_queue),
		cmocka_unit_test(probe_answers),
		cmocka_unit_test(probe_transport),
		cmocka_unit_test(probe_tls),
		cmocka_unit_test(probe_good),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
