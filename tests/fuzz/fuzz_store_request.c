/* What the store reads of a request: target, query, headers (ranges, ETags, copy sources), aws-chunked bodies, XML, and
 * the records of objects. The input is a request head, then its body.
 * Covers: src/store/request.c src/store/chunked.c src/store/xml_in.c */
#include "store/chunked.h"
#include "store/record.h"
#include "store/request.h"
#include "store/xml_in.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Stands in for the server: the only thing of it that taking a request apart needs. */
static struct cst_http_head head;
const struct cst_http_head *cst_http_request_head(const struct cst_http_exchange *x)
{
	(void)x;
	return &head;
}

static bool leaf(void *arg, const char *parent, const char *name, struct cst_slice text)
{
	uint64_t n;

	*(size_t *)arg += strlen(parent) + strlen(name);
	cst_request_number(text, &n);
	return strcmp(name, "Unwanted") != 0;
}

static bool end(void *arg, const char *name)
{
	*(size_t *)arg += strlen(name);
	return true;
}

static void read_headers(const struct cst_store_request *r)
{
	CST_AUTO_BUF decoded = CST_BUF_INIT;
	CST_AUTO_BUF path = CST_BUF_INIT;
	struct cst_slice bucket;
	struct cst_slice key;
	uint64_t offset = 0;
	uint64_t length = 0;

	for (uint64_t object = 0; object < 3000; object = object * 7 + 5) {
		for (int strict = 0; strict < 2; strict++) {
			if (cst_request_range(cst_request_header(r, "range"), object, strict, &offset, &length) ==
			    CST_RANGE_OK)
				CST_ASSERT(length > 0 && offset < object && length <= object - offset);
		}
	}
	cst_request_etag_listed(cst_request_header(r, "if-match"), "0123456789abcdef0123456789abcdef");
	if (cst_request_copy_source(cst_request_own(r, "copy-source"), &decoded, &bucket, &key) == 0)
		CST_ASSERT(bucket.len && key.len);
	if (cst_keypath_of(r->key, &path) == 0)
		CST_ASSERT(path.data[0] != '/' && !strstr(path.data, "/../") && strncmp(path.data, "../", 3) != 0);
}

static void read_body(struct cst_slice body)
{
	static const struct cst_xml_handler handler = {leaf, end};
	struct cst_chunked c = {0};
	struct cst_slice in = body;
	CST_AUTO_RECORD record = CST_RECORD_INIT;
	enum cst_chunk_event e;
	size_t sum = 0;

	do {
		e = cst_chunked_next(&c, &in);
	} while (e != CST_CHUNK_MORE && e != CST_CHUNK_DONE && e != CST_CHUNK_BAD);
	cst_chunked_fini(&c);
	cst_xml_read(body, "Delete", &handler, &sum);
	cst_xml_read(body, "CompleteMultipartUpload", &handler, &sum);
	if (cst_record_decode(body, &record) == 0) {
		struct cst_slice name;
		struct cst_slice value;
		size_t pos = 0;

		while (cst_record_each_header(&record, &pos, &name, &value))
			sum += name.len + value.len;
		cst_record_header(&record, "content-type");
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const domains[] = {"store.example"};
	struct cst_store_backend backend = {.magic = CST_BACKEND_MAGIC, .dir = -1};
	struct cst_store store = {
		.magic = CST_STORE_MAGIC, .config = {.domains = domains, .domain_count = 1}, .backend = &backend};
	struct cst_store_request r;
	const char *why = NULL;
	ssize_t n = cst_http_parse_request((struct cst_slice){(const char *)data, size}, &head, &why);

	if (n <= 0) {
		read_body((struct cst_slice){(const char *)data, size});
		return 0;
	}
	if (cst_request_init(&r, &store, NULL, &why) == 0) {
		read_headers(&r);
		cst_request_param(&r, "uploadId");
		cst_request_has(&r, "delete");
	}
	cst_request_fini(&r);
	read_body((struct cst_slice){(const char *)data + n, size - (size_t)n});
	return 0;
}
