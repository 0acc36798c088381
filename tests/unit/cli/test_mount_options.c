#include "cli/mount_options.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

struct fixture {
	struct cst_mount_plan plan;
	struct cst_error err;
	char *argv[24];
	int argc;
	bool made;
};

static int setup(void **state)
{
	setenv("HOME", "/nonexistent", 1);
	unsetenv("OSS_ENDPOINT");
	unsetenv("OSS_REGION");
	unsetenv("AWS_REGION");
	unsetenv("AWS_ENDPOINT_URL");
	*state = CST_NEW(struct fixture);
	return 0;
}

static void drop(struct fixture *f)
{
	if (f->made)
		cst_mount_plan_fini(&f->plan);
	f->made = false;
	for (int i = 0; i < f->argc; i++)
		free(f->argv[i]);
	f->argc = 0;
	cst_error_clear(&f->err);
}

static int teardown(void **state)
{
	drop(*state);
	free(*state);
	return 0;
}

static int plan(struct fixture *f, enum cst_persona persona, const char *const *args)
{
	drop(f);
	for (; args[f->argc]; f->argc++)
		f->argv[f->argc] = cst_xstrdup(args[f->argc]);
	f->made = true;
	return cst_mount_plan_init(&f->plan, persona, f->argc, f->argv, &f->err);
}
#define PLAN(f, persona, ...) plan(f, CST_PERSONA_##persona, (const char *const[]){"mount", __VA_ARGS__, NULL})

/* A file that goes away with the process's test directory. */
static char *config_file(const char *text)
{
	char *path = cst_xstrdup("/tmp/cistern-mount-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	return path;
}

static void fails(struct fixture *f, int rc, const char *detail)
{
	char text[CST_ERROR_TEXT_MAX];
	cst_error_text(&f->err, text, sizeof(text));
	assert_int_equal(rc, -EINVAL);
	if (!strstr(text, detail))
		fail_msg("got: %s", text);
}

static void plain(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(
		PLAN(f, CISTERN, "oss://abc/p", "/mnt/x/", "--endpoint", "http://127.0.0.1:9000", "--anonymous"), 0);
	assert_string_equal(f->plan.access.url.bucket, "abc");
	assert_string_equal(f->plan.access.url.prefix, "p/");
	assert_string_equal(f->plan.access.source, "oss://abc/p");
	assert_string_equal(f->plan.mountpoint, "/mnt/x");
	assert_string_equal(f->plan.access.endpoint, "http://127.0.0.1:9000");
	assert_true(f->plan.o.anonymous);
	assert_true(f->plan.o.auto_cache);
	assert_int_equal(f->plan.o.attributes, 0);
	assert_int_equal(f->plan.o.file_mode, 0644);
	assert_false(f->plan.asked_to_write);
}

static void bucket_sources(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, CISTERN, "/mnt", "-o", "url=http://h:1,bucket=abc,prefix=/q"), 0);
	assert_string_equal(f->plan.access.source, "oss://abc/q");
	assert_string_equal(f->plan.access.endpoint, "http://h:1");
	assert_int_equal(PLAN(f, CISTERN, "/mnt", "-ourl=oss://abc/p,region=cn-hangzhou"), 0);
	assert_string_equal(f->plan.access.source, "oss://abc/p");
	assert_string_equal(f->plan.access.endpoint, "https://oss-cn-hangzhou.aliyuncs.com");
	assert_int_equal(PLAN(f, CISTERN, "s3://abc", "/mnt"), 0);
	assert_null(f->plan.access.endpoint);
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt"), "no endpoint was named");
	fails(f, PLAN(f, CISTERN, "/mnt", "--region=x"), "no bucket was named");
	fails(f, PLAN(f, CISTERN, "oss://abc", "--region=x"), "no mountpoint was named");
	fails(f, PLAN(f, CISTERN, "--region=x"), "no mountpoint was named");
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "more"), "too many arguments");
	fails(f, PLAN(f, CISTERN, "abc", "/mnt"), "neither oss:// nor s3://");
	setenv("OSS_ENDPOINT", "oss-x.example", 1);
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt"), 0);
	assert_string_equal(f->plan.access.endpoint, "oss-x.example");
}

