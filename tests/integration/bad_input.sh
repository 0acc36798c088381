#!/usr/bin/env bash
# What is wrong at the start is told in one line with a status other than 0, before going to the background, and nothing is mounted.
# timeout: 240
. "$(dirname "$0")/lib.sh"
requires curl jq python3
requires_root
requires_fuse

STORE_DIR="$WORK/objects"
mnt="$WORK/mnt"
keys="$WORK/keys"
mkdir -p "$STORE_DIR/demo" "$mnt"
echo x >"$STORE_DIR/demo/x"
echo "AKIDEXAMPLE:very-secret-value" >"$keys"
start_store --keys "$keys"
export OSS_ACCESS_KEY_ID=AKIDEXAMPLE OSS_ACCESS_KEY_SECRET=very-secret-value

# Mounts oss://demo with more or other options; quick retries so that hopeless cases end soon.
try() { # PATTERN OPTIONS…
	local pattern=$1
	shift
	refuses "$pattern" "$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --log-dir "$WORK/logs" --deadline 4s --connect-timeout 2s "$@" &&
		! is_mounted "$mnt" && ! grep -q very-secret "$WORK/.err" "$WORK/logs"/*.log
}
bare() { # PATTERN ARGUMENTS OF mount…
	local pattern=$1
	shift
	refuses "$pattern" "$CISTERN" mount "$@" && ! is_mounted "$mnt"
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Answers everything with this date (or the right one), status and body. Sets FAKE_URL.
fake_server() { # DATE STATUS BODY
	rm -f "$WORK/fake.port"
	python3 - "$WORK/fake.port" "$@" <<'PY' &
import http.server, os, sys
path, date, status, body = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.send_response_only(int(status))
        self.send_header("Date", date or self.date_time_string())
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    do_GET = do_HEAD = answer
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(path + ".new", "w") as file:
    file.write(str(server.server_address[1]))
os.rename(path + ".new", path)
server.serve_forever()
PY
	cleanup "stop_process $!"
	wait_for 20 test -f "$WORK/fake.port" || fail "the fake server did not start"
	FAKE_URL="http://127.0.0.1:$(cat "$WORK/fake.port")"
}

mkdir "$WORK/logs"
check "it works when all is right" "$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --log-dir "$WORK/logs"
cleanup "umount -l '$mnt' 2>/dev/null"
check "already mounted" refuses "mounted there already.*cistern umount" "$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --log-dir "$WORK/logs"
check "unmount" "$CISTERN" umount "$mnt"

check "a port where nobody listens" try "refused" --endpoint "http://127.0.0.1:$(free_port)"
check "a host that does not resolve" try "no-such-host.invalid" --endpoint http://no-such-host.invalid
check "a host that does not answer" try "192.0.2.1|timed out|unreachable" --endpoint http://192.0.2.1:9
check "an endpoint that is no URL" try "endpoint" --endpoint "http://"
fake_server "" 200 '<html>hello</html>'
check "an endpoint that is no object store" try "not|no object store|listing|XML" --endpoint "$FAKE_URL"
fake_server "Sat, 01 Jan 2000 00:00:00 GMT" 403 '<Error><Code>RequestTimeTooSkewed</Code><Message>skewed</Message></Error>'
check "a clock that differs" try "clock" --endpoint "$FAKE_URL"
fake_server "" 403 '<Error><Code>AccessDenied</Code><Message>use the endpoint</Message><Endpoint>oss-cn-elsewhere.example</Endpoint></Error>'
check "a bucket of another region" try "oss-cn-elsewhere.example" --endpoint "$FAKE_URL"
check "a wrong secret" env OSS_ACCESS_KEY_SECRET=wrong bash -c "$(declare -f refuses is_mounted try); WORK='$WORK' CISTERN='$CISTERN' mnt='$mnt' STORE_URL='$STORE_URL'; try 'SignatureDoesNotMatch|secret'"
check "an unknown access key" env OSS_ACCESS_KEY_ID=NOBODY bash -c "$(declare -f refuses is_mounted try); WORK='$WORK' CISTERN='$CISTERN' mnt='$mnt' STORE_URL='$STORE_URL'; try 'InvalidAccessKeyId'"
check "a bucket that does not exist" bare "NoSuchBucket" oss://nosuchbucket "$mnt" --endpoint "$STORE_URL" --log-dir "$WORK/logs"
check "no credentials where they are needed" try "AccessDenied|credential" --anonymous

check "a mountpoint that is missing" bare "does not exist.*mkdir" oss://demo "$WORK/missing" --endpoint "$STORE_URL" --log-dir "$WORK/logs"
check "a mountpoint that is a file" bare "not a directory" oss://demo "$keys" --endpoint "$STORE_URL" --log-dir "$WORK/logs"
mkdir "$WORK/full" && touch "$WORK/full/x"
check "a mountpoint that is not empty" bare "not empty.*nonempty" oss://demo "$WORK/full" --endpoint "$STORE_URL" --log-dir "$WORK/logs"
check "no mountpoint" bare "no mountpoint" oss://demo --endpoint "$STORE_URL"
check "no bucket" bare "no bucket" "$mnt" --endpoint "$STORE_URL"
check "no endpoint" bare "no endpoint.*--endpoint" oss://demo "$mnt"
check "a URL of something else" bare "neither oss:// nor s3://" http://demo "$mnt"
check "a bucket name that can't be" bare "bucket name" oss://No_Such "$mnt"
check "too many arguments" bare "too many arguments" oss://demo "$mnt" more

check "an unknown option" bare "unknown option --memroy.*did you mean --memory" oss://demo "$mnt" --memroy=1G
check "an unknown -o option" bare "unknown option -o kernelcache.*kernel_cache" oss://demo "$mnt" -o kernelcache
check "an unknown unit" bare "bad value \"5parsecs\" for --attr-timeout" oss://demo "$mnt" --attr-timeout=5parsecs
check "a value out of range" bare "out of range.*64MiB" oss://demo "$mnt" --memory 1MiB
check "an unknown log level" try "log_level" --log-level loud
check "a mode that is not there" bare "rw means write=full.*write=append lets" oss://demo "$mnt" --endpoint "$STORE_URL" -o rw
check "an insecure mode" bare "certificates are always checked" oss://demo "$mnt" -o no_check_certificate
check "a secret on the command line" bare "not taken from the command line" oss://demo "$mnt" --access-key-secret=very-secret-value
check_not "it is not repeated" grep -q very-secret "$WORK/.err"

check "a missing configuration file" try "can't read configuration file" -c "$WORK/missing.conf"
check "a directory as configuration file" try "can't read configuration file" -c "$WORK"
printf 'endpoint=http://127.0.0.1\nattr_timeout=soon\n' >"$WORK/bad.conf"
check "a bad value in the file" try "bad.conf line 2: bad value" -c "$WORK/bad.conf"
printf 'this is not it\n' >"$WORK/bad.conf"
check "a malformed file" try "bad.conf line 1: this line is not understood" -c "$WORK/bad.conf"
printf 'a\0b\n' >"$WORK/bad.conf"
check "a binary file" try "not a text file" -c "$WORK/bad.conf"
check "a passwd_file that is missing" try "missing" -o passwd_file="$WORK/missing"
printf 'AK:SK\n' >"$WORK/open" && chmod 644 "$WORK/open"
check "a passwd_file that all may read" try "mode|permission|chmod" -o passwd_file="$WORK/open"
check "a log file that can't be made" try "can't open the log file" --log-file "$WORK/no/such/dir/x.log"
check "an unknown command" refuses "unknown command mout.*did you mean cistern mount" "$CISTERN" mout
check "stats of what is no mount" refuses "no cistern of this user serves" "$CISTERN" stats "$mnt"
check "umount of what is not mounted" refuses "can't unmount" "$CISTERN" umount "$mnt"
check "a store without a directory" refuses "too few arguments" "$CISTERN" store
check "a store for others without keys" refuses "without access keys" "$CISTERN" store "$WORK/o" --listen 0.0.0.0:0
check "a store on an address that is taken" refuses "127.0.0.1" "$CISTERN" store "$WORK/o" --listen "$STORE_ADDRESS"
check "a fault that does not exist" refuses "fail|fault" "$CISTERN" store "$WORK/o" --listen 127.0.0.1:0 --fail 0.5:gremlins

# Without the device: a namespace of its own hides it from this command alone.
check "no /dev/fuse" refuses "can't open /dev/fuse.*modprobe fuse" unshare -m bash -c 'mount -t tmpfs none /dev && exec "$@"' - \
	"$CISTERN" mount oss://demo "$mnt" --endpoint "$STORE_URL" --log-dir "$WORK/logs"
check_not "nothing is left mounted" is_mounted "$mnt"
