/* INI files of ossutil (1 and 2) and of the AWS tools. */
#include "object/credentials_internal.h"

#include <errno.h>
#include <strings.h>

static int bad(struct cst_error *err, const char *name, unsigned line, const char *why)
{
	cst_error_set(err, EINVAL, "can't read credentials from %s", name);
	cst_error_why(err, "line %u: %s", line, why);
	cst_error_hint(err, "a file has [sections] with key = value lines; # starts a comment line");
	return -EINVAL;
}

struct ini {
	const char *name;
	struct cst_slice section;
	bool in_section, nested_allowed;
	unsigned line;
};

static int ini_line(struct ini *ini, struct cst_slice raw, cst_ini_fn fn, void *arg, struct cst_error *err)
{
	bool indented = raw.len > 0 && (raw.data[0] == ' ' || raw.data[0] == '\t');
	struct cst_slice line = cst_slice_trim(raw);
	if (line.len == 0 || line.data[0] == '#' || line.data[0] == ';')
		return 0;
	/* "s3 =" followed by indented lines: settings of the AWS tools that are not ours. */
	if (indented && ini->nested_allowed)
		return 0;
	ini->nested_allowed = false;
	if (line.data[0] == '[') {
		const char *close = memchr(line.data, ']', line.len);
		if (!close)
			return bad(err, ini->name, ini->line, "no ']' after the section's name");
		ini->section = cst_slice_trim((struct cst_slice){line.data + 1, (size_t)(close - line.data - 1)});
		struct cst_slice after =
			cst_slice_trim((struct cst_slice){close + 1, line.len - (size_t)(close + 1 - line.data)});
		if (ini->section.len == 0)
			return bad(err, ini->name, ini->line, "a section without a name");
		if (after.len > 0 && after.data[0] != '#' && after.data[0] != ';')
			return bad(err, ini->name, ini->line, "text after the section's ']'");
		ini->in_section = true;
		return 0;
	}
	struct cst_slice value = line;
	struct cst_slice key = cst_slice_trim(cst_slice_cut(&value, '='));
	if (!value.data)
		return bad(err, ini->name, ini->line, "no '=' between key and value");
	if (key.len == 0)
		return bad(err, ini->name, ini->line, "no key before the '='");
	if (!ini->in_section)
		return bad(err, ini->name, ini->line, "a key before the first [section]");
	value = cst_slice_trim(value);
	ini->nested_allowed = value.len == 0;
	return fn(arg, ini->section, key, value, ini->line, err);
}