static void write_modes(void **state)
{
	struct fixture *f = *state;
	/* Random writes are not there: whoever asks for them is told so, or gets a mount that can't lose half of them. */
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "rw"), "rw means write=full");
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "rw"), "write=append lets files be written");
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "write=full"), "is not in this version");
	fails(f, PLAN(f, OSSFS, "abc", "/mnt", "-owrite=full"), "is not in this version");
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_NONE);
	assert_true(f->plan.o.ro);
	assert_null(f->plan.keep_dir);
	assert_string_equal(cst_mount_plan_mode(&f->plan), "read-only");
	assert_false(f->plan.said_read_only); /* the log is to tell of the first write */
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "write=none"), 0);
	assert_true(f->plan.said_read_only);
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "rw,ro"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_NONE);
	/* mount(8) says rw by itself. */
	assert_int_equal(PLAN(f, HELPER, "oss://abc", "/mnt", "-o", "rw,region=x"), 0);
	assert_true(f->plan.asked_to_write);
	assert_true(f->plan.o.ro);
	assert_int_equal(PLAN(f, HELPER, "oss://abc", "/mnt", "-o", "rw,write=append,region=x"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_APPEND);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt"), 0);
	assert_true(f->plan.asked_to_write);
	assert_int_equal(f->plan.write, CST_FS_WRITE_NONE);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-oro"), 0);
	assert_false(f->plan.asked_to_write);
	assert_true(f->plan.said_read_only);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-orw,write=append,keep_dir=/k"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_APPEND);
	assert_false(f->plan.asked_to_write);
	assert_string_equal(f->plan.keep_dir, "/k");
}

static void write_append(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "write=append"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_APPEND);
	assert_false(f->plan.o.ro);
	assert_string_equal(cst_mount_plan_mode(&f->plan), "write=append");
	assert_non_null(f->plan.keep_dir);
	assert_int_equal(f->plan.o.upload_memory, 128 << 20);
	assert_int_equal(f->plan.o.upload_part_size, 8 << 20);
	assert_int_equal(f->plan.set.warnings.count, 0);
	/* write= goes before ro, and says so. */
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "ro,write=append"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_APPEND);
	assert_int_equal(f->plan.set.warnings.count, 1);
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-o", "rw,write=none"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_NONE);
	/* ossfs2 appends by habit. */
	assert_int_equal(PLAN(f, OSSFS2, "/mnt", "--oss_bucket=abc", "--oss_endpoint=h", "--upload_buffer_size=16M"),
			 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_APPEND);
	assert_int_equal(f->plan.o.upload_part_size, 16 << 20);
	assert_false(f->plan.o.ignore_fsync);
	assert_int_equal(f->plan.set.notes.count, 1);
	assert_int_equal(PLAN(f, OSSFS2, "/mnt", "--oss_bucket=abc", "--oss_endpoint=h", "--ignore_fsync=true"), 0);
	assert_true(f->plan.o.ignore_fsync);
	assert_int_equal(PLAN(f, OSSFS2, "/mnt", "--oss_bucket=abc", "--oss_endpoint=h", "--ro=true"), 0);
	assert_int_equal(f->plan.write, CST_FS_WRITE_NONE);
	/* ossfs counts parts in MiB. */
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-owrite=append,multipart_size=10"), 0);
	assert_int_equal(f->plan.o.upload_part_size, 10 << 20);
	fails(f, PLAN(f, OSSFS, "abc", "/mnt", "-owrite=append,multipart_size=100"), "more than half of upload_memory");
	fails(f, PLAN(f, OSSFS, "abc", "/mnt", "-owrite=append,use_sse"),
	      "bucket's own storage class, ACL and encryption");
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-oro,use_sse,acl=private,multipart_size=100"), 0);
}

