#include "cache/load.h"

struct cst_load {
	struct cst_load_progress progress;
};

struct cst_load *cst_load_start(const struct cst_load_config *config, struct cst_error *err)
{
	(void)config;
	cst_error_set(err, 95, "nothing can be loaded");
	return NULL;
}

void cst_load_progress(struct cst_load *load, struct cst_load_progress *progress)
{
	*progress = load->progress;
}

bool cst_load_wait(struct cst_load *load, int64_t timeout, struct cst_error *err)
{
	(void)load;
	(void)timeout;
	(void)err;
	return true;
}

void cst_load_cancel(struct cst_load *load)
{
	(void)load;
}

void cst_load_free(struct cst_load *load)
{
	free(load);
}
