/* Runs a fuzz target over the files of a corpus directory: what the short test set does instead of fuzzing. */
#include "base/buf.h"

#include <dirent.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool replay(const char *dir, const char *name)
{
	CST_AUTO_FREE char *path = cst_xasprintf("%s/%s", dir, name);
	CST_AUTO_BUF content = CST_BUF_INIT;
	FILE *f = fopen(path, "rb");
	if (!f) {
		perror(path);
		return false;
	}
	size_t got;
	while ((got = fread(cst_buf_room(&content, 65536), 1, 65536, f)) > 0)
		content.len += got;
	fclose(f);
	/* An exact allocation, so that AddressSanitizer sees a read past the end. */
	uint8_t *exact = cst_xmalloc(content.len);
	if (content.len)
		memcpy(exact, content.data, content.len);
	LLVMFuzzerTestOneInput(exact, content.len);
	free(exact);
	return true;
}

int main(int argc, char **argv)
{
	DIR *dir = argc == 2 ? opendir(argv[1]) : NULL;
	if (!dir) {
		fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
		return 2;
	}
	unsigned files = 0, failed = 0;
	const struct dirent *e;
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		files++;
		failed += !replay(argv[1], e->d_name);
	}
	closedir(dir);
	printf("%u files replayed\n", files);
	return files == 0 || failed ? 1 : 0;
}