static void ossfs_command_line(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(
		PLAN(f, OSSFS, "abc:/train/data", "/mnt", "-ourl=oss-cn-beijing.aliyuncs.com", "-o",
		     "passwd_file=/etc/p,allow_other,umask=022,max_stat_cache_size=10000", "-okernel_cache", "-o",
		     "use_cache=/tmp/c,parallel_count=20,max_multireq=30,multipart_size=10,noxmlns,dbglevel=info,sigv1",
		     "-s", "-d"),
		0);
	assert_string_equal(f->plan.access.source, "oss://abc/train/data");
	assert_string_equal(f->plan.access.endpoint, "http://oss-cn-beijing.aliyuncs.com");
	assert_string_equal(f->plan.o.passwd_file, "/etc/p");
	assert_int_equal(f->plan.o.attributes, 1);
	assert_int_equal(f->plan.o.umask, 022);
	assert_int_equal(f->plan.o.attr_timeout, 60 * CST_NS_PER_S);
	assert_int_equal(f->plan.access.sign, CST_SIGN_OSS_V1);
	assert_true(f->plan.o.kernel_cache);
	assert_false(f->plan.o.auto_cache);
	assert_true(f->plan.o.foreground);
	assert_int_equal(f->plan.set.notes.count, 3);
	assert_int_equal(f->plan.cache.level_count, 1);
	assert_string_equal(f->plan.cache.levels[0].paths[0].path, "/tmp/c");
	assert_int_equal(f->plan.o.parallel_count, 20);
	fails(f, PLAN(f, OSSFS, "abc", "/mnt", "-ono_check_certificate"), "certificates are always checked");
	fails(f, PLAN(f, OSSFS, "abc", "/mnt", "-osigv1,sigv4"), "contradict each other");
}

static void caches(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x"), 0);
	assert_int_equal(f->plan.cache.level_count, 0);
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-dir", "/tmp/c:10GiB"), 0);
	assert_int_equal(f->plan.cache.level_count, 1);
	assert_int_equal(f->plan.cache.levels[0].quota, INT64_C(10) << 30);
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-level",
			      "MEM:/dev/shm/c:2GiB:0.99:0.8", "--cache-level=HDD:/tmp/a,/tmp/b:1TiB"),
			 0);
	assert_int_equal(f->plan.cache.level_count, 2);
	assert_int_equal(f->plan.cache.levels[0].medium, CST_CACHE_MEM);
	assert_int_equal(f->plan.cache.levels[1].path_count, 2);
	assert_string_equal(f->plan.cache.levels[1].paths[1].path, "/tmp/b");
	/* A daemon changes its directory. */
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-level", "SSD:c:1GiB"), 0);
	assert_int_equal(f->plan.cache.levels[0].paths[0].path[0], '/');
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-dir", "c"), 0);
	assert_int_equal(f->plan.cache.levels[0].paths[0].path[0], '/');
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-dir=/c", "--cache-level=SSD:/d:1GiB"),
	      "exclude each other");
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-dir=/c:1GiB", "--cache-quota=2GiB"),
	      "they name different sizes");
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-level=SSD"), "SSD");
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-policy=lru"), "one of s3fifo|pin|stream");
	fails(f,
	      PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--cache-level=SSD:/a:1", "--cache-level=SSD:/b:1",
		   "--cache-level=SSD:/c:1", "--cache-level=SSD:/d:1", "--cache-level=SSD:/e:1"),
	      "too many");
}

static void caches_of_ossfs(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-ouse_cache=/tmp/c,ensure_diskfree=2048,del_cache"), 0);
	assert_int_equal(f->plan.cache.level_count, 1);
	assert_int_equal(f->plan.cache.keep_free, INT64_C(2) << 30);
	assert_true(f->plan.o.del_cache);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-ouse_cache="), 0);
	assert_int_equal(f->plan.cache.level_count, 0);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-ouse_cache=/nonexistent/c,check_cache_dir_exist"), -ENOENT);
	assert_int_equal(PLAN(f, OSSFS2, "mount", "/mnt", "--oss_bucket=abc", "--oss_endpoint=h",
			      "--data_cache_dir=/tmp/c", "--data_cache_size=3G", "--cache_keep_free=1M",
			      "--ensure_diskfree=7"),
			 0);
	assert_int_equal(f->plan.cache.levels[0].quota, INT64_C(3) << 30);
	assert_int_equal(f->plan.cache.keep_free, 1 << 20);
}

