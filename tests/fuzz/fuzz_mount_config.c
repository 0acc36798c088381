/* The options of a mount: the bytes as a configuration file, as -o options, and, line by line, as arguments.
 * Covers: src/base/option.c */
#include "cli/mount_options.h"

#include <sys/mman.h>

#define ARGUMENTS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cst_mount_options values;

static void as_text(const uint8_t *data, size_t size)
{
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];
	cst_option_set_init(&set, &cst_mount_table, &values, sizeof(values));
	if (cst_option_parse_text(&set, (struct cst_slice){(const char *)data, size}, "config", &err) != 0)
		CST_ASSERT(err.what[0] && cst_error_text(&err, text, sizeof(text)));
	CST_AUTO_FREE char *mount = cst_xstrndup((const char *)data, size);
	cst_option_parse_mount(&set, mount, &err);
	cst_option_set_fini(&set);
}

static void as_arguments(const uint8_t *data, size_t size)
{
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	char *argv[ARGUMENTS_MAX];
	int argc = 0;
	struct cst_slice rest = {(const char *)data, size};
	cst_option_set_init(&set, &cst_mount_table, &values, sizeof(values));
	set.accept_argv_secrets = size % 2 == 0;
	while (rest.len > 0 && argc < ARGUMENTS_MAX) {
		struct cst_slice line = cst_slice_cut(&rest, '\n');
		argv[argc++] = cst_xstrndup(line.len > 0 ? line.data : "", line.len);
	}
	if (cst_option_parse_argv(&set, argc, argv, &err) != 0)
		CST_ASSERT(err.what[0]);
	while (argc > 0)
		free(argv[--argc]);
	cst_option_set_fini(&set);
}

static void as_file(const uint8_t *data, size_t size)
{
	struct cst_option_set set;
	struct cst_error err = CST_ERROR_INIT;
	CST_AUTO_CLOSE int fd = memfd_create("config", MFD_CLOEXEC);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		return;
	CST_AUTO_FREE char *path = cst_xasprintf("/proc/self/fd/%d", fd);
	cst_option_set_init(&set, &cst_mount_table, &values, sizeof(values));
	if (cst_option_parse_file(&set, path, &err) != 0)
		CST_ASSERT(err.what[0]);
	cst_option_set_fini(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	as_text(data, size);
	as_arguments(data, size);
	as_file(data, size);
	return 0;
}
