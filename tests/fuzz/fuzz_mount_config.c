/* The configuration file of a mount, and the same bytes as -o options. */
#include "cli/mount_options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cst_mount_options values;
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	cst_option_set_init(&set, &cst_mount_table, &values, sizeof(values));
	if (cst_option_parse_text(&set, (struct cst_slice){(const char *)data, size}, "config", &err) != 0)
		cst_error_text(&err, text, sizeof(text));
	CST_AUTO_FREE char *mount = cst_xstrndup((const char *)data, size);
	cst_option_parse_mount(&set, mount, &err);
	cst_option_set_fini(&set);
	return 0;
}