static void direct_read(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-odirect_read"), 0);
	assert_int_equal(f->plan.o.range_size, 4 << 20);
	assert_int_equal(f->plan.o.prefetch_window, 128 << 20);
	assert_int_equal(f->plan.o.memory, 512 << 20);
	assert_int_equal(
		PLAN(f, OSSFS, "abc", "/mnt",
		     "-odirect_read,direct_read_chunk_size=8,direct_read_prefetch_chunks=64,direct_read_prefetch_limit=256"),
		0);
	assert_int_equal(f->plan.o.range_size, 8 << 20);
	assert_int_equal(f->plan.o.prefetch_window, 256 << 20);
	assert_int_equal(f->plan.o.memory, 256 << 20);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-odirect_read,direct_read_prefetch_limit=1"), 0);
	assert_int_equal(f->plan.o.memory, 64 << 20);
	assert_int_equal(
		PLAN(f, OSSFS, "abc", "/mnt",
		     "-odirect_read,range_size=16M,prefetch_window=32M,memory=1G,direct_read_prefetch_limit=256"),
		0);
	assert_int_equal(f->plan.o.range_size, 16 << 20);
	assert_int_equal(f->plan.o.prefetch_window, 32 << 20);
	assert_int_equal(f->plan.o.memory, 1 << 30);
	/* Without it its companions mean nothing. */
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-odirect_read_chunk_size=32"), 0);
	assert_int_equal(f->plan.o.range_size, 8 << 20);
	assert_int_equal(f->plan.o.prefetch_window, 0);
}

static void timeouts(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-omax_stat_cache_size=0,attr_timeout=7"), 0);
	assert_int_equal(f->plan.o.attr_timeout, 7 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.entry_timeout, 0);
	assert_int_equal(f->plan.o.list_timeout, 0);
	assert_int_equal(PLAN(f, OSSFS2, "mount", "/mnt", "--oss_bucket=abc", "--oss_endpoint=h",
			      "--close_to_open=true", "--oss_request_timeout_ms=1500"),
			 0);
	assert_int_equal(f->plan.o.list_timeout, 0);
	assert_int_equal(f->plan.o.attr_timeout, 0);
	assert_int_equal(f->plan.o.request_timeout, 1500 * CST_NS_PER_MS);
}

/* The options of metadata, as those know them who come from ossfs 1.0, ossfs 2.0 or JindoFuse. */
static void metadata_options(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--endpoint=h"), 0);
	assert_int_equal(f->plan.o.attr_timeout, 60 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.entry_timeout, 60 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.list_timeout, 60 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.negative_timeout, 0);
	assert_int_equal(f->plan.o.oss_negative_cache_timeout, 0);
	assert_int_equal(f->plan.o.oss_negative_cache_size, 10000);
	assert_int_equal(f->plan.o.kernel_readdir_cache_timeout, 0);
	assert_int_equal(f->plan.o.max_stat_cache_size, 0); /* no limit: it was not given */
	assert_int_equal(f->plan.o.metadata_memory, UINT64_C(64) << 20);
	assert_true(f->plan.o.readdirplus);
	assert_false(f->plan.o.close_to_open);
	assert_int_equal(PLAN(f, OSSFS2, "mount", "/mnt", "--oss_bucket=abc", "--oss_endpoint=h", "--attr_timeout=5",
			      "--oss_negative_cache_timeout=30", "--oss_negative_cache_size=500",
			      "--kernel_readdir_cache_timeout=20", "--readdirplus=false", "--negative_timeout=3"),
			 0);
	assert_int_equal(f->plan.o.attr_timeout, 5 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.entry_timeout, 5 * CST_NS_PER_S); /* ossfs 2.0 has no such option */
	assert_int_equal(f->plan.o.oss_negative_cache_timeout, 30 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.oss_negative_cache_size, 500);
	assert_int_equal(f->plan.o.kernel_readdir_cache_timeout, 20 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.negative_timeout, 3 * CST_NS_PER_S);
	assert_false(f->plan.o.readdirplus);
	assert_int_equal(f->plan.set.notes.count, 1); /* of ignore_fsync */
	assert_int_equal(PLAN(f, OSSFS2, "mount", "/mnt", "--oss_bucket=abc", "--oss_endpoint=h", "--attr_timeout=5",
			      "--entry_timeout=9"),
			 0);
	assert_int_equal(f->plan.o.entry_timeout, 9 * CST_NS_PER_S);
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--endpoint=h", "--attr_timeout=5"), 0);
	assert_int_equal(f->plan.o.entry_timeout, 60 * CST_NS_PER_S);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-ourl=h,max_stat_cache_size=20000,stat_cache_expire=900"), 0);
	assert_int_equal(f->plan.o.max_stat_cache_size, 20000);
	assert_int_equal(f->plan.o.list_timeout, 900 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.attr_timeout, 60 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.attributes, 1);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-ourl=h,readdir_optimize"), 0);
	assert_int_equal(f->plan.o.attributes, 0);
	assert_true(f->plan.o.readdirplus);
	assert_int_equal(PLAN(f, OSSFS, "abc", "/mnt", "-ourl=h,readdir_optimize,attributes=object"), 0);
	assert_int_equal(f->plan.o.attributes, 1);
}

