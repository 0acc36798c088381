/* What users and services put into credential files and answers. The first byte chooses the parser.
 * Covers: src/object/credentials_parse.c src/object/credentials_ini.c */
#include "object/credentials_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(uint8_t which, struct cst_slice text, struct cst_cred_profile *profile, struct cst_error *err)
{
	struct cst_credential *cred = &profile->keys;
	int64_t expires;
	char shown[64];
	switch (which) {
	case '0':
		cst_cred_parse_passwd("f", text, "bucket", cred, err);
		break;
	case '1':
		cst_cred_parse_ossutil("f", text, NULL, "bucket", profile, err);
		break;
	case '2':
		cst_cred_parse_ossutil("f", text, "dev", "bucket", profile, err);
		break;
	case '3':
		cst_cred_parse_aws("f", text, false, "default", profile, err);
		break;
	case '4':
		cst_cred_parse_aws("f", text, true, "dev", profile, err);
		break;
	case '5':
		cst_cred_parse_answer("f", text, cred, err);
		break;
	case '6':
		cst_cred_parse_expiry("f", text, &expires, err);
		break;
	default:
		cst_cred_url_shown(text.data, shown, sizeof(shown));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cst_cred_profile *profile;
	static struct cst_secret_buf text;
	struct cst_error err = CST_ERROR_INIT;
	char line[CST_ERROR_TEXT_MAX];
	if (!profile) {
		profile = cst_secret_map(sizeof(*profile));
		cst_secret_buf_init(&text, CST_SECRET_SOURCE_MAX);
	}
	if (size == 0 || size > CST_SECRET_SOURCE_MAX)
		return 0;
	/* A copy of exactly this size, so that a read past its end is seen. */
	char *exact = cst_xmalloc(size);
	memcpy(exact, data + 1, size - 1);
	exact[size - 1] = '\0';
	parse(data[0], (struct cst_slice){exact, size - 1}, profile, &err);
	cst_error_text(&err, line, sizeof(line));
	/* What was stored can go into a header. */
	for (const char *at = profile->keys.secret_key; *at; at++)
		CST_ASSERT(*at > ' ' && *at < 0x7f);
	explicit_bzero(profile, sizeof(*profile));
	free(exact);
	return 0;
}
