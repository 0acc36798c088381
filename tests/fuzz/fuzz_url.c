/* URLs of buckets: what was accepted must be written and read back as the same.
 * Covers: src/cli/url.c */
#include "cli/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct cst_url *url)
{
	struct cst_url again;
	CST_AUTO_BUF text = CST_BUF_INIT;
	cst_url_text(url, &text);
	CST_ASSERT(cst_url_parse(text.data, &again, NULL) == 0);
	CST_ASSERT(again.cloud == url->cloud && strcmp(again.bucket, url->bucket) == 0 &&
		   strcmp(again.prefix, url->prefix) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cst_url url;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	CST_AUTO_FREE char *input = cst_xstrndup((const char *)data, size);
	if (cst_url_parse(input, &url, &err) == 0)
		check(&url);
	else
		cst_error_text(&err, text, sizeof(text));
	if (cst_url_parse_ossfs(input, &url, &err) == 0)
		check(&url);
	return 0;
}
