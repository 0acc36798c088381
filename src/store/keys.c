#define CST_LOG_AREA "store"
#include "store/keys.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#define KEYS_MAGIC 0x4b455953u
#define FILE_MAX (1 << 20)
#define LOOK_AGAIN CST_NS_PER_S

struct key {
	struct cst_credential credential;
	char bucket[CST_KEYS_BUCKET];
};

struct cst_keys {
	unsigned magic;
	char *path;
	pthread_mutex_t lock; /* all of the below */
	struct key *keys;
	size_t count;
	struct timespec mtime;
	off_t size;
	ino_t ino;
	int64_t next_look;
};

static bool take(char *out, size_t size, struct cst_slice text)
{
	if (text.len >= size)
		return false;
	if (text.len)
		memcpy(out, text.data, text.len);
	out[text.len] = '\0';
	return true;
}

static bool parse_line(struct cst_slice line, struct key *key)
{
	struct cst_slice access = cst_slice_cut(&line, ':');
	struct cst_slice secret = cst_slice_cut(&line, ':');
	struct cst_slice bucket = cst_slice_cut(&line, ':');

	*key = (struct key){0};
	return access.len && secret.len &&
	       take(key->credential.access_key, sizeof(key->credential.access_key), access) &&
	       take(key->credential.secret_key, sizeof(key->credential.secret_key), secret) &&
	       take(key->bucket, sizeof(key->bucket), bucket) &&
	       take(key->credential.token, sizeof(key->credential.token), line);
}

static void wipe(struct key *keys, size_t count)
{
	if (keys)
		explicit_bzero(keys, count * sizeof(*keys));
	free(keys);
}

static int parse(struct cst_slice text, const char *path, struct key **keys, size_t *count, struct cst_error *err)
{
	struct key *list = NULL;
	size_t n = 0;
	unsigned number = 0;

	while (text.len) {
		struct cst_slice line = cst_slice_cut(&text, '\n');
		struct key *grown;

		number++;
		if (line.len && line.data[line.len - 1] == '\r')
			line.len--;
		line = cst_slice_trim(line);
		if (line.len == 0 || line.data[0] == '#')
			continue;
		/* Not realloc: secrets shall not stay behind in freed memory. */
		grown = cst_xcalloc(n + 1, sizeof(*grown));
		if (n)
			memcpy(grown, list, n * sizeof(*grown));
		wipe(list, n);
		list = grown;
		if (!parse_line(line, &list[n++])) {
			wipe(list, n);
			cst_error_set(err, EINVAL, "can't read the access keys in %s", path);
			cst_error_why(err, "line %u is not ACCESS-KEY:SECRET[:BUCKET[:TOKEN]]", number);
			cst_error_hint(err, "write one key a line; comments begin with #");
			return -EINVAL;
		}
	}
	*keys = list;
	*count = n;
	return 0;
}

static int load(struct cst_keys *k, struct cst_error *err)
{
	CST_AUTO_CLOSE int fd = open(k->path, O_RDONLY | O_CLOEXEC);
	CST_AUTO_BUF text = CST_BUF_INIT;
	struct key *keys = NULL;
	struct stat st;
	size_t count;
	ssize_t n;
	int rc;

	if (fd < 0 || fstat(fd, &st) != 0 || st.st_size > FILE_MAX ||
	    (n = read(fd, cst_buf_room(&text, FILE_MAX), FILE_MAX)) < 0) {
		rc = fd >= 0 && errno == 0 ? EFBIG : errno;
		cst_error_set(err, rc, "can't read the access keys in %s", k->path);
		cst_error_why(err, "%s", strerror(rc));
		cst_error_hint(err, "name a file with lines ACCESS-KEY:SECRET in --keys");
		return -rc;
	}
	text.len = (size_t)n;
	rc = parse(cst_buf_slice(&text), k->path, &keys, &count, err);
	explicit_bzero(text.data, text.cap);
	if (rc)
		return rc;
	pthread_mutex_lock(&k->lock);
	wipe(k->keys, k->count);
	k->keys = keys;
	k->count = count;
	k->mtime = st.st_mtim;
	k->size = st.st_size;
	k->ino = st.st_ino;
	pthread_mutex_unlock(&k->lock);
	return 0;
}

int cst_keys_new(const char *path, struct cst_keys **keys, struct cst_error *err)
{
	struct cst_keys *k = CST_NEW(struct cst_keys);
	int rc;

	k->magic = KEYS_MAGIC;
	k->path = cst_xstrdup(path);
	pthread_mutex_init(&k->lock, NULL);
	errno = 0;
	rc = load(k, err);
	if (rc) {
		cst_keys_free(k);
		return rc;
	}
	if (k->count == 0)
		cst_log_warn("%s has no access keys: every signed request will be refused", path);
	*keys = k;
	return 0;
}

void cst_keys_free(struct cst_keys *k)
{
	if (!k)
		return;
	CST_CHECK(k, KEYS_MAGIC);
	wipe(k->keys, k->count);
	pthread_mutex_destroy(&k->lock);
	free(k->path);
	k->magic = 0;
	free(k);
}

static bool has_changed(struct cst_keys *k, bool now_at_once)
{
	int64_t now = cst_now();
	struct stat st;
	bool changed = false;

	pthread_mutex_lock(&k->lock);
	if (now_at_once || now >= k->next_look) {
		k->next_look = now + LOOK_AGAIN;
		changed = stat(k->path, &st) == 0 &&
			  (st.st_size != k->size || st.st_ino != k->ino || st.st_mtim.tv_sec != k->mtime.tv_sec ||
			   st.st_mtim.tv_nsec != k->mtime.tv_nsec);
	}
	pthread_mutex_unlock(&k->lock);
	return changed;
}

static void read_again(struct cst_keys *k)
{
	struct cst_error err = CST_ERROR_INIT;
	char text[CST_ERROR_TEXT_MAX];

	if (load(k, &err) != 0)
		cst_log_warn("keeping the old access keys: %s", cst_error_text(&err, text, sizeof(text)));
	else
		cst_log_info("read the access keys again");
}

static bool find(struct cst_keys *k, struct cst_slice access_key, struct cst_credential *credential,
		 char bucket[CST_KEYS_BUCKET])
{
	bool found = false;

	pthread_mutex_lock(&k->lock);
	for (size_t i = 0; i < k->count && !found; i++) {
		found = cst_slice_is(access_key, k->keys[i].credential.access_key);
		if (found) {
			*credential = k->keys[i].credential;
			memcpy(bucket, k->keys[i].bucket, CST_KEYS_BUCKET);
		}
	}
	pthread_mutex_unlock(&k->lock);
	return found;
}

bool cst_keys_find(struct cst_keys *k, struct cst_slice access_key, struct cst_credential *credential,
		   char bucket[CST_KEYS_BUCKET])
{
	CST_CHECK(k, KEYS_MAGIC);
	if (has_changed(k, false))
		read_again(k);
	if (find(k, access_key, credential, bucket))
		return true;
	/* A key that was written a moment ago is used at once; only strangers cost a look at the file each time. */
	if (!has_changed(k, true))
		return false;
	read_again(k);
	return find(k, access_key, credential, bucket);
}
