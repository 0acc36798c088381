#!/usr/bin/env bash
# sanitize long
# timeout: 300
# Clients that meet: writers, readers, copiers, deleters, appenders, uploads that are completed twice, listings and buckets
# that come and go, all on the same few keys. A reader gets one version whole, with its own length and ETag; listings are in
# order and without duplicates; nothing gives an error that a client on its own would not get.
. "$(dirname "$0")/lib.sh"
requires python3

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects
start_store --anonymous
cat >"$WORK/meet.py" <<'PY'
import collections, hashlib, http.client, os, random, re, sys, threading
address, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
KEYS = ["p", "p/q", "p/q/r", "s", "s/", "t/u"]
seen, complaints = collections.Counter(), []

def complain(*what):
    complaints.append(what)
    print(*what, flush=True)

class Client:
    def __init__(self, seed):
        self.seed, self.random = seed, random.Random(seed)
        self.connection = http.client.HTTPConnection(address, timeout=120)

    def call(self, expected, method, path, body=None, **headers):
        headers = {"x-oss-" + k.replace("_", "-") if k != "Range" else k: v for k, v in headers.items()}
        headers["x-oss-date"] = "x"
        self.connection.request(method, path, body, headers)
        r = self.connection.getresponse()
        text = r.read()
        seen[method, r.status] += 1
        if r.status not in expected:
            complain(method, path, r.status, text[:300])
        return r.status, r.headers, text

    def key(self):
        return "/demo/" + self.random.choice(KEYS)

    def put(self):
        size = self.random.choice([0, 1, 100, 5000, 300000])
        body = (hashlib.sha256(os.urandom(8)).digest() * (size // 32 + 1))[:size]
        self.call({200}, "PUT", self.key(), body)

    def get(self):
        key = self.random.choice([self.key(), self.key(), "/demo/copy"])
        status, headers, body = self.call({200, 404}, "GET", key)
        if status == 200 and int(headers["Content-Length"]) != len(body):
            complain("a wrong length", key)
        etag = headers.get("ETag", "").strip('"').lower()
        if status == 200 and headers["x-oss-object-type"] == "Normal" and etag != hashlib.md5(body).hexdigest():
            complain("not the bytes of its ETag", key, etag, len(body))

    def delete(self):
        self.call({204}, "DELETE", self.key())

    def copy(self):
        self.call({200, 404}, "PUT", "/demo/copy", b"", copy_source=self.key())

    def describe(self):  # also with headers too large for extended attributes
        key = self.key()
        self.call({200, 404}, "PUT", key, b"", copy_source=key, metadata_directive="REPLACE",
                  meta_a="v" * self.random.choice([1, 5000, 7000]))

    def list(self):
        query = self.random.choice(["", "&delimiter=/", "&prefix=p/&delimiter=/", "&list-type=2"])
        _, _, text = self.call({200}, "GET", f"/demo?max-keys={self.random.choice([1, 3, 1000])}{query}")
        keys = re.findall(rb"<Key>([^<]*)", text)
        if keys != sorted(set(keys)):
            complain("a listing out of order", keys)

    def append(self):
        key = f"/demo/log{self.seed % 2}"
        status, headers, _ = self.call({200, 404}, "HEAD", key)
        at = int(headers["x-oss-next-append-position"]) if status == 200 else 0
        data = bytes([65 + self.seed % 26]) * self.random.choice([1, 1000])
        if self.call({200, 409}, "POST", f"{key}?append&position={at}", data)[0] == 200:
            _, _, text = self.call({206}, "GET", key, Range=f"bytes={at}-{at + len(data) - 1}")
            if text != data:
                complain("other bytes than were appended", key, at)

    def upload(self):
        key = f"/demo/big{self.seed % 2}"
        _, _, text = self.call({200}, "POST", key + "?uploads")
        id = re.search(rb"<UploadId>(\w+)", text).group(1).decode()
        xml = "<CompleteMultipartUpload>"
        for n, size in enumerate((102400, 1000), 1):
            _, headers, _ = self.call({200}, "PUT", f"{key}?partNumber={n}&uploadId={id}", os.urandom(size))
            xml += f"<Part><PartNumber>{n}</PartNumber><ETag>{headers['ETag']}</ETag></Part>"
        xml += "</CompleteMultipartUpload>"
        ends = []
        def end():
            other = Client(0)
            if self.random.random() < 0.3:
                ends.append(other.call({204, 404}, "DELETE", f"{key}?uploadId={id}")[0])
            else:
                ends.append(other.call({200, 404}, "POST", f"{key}?uploadId={id}", xml.encode())[0])
        pair = [threading.Thread(target=end) for _ in range(2)]
        [t.start() for t in pair]
        [t.join() for t in pair]
        if ends.count(404) != 1:
            complain("an upload ended by two, who were told", ends)

    def bucket(self):
        name = f"/bucket{self.seed % 2}"
        self.call({200}, "PUT", name)
        self.call({200, 404}, "PUT", name + "/x/y", b"1")
        self.call({204, 404}, "DELETE", name + "/x/y")
        self.call({204, 404, 409}, "DELETE", name)

    def large_headers(self):  # they lie beside the file, under its inode's number, which is soon another file's
        key = f"/demo/described{self.random.randrange(3)}"
        self.call({200}, "PUT", key, b"x", meta_a="v" * 6000)
        _, headers, _ = self.call({200}, "HEAD", key)
        if "x-oss-meta-a" not in headers:
            complain("an object lost its headers", key)

def run(seed):
    client = Client(seed)
    jobs = [client.large_headers] if sys.argv[4:] else [client.put] * 6 + [client.get] * 6 + [client.list] * 2 + [client.append] * 2 + [
        client.delete, client.copy, client.describe, client.upload, client.bucket]
    for _ in range(rounds):
        try:
            client.random.choice(jobs)()
        except Exception as e:
            complain(repr(e))
        if len(complaints) > 20:
            return

workers = [threading.Thread(target=run, args=(seed,)) for seed in range(threads)]
[w.start() for w in workers]
[w.join() for w in workers]
print(sum(seen.values()), "requests", dict(seen))
sys.exit(bool(complaints))
PY
check "clients that meet see whole objects and no errors" python3 "$WORK/meet.py" "$STORE_ADDRESS" 24 200
check "files that follow one another keep their own headers" python3 "$WORK/meet.py" "$STORE_ADDRESS" 16 300 headers
check "the store lives" kill -0 "$STORE_PID"
stop_process "$STORE_PID"
check_not "nothing went wrong in it" grep -E "ERROR|WARNING|runtime error|warn store" "$STORE_LOG"
nothing_staged() { [ -z "$(find "$STORE_DIR/.cistern/tmp" "$STORE_DIR/.cistern/appends" "$STORE_DIR/.cistern/uploads" -type f)" ]; }
check "nothing half-done is kept" nothing_staged
# A record beside a file (headers too large for extended attributes) goes with the file.
records_have_files() {
	local record
	for record in "$STORE_DIR"/.cistern/records/*; do
		[ -e "$record" ] || continue
		[ -n "$(find "$STORE_DIR" -inum "$(basename "$record")")" ] || return 1
	done
}
check "every record has its file" records_have_files
