/* What option.c (parsing) and option_doc.c (help texts) share. Same thread rules as option.h. */
#pragma once

#include "base/option.h"

/* Walks the spellings of an option: its id, then the synonyms. */
struct cst_option_spellings {
	struct cst_slice rest;
	const struct cst_option *option;
	bool first;
};
static inline struct cst_option_spellings cst_option_spellings_of(const struct cst_option *option)
{
	return (struct cst_option_spellings){cst_slice_of(option->synonyms), option, true};
}
/* False at the end. *negated: the spelling means the opposite. */
bool cst_option_next_spelling(struct cst_option_spellings *s, struct cst_slice *name, bool *negated);
/* The name as it stands on a command line: '-' for '_'. */
void cst_option_add_dashed(struct cst_buf *out, struct cst_slice name);
/* "64MiB to 1TiB", "at least 1". */
void cst_option_add_range(struct cst_buf *out, const struct cst_option *option);
