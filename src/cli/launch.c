#include "cli/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* The saved credential, then records: a key, a length, bytes. A program that doesn't know a key skips it. */
#define RECORDS_AT 8192
#define LAUNCH_MAX (8u << 20)
#define SLOT_MAGIC UINT32_C(0x4352454d)

enum key {
	KEY_PERSONA = 1,
	KEY_DIRECTORY = 2,
	KEY_ARGUMENT = 3,
	KEY_CONFIG_PATH = 4,
	KEY_CONFIG = 5,
	KEY_MOUNTPOINT = 6,
	KEY_LOG_NAME = 7,
};
struct record {
	uint32_t key, len;
};
struct slot {
	uint32_t magic, size;
	struct cst_credential credential;
};
_Static_assert(sizeof(struct slot) <= RECORDS_AT, "a credential has outgrown its place");

static int launch_failed(struct cst_error *err, int rc)
{
	cst_error_set(err, -rc, "can't keep the command line for the process of the file system");
	cst_error_why(err, "%s", strerror(-rc));
	return rc;
}

static void add(struct cst_buf *b, enum key key, const void *data, size_t len)
{
	struct record record = {key, (uint32_t)len};
	cst_buf_add(b, &record, sizeof(record));
	cst_buf_add(b, data, len);
}

static void add_text(struct cst_buf *b, enum key key, const char *text)
{
	if (text)
		add(b, key, text, strlen(text));
}

static int append(int launch, struct cst_buf *b)
{
	off_t end = lseek(launch, 0, SEEK_END);
	ssize_t n = end < 0 ? -1 : pwrite(launch, b->data, b->len, end < RECORDS_AT ? RECORDS_AT : end);
	int rc = n < 0 ? -errno : (size_t)n != b->len ? -EIO : 0;
	explicit_bzero(b->data, b->len);
	return rc;
}

int cst_launch_make(enum cst_persona persona, int argc, char **argv, struct cst_error *err)
{
	CST_AUTO_CLOSE int fd = memfd_create("cistern-launch", MFD_CLOEXEC);
	CST_AUTO_FREE char *cwd = getcwd(NULL, 0);
	CST_AUTO_BUF b = CST_BUF_INIT;
	uint32_t number = persona;
	if (fd < 0)
		return launch_failed(err, -errno);
	add(&b, KEY_PERSONA, &number, sizeof(number));
	add_text(&b, KEY_DIRECTORY, cwd);
	for (int i = 0; i < argc; i++)
		add_text(&b, KEY_ARGUMENT, argv[i]);
	int rc = append(fd, &b);
	return rc ? launch_failed(err, rc) : cst_steal_fd(&fd);
}

static int read_config(const char *path, struct cst_buf *text)
{
	CST_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, cst_buf_room(text, 65536), 65536);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		text->len += (size_t)n;
		if (text->len > LAUNCH_MAX / 2)
			return -EFBIG;
	}
}

int cst_launch_complete(int launch, const struct cst_mount_plan *plan, const char *log_name, struct cst_error *err)
{
	CST_AUTO_BUF b = CST_BUF_INIT;
	CST_AUTO_BUF config = CST_BUF_INIT;
	int rc = plan->o.config ? read_config(plan->o.config, &config) : 0;
	add_text(&b, KEY_MOUNTPOINT, plan->mountpoint);
	add_text(&b, KEY_LOG_NAME, log_name);
	add_text(&b, KEY_CONFIG_PATH, plan->o.config);
	if (plan->o.config)
		add(&b, KEY_CONFIG, config.data, config.len);
	if (config.len > 0)
		explicit_bzero(config.data, config.len);
	if (rc == 0)
		rc = append(launch, &b);
	return rc ? launch_failed(err, rc) : 0;
}

/* ---- the process that serves ---- */

struct parsed {
	enum cst_persona persona;
	char *directory, *mountpoint, *log_name, *config_path;
	struct cst_slice config;
	char **argv;
	int argc;
};

static void parsed_fini(struct parsed *p)
{
	for (int i = 0; i < p->argc; i++) {
		explicit_bzero(p->argv[i], strlen(p->argv[i]));
		free(p->argv[i]);
	}
	free(p->argv);
	free(p->directory);
	free(p->mountpoint);
	free(p->log_name);
	free(p->config_path);
}