static void page_cache(void **state)
{
	struct fixture *f = *state;
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-odirect_io,kernel_cache"), "exclude each other");
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-oauto_cache,kernel_cache"), 0);
	assert_true(f->plan.o.auto_cache);
	assert_false(f->plan.o.kernel_cache);
	assert_int_equal(f->plan.set.warnings.count, 1);
	assert_int_equal(PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "-odirect_io"), 0);
	assert_false(f->plan.o.auto_cache);
}

static void ossfs2_config(void **state)
{
	struct fixture *f = *state;
	CST_AUTO_FREE char *path = config_file(
		"# a comment\n--oss_endpoint=https://oss-cn-hangzhou-internal.aliyuncs.com\n--oss_bucket=bucket-name\n"
		"--oss_bucket_prefix=a/b\n--attr_timeout=7200\n--oss_access_key_id=ID\n--oss_access_key_secret=SECRET\n"
		"--upload_concurrency=64\n--total_mem_limit=1G\n");
	assert_int_equal(PLAN(f, OSSFS2, "mount", "/mnt", "-c", path, "--attr_timeout=30"), 0);
	assert_string_equal(f->plan.access.source, "oss://bucket-name/a/b");
	assert_int_equal(f->plan.o.attr_timeout, 30 * CST_NS_PER_S);
	assert_int_equal(f->plan.o.memory, 1 << 30);
	assert_string_equal(f->plan.o.access_key_secret, "SECRET");
	assert_int_equal(f->plan.o.file_mode, 0777);
	assert_false(f->plan.o.symlinks);
	cst_access_forget_secrets(&f->plan.o);
	assert_string_equal(f->plan.o.access_key_secret, "");
	/* fstab: the file in the first column */
	assert_int_equal(PLAN(f, OSSFS2, path, "/mnt", "-o", "rw,_netdev"), 0);
	assert_string_equal(f->plan.access.source, "oss://bucket-name/a/b");
	unlink(path);
	assert_int_equal(PLAN(f, OSSFS2, "mount", "/mnt", "-c", path), -ENOENT);
}

static void secrets_on_command_line(void **state)
{
	struct fixture *f = *state;
	fails(f, PLAN(f, CISTERN, "oss://abc", "/mnt", "--region=x", "--oss_access_key_secret=S"),
	      "not taken from the command line");
	assert_int_equal(PLAN(f, OSSFS2, "mount", "/mnt", "--oss_bucket=abc", "--oss_endpoint=h",
			      "--oss_access_key_id=I", "--oss_access_key_secret=SECRET"),
			 0);
	assert_string_equal(f->plan.o.access_key_secret, "SECRET");
	assert_string_equal(f->argv[6], "--oss_access_key_secret=");
	assert_int_equal(f->plan.set.warnings.count, 1);
}

static void helper(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(PLAN(f, HELPER, "oss://abc/p", "/mnt", "-o",
			      "rw,_netdev,noauto,x-systemd.requires=network-online.target,nofail,user=me,endpoint=h"),
			 0);
	assert_string_equal(f->plan.access.source, "oss://abc/p");
	assert_int_equal(PLAN(f, HELPER, "abc:/p", "/mnt", "-o", "endpoint=h"), 0);
	assert_string_equal(f->plan.access.source, "oss://abc/p");
	assert_int_equal(PLAN(f, HELPER, "anything", "/mnt", "-o", "bucket=abc,endpoint=h,dev,suid,exec"), 0);
	assert_string_equal(f->plan.access.source, "oss://abc");
	assert_false(f->plan.o.nodev);
	fails(f, PLAN(f, HELPER, "oss://abc", "/mnt", "-o", "remount,endpoint=h"), "unmount and mount again");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
		TEST(plain),
		TEST(bucket_sources),
		TEST(write_modes),
		TEST(write_append),
		TEST(ossfs_command_line),
		TEST(caches),
		TEST(caches_of_ossfs),
		TEST(direct_read),
		TEST(timeouts),
		TEST(metadata_options),
		TEST(page_cache),
		TEST(ossfs2_config),
		TEST(secrets_on_command_line),
		TEST(helper),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
