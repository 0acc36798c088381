/* What a user asked of a mount: the options (mount_options.def) and what follows from them together: which bucket, which
 * endpoint, which timeouts. The same table takes the spellings of the programs whose names cistern may be called by; a persona
 * says which. Used by one thread, before the mount runs; the strings stay valid until cst_mount_plan_fini(). */
#pragma once

#include "base/clock.h"
#include "base/option.h"
#include "cli/access.h"
#include "cli/cache_choice.h"
#include "fs/fs.h"

#define NO_EFFECT(id, synonyms, argument, why) \
	OPTION(id, IGNORED, synonyms, argument, 0, 0, NULL, CST_OPTION_OPTIONAL, why)
#define REFUSE(id, synonyms, argument, why) \
	OPTION(id, REFUSED, synonyms, argument, 0, 0, NULL, CST_OPTION_OPTIONAL, why)

struct cst_mount_options {
#define OPTION CST_OPTION_MEMBER
#define SECTION(title)
#include "cli/mount_options.def"
#undef OPTION
	struct {
#define OPTION CST_OPTION_GIVEN
#include "cli/mount_options.def"
#undef OPTION
#undef SECTION
	} given;
};
extern const struct cst_option_table cst_mount_table;

enum { CST_PRELOAD_ALL, CST_PRELOAD_NEVER, CST_PRELOAD_WALKS }; /* preload_metadata */

enum cst_persona {
	CST_PERSONA_CISTERN, /* cistern mount [URL] MOUNTPOINT */
	CST_PERSONA_HELPER, /* mount -t fuse.cistern: SOURCE MOUNTPOINT -o …; mount(8) says rw unless told otherwise */
	CST_PERSONA_OSSFS,  /* ossfs BUCKET[:/PATH] MOUNTPOINT -o … */
	CST_PERSONA_OSSFS2, /* ossfs2 mount MOUNTPOINT -c FILE --option=value … */
};

struct cst_mount_plan {
	enum cst_persona persona;
	struct cst_option_set set;
	struct cst_mount_options o;
	struct cst_access access;
	struct cst_cache_choice cache;
	char *mountpoint;	 /* absolute */
	enum cst_fs_write write; /* what it is mounted as */
	/* It was said in so many words: the kernel is told, and refuses writes by itself. Else they come here and are refused with a line in the log that
	 * names the option which would allow them. */
	bool said_read_only;
	bool asked_to_write; /* rw where that does not refuse the mount: say that it is read-only */
	char *keep_dir;	     /* of a mount that writes */
};

/* A configuration file as it was when the mount began. */
struct cst_mount_config_text {
	const char *path;
	struct cst_slice text;
};
/* Parses argv[1..], reads the configuration file, and works out the rest. -errno with err: nothing was touched. */
int cst_mount_plan_init(struct cst_mount_plan *plan, enum cst_persona persona, int argc, char **argv,
			struct cst_error *err);
/* "read-only", "write=append" */
const char *cst_mount_plan_mode(const struct cst_mount_plan *plan);
/* Where conflicts are kept when no option says so. The caller frees it. */
char *cst_mount_keep_dir_default(void);
/* The same with the text of the configuration file instead of the file; NULL: there was none. */
int cst_mount_plan_init_kept(struct cst_mount_plan *plan, enum cst_persona persona, int argc, char **argv,
			     const struct cst_mount_config_text *config, struct cst_error *err);
void cst_mount_plan_fini(struct cst_mount_plan *plan);