static void take_record(struct parsed *p, const struct record *record, const char *data)
{
	uint32_t number = 0;
	switch (record->key) {
	case KEY_PERSONA:
		memcpy(&number, data, cst_min((size_t)record->len, sizeof(number)));
		p->persona = (enum cst_persona)number;
		break;
	case KEY_DIRECTORY:
		p->directory = cst_xstrndup(data, record->len);
		break;
	case KEY_ARGUMENT:
		p->argv = cst_xrealloc(p->argv, ((size_t)p->argc + 2) * sizeof(*p->argv));
		p->argv[p->argc++] = cst_xstrndup(data, record->len);
		p->argv[p->argc] = NULL;
		break;
	case KEY_CONFIG_PATH:
		p->config_path = cst_xstrndup(data, record->len);
		break;
	case KEY_CONFIG:
		p->config = (struct cst_slice){data, record->len};
		break;
	case KEY_MOUNTPOINT:
		p->mountpoint = cst_xstrndup(data, record->len);
		break;
	case KEY_LOG_NAME:
		p->log_name = cst_xstrndup(data, record->len);
		break;
	default:
		break;
	}
}

static int take_records(struct parsed *p, const char *data, size_t len)
{
	while (len >= sizeof(struct record)) {
		struct record record;
		memcpy(&record, data, sizeof(record));
		data += sizeof(record);
		len -= sizeof(record);
		if (record.len > len)
			return -EPROTO;
		take_record(p, &record, data);
		data += record.len;
		len -= record.len;
	}
	return p->argc > 0 && p->mountpoint ? 0 : -EPROTO;
}

static int make_plan(struct parsed *p, struct cst_mount_plan *plan, char **log_name, struct cst_error *err)
{
	/* Where it has gone relative paths mean nothing; the mountpoint is known all the same. */
	if (p->directory && chdir(p->directory) != 0)
		(void)!chdir("/");
	struct cst_mount_config_text config = {p->config_path, p->config};
	int rc = cst_mount_plan_init_kept(plan, p->persona, p->argc, p->argv, p->config_path ? &config : NULL, err);
	if (rc != 0)
		return rc;
	free(plan->mountpoint);
	plan->mountpoint = cst_steal(p->mountpoint);
	*log_name = cst_steal(p->log_name);
	return 0;
}

int cst_launch_plan(int launch, struct cst_mount_plan *plan, char **log_name, struct cst_error *err)
{
	struct parsed p = {0};
	struct stat st;
	int rc = fstat(launch, &st) != 0 ? -errno : st.st_size <= RECORDS_AT || st.st_size > LAUNCH_MAX ? -EPROTO : 0;
	if (rc != 0)
		return launch_failed(err, rc);
	size_t len = (size_t)st.st_size - RECORDS_AT;
	CST_AUTO_FREE char *data = cst_xmalloc(len);
	ssize_t n = pread(launch, data, len, RECORDS_AT);
	rc = n < 0 ? -errno : (size_t)n != len ? -EIO : take_records(&p, data, len);
	rc = rc ? launch_failed(err, rc) : make_plan(&p, plan, log_name, err);
	explicit_bzero(data, len);
	parsed_fini(&p);
	return rc;
}

/* ---- the credential ---- */

void cst_launch_save_credential(int launch, const struct cst_credential *credential)
{
	struct slot slot = {SLOT_MAGIC, sizeof(slot), *credential};
	(void)!pwrite(launch, &slot, sizeof(slot), 0);
	explicit_bzero(&slot, sizeof(slot));
}

bool cst_launch_last_credential(int launch, struct cst_credential *credential)
{
	struct slot slot;
	bool saved = pread(launch, &slot, sizeof(slot), 0) == (ssize_t)sizeof(slot) && slot.magic == SLOT_MAGIC &&
		     slot.size == sizeof(slot) && slot.credential.access_key[0] != '\0';
	if (saved)
		*credential = slot.credential;
	explicit_bzero(&slot, sizeof(slot));
	return saved;
}
