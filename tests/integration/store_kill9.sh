#!/usr/bin/env bash
# sanitize long
# What the store answered with 200 is there after kill -9, bit for bit: PutObject (new and over an old object), AppendObject
# and CompleteMultipartUpload by several writers while the store is killed again and again. What was under way when it died
# is there whole or not at all.
. "$(dirname "$0")/lib.sh"
requires python3 curl

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects

# Writes until the store goes, then notes what was answered (done) and what was under way (maybe); later compares.
cat >"$WORK/writer.py" <<'PY'
import hashlib, http.client, json, re, sys, threading
mode, address, state_file, seed = sys.argv[1:5]
PART = 100 * 1024

def data(key, version, size):
    block = hashlib.sha256(f"{key} {version}".encode()).digest()
    return (block * (size // len(block) + 1))[:size]

def size_of(key, version):
    return int(hashlib.md5(f"{key}/{version}".encode()).hexdigest()[:5], 16) % 300000

def call(c, method, path, body=b""):
    c.request(method, "/demo/" + path, body, {"x-oss-date": "now", "Content-Length": str(len(body))})
    r = c.getresponse()
    text = r.read()
    if r.status >= 300:
        print(method, path, r.status, text[:300].decode(errors="replace"))
        sys.exit(1)
    return r, text

def put(c, key, state):
    v = state["done"] + 1
    state["maybe"] = v
    call(c, "PUT", key, data(key, v, size_of(key, v)))

def append(c, key, state):
    v = state["done"] + 1
    state["maybe"] = v
    call(c, "POST", f"{key}?append&position={state['length']}", data(key, v, size_of(key, v)))
    state["length"] += size_of(key, v)

def multipart(c, key, state):
    v = state["done"] + 1
    state["maybe"] = v
    _, text = call(c, "POST", key + "?uploads")
    upload = re.search(rb"<UploadId>(\w+)<", text).group(1).decode()
    whole = data(key, v, PART * 3 + 17)
    xml = "<CompleteMultipartUpload>"
    for n in range(4):
        r, _ = call(c, "PUT", f"{key}?partNumber={n + 1}&uploadId={upload}", whole[n * PART:(n + 1) * PART])
        xml += f"<Part><PartNumber>{n + 1}</PartNumber><ETag>{r.headers['ETag']}</ETag></Part>"
    call(c, "POST", f"{key}?uploadId={upload}", (xml + "</CompleteMultipartUpload>").encode())

JOBS = {"put0": put, "put0/below": put, "put1": put, "dir/put2": put, "log0": append, "log1": append, "big0": multipart,
        "big1": multipart}

def content(key, version):
    if JOBS[key] is append:
        return b"".join(data(key, v, size_of(key, v)) for v in range(1, version + 1))
    return data(key, version, PART * 3 + 17 if JOBS[key] is multipart else size_of(key, version))

def run(key, state):
    c = http.client.HTTPConnection(address, timeout=60)
    try:
        while True:
            JOBS[key](c, key, state)
            state["done"] = state["maybe"]
    except (OSError, http.client.HTTPException):
        pass  # the store is gone

def verify(key, state):
    c = http.client.HTTPConnection(address, timeout=60)
    c.request("GET", "/demo/" + key, headers={"x-oss-date": "now"})
    r = c.getresponse()
    body = r.read()
    if r.status == 404 and state["done"] == 0:
        state["maybe"] = 0
        return True
    for v in {state["done"], state["maybe"]}:
        if r.status == 200 and v and body == content(key, v):
            etag = r.headers["ETag"].strip('"').lower()
            if JOBS[key] is put and etag != hashlib.md5(body).hexdigest():
                print(key, "has the ETag", etag)
                return False
            state.update(done=v, maybe=v, length=len(body))
            return True
    print(key, "answered", r.status, len(body), "bytes, expected version", state["done"], "or", state["maybe"])
    return False

try:
    states = json.load(open(state_file))
except FileNotFoundError:
    states = {k: {"done": 0, "maybe": 0, "length": 0} for k in JOBS}
if mode == "write":
    threads = [threading.Thread(target=run, args=(k, states[k])) for k in JOBS]
    [t.start() for t in threads]
    [t.join() for t in threads]
    good = True
elif mode == "verify":
    good = all([verify(k, s) for k, s in states.items()])
else:
    good = all(s["done"] >= 2 for s in states.values())
json.dump(states, open(state_file, "w"))
sys.exit(not good)
PY

start_store --anonymous
STORE_LISTEN=$STORE_ADDRESS
for round in 1 2 3 4 5 6 7 8; do
	python3 "$WORK/writer.py" write "$STORE_ADDRESS" "$WORK/state.json" "$round" >"$WORK/writer.log" 2>&1 &
	writer=$!
	sleep "0.$((round * 7 % 10 + 2))"
	kill -9 "$STORE_PID"
	wait "$STORE_PID" 2>/dev/null
	wait "$writer"
	check "round $round: the writers saw nothing but success" equal $? 0
	start_store --anonymous
	check "round $round: everything answered is there" python3 "$WORK/writer.py" verify "$STORE_ADDRESS" "$WORK/state.json" "$round"
done
check "every writer got something done" python3 "$WORK/writer.py" count "$STORE_ADDRESS" "$WORK/state.json" 0
nothing_staged() { [ -z "$(find "$STORE_DIR/.cistern/tmp" "$STORE_DIR/.cistern/appends" -mindepth 1)" ]; }
check "nothing half-done is kept" nothing_staged