int cst_ini_parse(const char *name, struct cst_slice text, cst_ini_fn fn, void *arg, struct cst_error *err)
{
	struct ini ini = {.name = name};
	if (cst_slice_starts(text, CST_SLICE("\xef\xbb\xbf"))) {
		text.data += 3;
		text.len -= 3;
	}
	while (text.data) {
		struct cst_slice line = cst_slice_cut(&text, '\n');
		ini.line++;
		if (line.len > 0 && line.data[line.len - 1] == '\r')
			line.len--;
		if (line.len > 0 && memchr(line.data, '\0', line.len))
			return bad(err, name, ini.line, "a NUL byte: this is not a text file");
		int rc = ini_line(&ini, line, fn, arg, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* ---- what both kinds share ---- */

struct profile_parse {
	const char *name, *profile, *bucket;
	bool is_config;
	struct cst_cred_profile *out;
};

static int plain(char *field, size_t size, struct cst_slice value, const char *what, struct profile_parse *p,
		 unsigned line, struct cst_error *err)
{
	if (value.len == 0)
		return 0;
	return cst_cred_set(field, size, value, what, p->name, line, err);
}

/* A command or a role: may hold blanks, no control characters. */
static int free_text(char *field, size_t size, struct cst_slice value, const char *what, struct profile_parse *p,
		     unsigned line, struct cst_error *err)
{
	char why[96];
	if (value.len >= size) {
		snprintf(why, sizeof(why), "%s has more than %zu bytes", what, size - 1);
		return bad(err, p->name, line, why);
	}
	memcpy(field, value.data, value.len);
	field[value.len] = '\0';
	return 0;
}

static void not_supported(struct profile_parse *p, const char *what, unsigned line)
{
	if (!p->out->unsupported[0]) {
		snprintf(p->out->unsupported, sizeof(p->out->unsupported), "%s", what);
		p->out->unsupported_line = line;
	}
}

/* ---- ossutil ---- */

/* ossutil 2 takes accessKeyID, access-key-id and access_key_id alike. */
static void normalise(struct cst_slice key, char *out, size_t size)
{
	size_t n = 0;
	for (size_t i = 0; i < key.len && n + 1 < size; i++) {
		char ch = key.data[i];
		if (ch == '-' || ch == '_')
			continue;
		out[n++] = ch >= 'A' && ch <= 'Z' ? (char)(ch | 0x20) : ch;
	}
	out[n] = '\0';
}

static int ossutil_key_field(struct profile_parse *p, bool v1, const char *key, struct cst_slice value, unsigned line,
			     struct cst_error *err)
{
	struct cst_credential *keys = &p->out->keys;
	bool have = keys->access_key[0] || keys->secret_key[0] || keys->token[0];
	/* The sections of the two generations are not mixed: [default] wins over [Credentials] as a whole. */
	if (value.len == 0 || (have && v1 && !p->out->keys_v1))
		return 0;
	if (have && !v1 && p->out->keys_v1)
		cst_credential_wipe(keys);
	p->out->keys_v1 = v1;
	if (strcmp(key, "accesskeyid") == 0)
		return cst_cred_set(keys->access_key, sizeof(keys->access_key), value, "access key ID", p->name, line,
				    err);
	if (strcmp(key, "accesskeysecret") == 0)
		return cst_cred_set(keys->secret_key, sizeof(keys->secret_key), value, "access key secret", p->name,
				    line, err);
	return cst_cred_set(keys->token, sizeof(keys->token), value, "STS token", p->name, line, err);
}

static int ossutil_mode(struct profile_parse *p, struct cst_slice value, unsigned line, struct cst_error *err)
{
	char mode[32];
	normalise(value, mode, sizeof(mode));
	int rc = plain(p->out->mode, sizeof(p->out->mode), cst_slice_of(mode), "mode", p, line, err);
	if (strcmp(mode, "anonymous") == 0)
		p->out->anonymous = true;
	else if (strcmp(mode, "ecsramrole") == 0)
		p->out->has_role = true;
	else if (rc == 0 && strcmp(mode, "ak") != 0 && strcmp(mode, "ststoken") != 0 && strcmp(mode, "process") != 0 &&
		 mode[0])
		not_supported(p, "this mode", line);
	return rc;
}

static int ossutil_profile_key(struct profile_parse *p, bool v1, const char *key, struct cst_slice value, unsigned line,
			       struct cst_error *err)
{
	struct cst_cred_profile *out = p->out;
	if (strcmp(key, "accesskeyid") == 0 || strcmp(key, "accesskeysecret") == 0 || strcmp(key, "ststoken") == 0 ||
	    strcmp(key, "securitytoken") == 0)
		return ossutil_key_field(p, v1, key, value, line, err);
	if (strcmp(key, "endpoint") == 0)
		return plain(out->endpoint, sizeof(out->endpoint), value, "endpoint", p, line, err);
	if (strcmp(key, "region") == 0)
		return plain(out->region, sizeof(out->region), value, "region", p, line, err);
	if (strcmp(key, "mode") == 0)
		return ossutil_mode(p, value, line, err);
	if (strcmp(key, "credentialprocess") == 0)
		return free_text(out->process, sizeof(out->process), value, "the command", p, line, err);
	if (strcmp(key, "ecsrolename") == 0 || strcmp(key, "ramrolename") == 0 || strcmp(key, "ecsramrolename") == 0) {
		if (value.len > 0)
			out->has_role = true;
		return plain(out->role, sizeof(out->role), value, "role name", p, line, err);
	}
	if (strcmp(key, "rolearn") == 0 || strcmp(key, "ramrolearn") == 0) {
		if (value.len > 0)
			not_supported(p, "assuming a role with an access key", line);
	}
	return 0;
}

/* "[buckets NAME]" with endpoint and region; "[Bucket-Endpoint]" and "[Bucket-Cname]" with NAME = endpoint. */
static int ossutil_bucket(struct profile_parse *p, bool v2, struct cst_slice key, struct cst_slice value, unsigned line,
			  struct cst_error *err)
{
	struct cst_cred_profile *out = p->out;
	if (!v2) {
		if (!p->bucket || !cst_slice_is(key, p->bucket))
			return 0;
		return plain(out->bucket_endpoint, sizeof(out->bucket_endpoint), value, "endpoint", p, line, err);
	}
	char name[32];
	normalise(key, name, sizeof(name));
	if (strcmp(name, "endpoint") == 0)
		return plain(out->bucket_endpoint, sizeof(out->bucket_endpoint), value, "endpoint", p, line, err);
	if (strcmp(name, "region") == 0)
		return plain(out->bucket_region, sizeof(out->bucket_region), value, "region", p, line, err);
	return 0;
}

static bool section_is(struct cst_slice section, const char *name)
{
	return cst_slice_ieq(section, cst_slice_of(name));
}

/* The name behind a leading word: "profile x", "buckets x". */
static bool section_named(struct cst_slice section, const char *word, struct cst_slice *name)
{
	struct cst_slice rest = section;
	struct cst_slice first = cst_slice_cut(&rest, ' ');
	if (!rest.data || !section_is(first, word))
		return false;
	*name = cst_slice_trim(rest);
	return name->len > 0;
}

static int ossutil_entry(void *arg, struct cst_slice section, struct cst_slice key, struct cst_slice value,
			 unsigned line, struct cst_error *err)
{
	struct profile_parse *p = arg;
	char name[40];
	struct cst_slice who;
	normalise(key, name, sizeof(name));
	if (section_is(section, "Bucket-Endpoint") || section_is(section, "Bucket-Cname"))
		return ossutil_bucket(p, false, key, value, line, err);
	if (section_named(section, "buckets", &who))
		return p->bucket && cst_slice_is(who, p->bucket) ? ossutil_bucket(p, true, key, value, line, err) : 0;
	const char *wanted = p->profile ? p->profile : "default";
	if (!p->profile && section_is(section, "AkService")) {
		if (strcmp(name, "ecsak") != 0 || value.len == 0)
			return 0;
		p->out->has_role = true;
		return plain(p->out->role, sizeof(p->out->role), value, "address of the key service", p, line, err);
	}
	bool v1 = section_is(section, "Credentials") && (!p->profile || section_is(section, wanted));
	if (!v1 && !section_is(section, wanted) &&
	    !(section_named(section, "profile", &who) && section_is(who, wanted)))
		return 0;
	p->out->section_found = true;
	return ossutil_profile_key(p, v1, name, value, line, err);
}

int cst_cred_parse_ossutil(const char *name, struct cst_slice text, const char *profile, const char *bucket,
			   struct cst_cred_profile *out, struct cst_error *err)
{
	struct profile_parse p = {.name = name, .profile = profile, .bucket = bucket, .out = out};
	return cst_ini_parse(name, text, ossutil_entry, &p, err);
}

/* ---- AWS ---- */

static int aws_key(struct profile_parse *p, struct cst_slice key, struct cst_slice value, unsigned line,
		   struct cst_error *err)
{
	struct cst_cred_profile *out = p->out;
	struct cst_credential *keys = &out->keys;
	/* The credentials file is read first; keys of the config file count only when that one has none. */
	bool keys_wanted = !p->is_config || !out->keys_v1;
	if (cst_slice_is(key, "aws_access_key_id") && keys_wanted) {
		out->keys_v1 = !p->is_config && value.len > 0;
		return plain(keys->access_key, sizeof(keys->access_key), value, "aws_access_key_id", p, line, err);
	}
	if (cst_slice_is(key, "aws_secret_access_key") && keys_wanted)
		return plain(keys->secret_key, sizeof(keys->secret_key), value, "aws_secret_access_key", p, line, err);
	if (cst_slice_is(key, "aws_session_token") && keys_wanted)
		return plain(keys->token, sizeof(keys->token), value, "aws_session_token", p, line, err);
	if (cst_slice_is(key, "credential_process"))
		return free_text(out->process, sizeof(out->process), value, "credential_process", p, line, err);
	if (cst_slice_is(key, "region"))
		return plain(out->region, sizeof(out->region), value, "region", p, line, err);
	if (cst_slice_is(key, "endpoint_url"))
		return plain(out->endpoint, sizeof(out->endpoint), value, "endpoint_url", p, line, err);
	if (cst_slice_is(key, "role_arn"))
		not_supported(p, "role_arn", line);
	else if (cst_slice_is(key, "sso_start_url") || cst_slice_is(key, "sso_session"))
		not_supported(p, "single sign-on", line);
	return 0;
}

static int aws_entry(void *arg, struct cst_slice section, struct cst_slice key, struct cst_slice value, unsigned line,
		     struct cst_error *err)
{
	struct profile_parse *p = arg;
	struct cst_slice who = section;
	bool named = p->is_config && section_named(section, "profile", &who);
	if (!cst_slice_is(who, p->profile) || (p->is_config && !named && strcmp(p->profile, "default") != 0))
		return 0;
	p->out->section_found = true;
	return aws_key(p, key, value, line, err);
}

int cst_cred_parse_aws(const char *name, struct cst_slice text, bool is_config, const char *profile,
		       struct cst_cred_profile *out, struct cst_error *err)
{
	struct profile_parse p = {.name = name, .profile = profile, .is_config = is_config, .out = out};
	return cst_ini_parse(name, text, aws_entry, &p, err);
}
