#include "publish/keep.h"

#include <errno.h>
#include <string.h>

void cst_keep_record_fini(struct cst_keep_record *record)
{
	char **const texts[] = {&record->id,	    &record->bucket,   &record->key,	   &record->reason,	 &record->writer,
				&record->base_etag, &record->write_id, &record->upload_id, &record->content_type};
	for (size_t i = 0; i < CST_ARRAY_LEN(texts); i++)
		free(*texts[i]);
	free(record->parts);
	free(record->meta);
	memset(record, 0, sizeof(*record));
}

int cst_keep_write(const char *dir, struct cst_keep_record *record, const struct iovec *tail, int tail_count,
		   struct cst_error *err)
{
	(void)dir, (void)record, (void)tail, (void)tail_count;
	return cst_error_set(err, ENOTSUP, "can't keep a copy");
}

int cst_keep_each(const char *dir, void (*each)(void *arg, const struct cst_keep_record *record), void *arg,
		  struct cst_error *err)
{
	(void)dir, (void)each, (void)arg, (void)err;
	return 0;
}

int cst_keep_read(const char *dir, const char *id, struct cst_keep_record *record, struct cst_error *err)
{
	(void)dir, (void)id, (void)record;
	return cst_error_set(err, ENOENT, "there is no such copy");
}

void cst_keep_data_path(const char *dir, const char *id, struct cst_buf *path)
{
	cst_buf_printf(path, "%s/%s.data", dir, id);
}

int cst_keep_remove(const char *dir, const char *id, struct cst_error *err)
{
	(void)dir, (void)id;
	return cst_error_set(err, ENOENT, "there is no such copy");
}
