#!/usr/bin/env bash
# A power failure can't be had in a test, but what it would take can: each operation that was answered 200 or 204 has put
# its data and its name on disk before the answer went out. strace shows the system calls of the store in their order;
# a file is safe when it was synced after the last byte and the last attribute, a name when its directory was synced after it
# came or went, and a new directory when the one that it is in was.
. "$(dirname "$0")/lib.sh"
requires strace python3 curl

STORE_DIR=$WORK/objects
mkdir -p "$STORE_DIR/demo"
start_store --anonymous
strace -f -q -y -s 64 -o "$WORK/trace" -p "$STORE_PID" \
	-e trace=openat,openat2,write,sendto,sendmsg,copy_file_range,fsetxattr,utimensat,ftruncate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat \
	2>"$WORK/strace.err" &
STRACE=$!
cleanup "kill $STRACE 2>/dev/null; wait $STRACE 2>/dev/null"
traced() { grep -q '^TracerPid:	[1-9]' "/proc/$STORE_PID/task/"*/status; }
wait_for 10 traced || skip "strace can't attach here: $(cat "$WORK/strace.err")"

cat >"$WORK/operations.py" <<'PY'
import http.client, re, sys
address = sys.argv[1]
c = http.client.HTTPConnection(address, timeout=60)
PART = b"p" * (100 * 1024)

def call(label, method, path, body=b"", **headers):
    headers = {"x-oss-" + k.replace("_", "-"): v for k, v in headers.items()}
    headers["x-oss-meta-label"] = label  # seen nowhere, but makes the dialect clear
    c.request(method, "/demo/" + path, body, headers)
    r = c.getresponse()
    text = r.read()
    if r.status >= 300:
        sys.exit(f"{label}: {r.status} {text}")
    return r, text

def upload(key):
    _, text = call("initiate", "POST", key + "?uploads")
    return re.search(rb"<UploadId>(\w+)<", text).group(1).decode()

call("put", "PUT", "plain", b"x" * 100000)
call("put in new directories", "PUT", "new/deep/er/key", b"y" * 1000)
call("put over an object", "PUT", "plain", b"z" * 1000)
call("put below an object", "PUT", "plain/below", b"z" * 1000)
call("put large headers", "PUT", "headers", b"z", **{f"meta-{i}": "v" * 1000 for i in range(7)})
call("append, first", "POST", "log?append&position=0", b"one")
call("append", "POST", "log?append&position=3", b"two" * 10000)
id = upload("big")
xml = "<CompleteMultipartUpload>"
for n in (1, 2):
    r, _ = call("part", "PUT", f"big?partNumber={n}&uploadId={id}", PART)
    xml += f"<Part><PartNumber>{n}</PartNumber><ETag>{r.headers['ETag']}</ETag></Part>"
r, _ = call("part copied", "PUT", f"big?partNumber=3&uploadId={id}", copy_source="/demo/plain")
xml += f"<Part><PartNumber>3</PartNumber><ETag>{r.headers['ETag']}</ETag></Part>"
call("complete", "POST", f"big?uploadId={id}", (xml + "</CompleteMultipartUpload>").encode())
call("abort", "DELETE", f"other?uploadId={upload('other')}")
call("copy", "PUT", "copies/copy", copy_source="/demo/plain")
call("metadata", "PUT", "plain", copy_source="/demo/plain", metadata_directive="REPLACE", meta_a="b")
call("tags", "PUT", "plain?tagging", b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>")
call("symlink", "PUT", "link?symlink", symlink_target="plain")
call("delete", "DELETE", "copies/copy")
call("delete many", "POST", "?delete", b"<Delete><Object><Key>link</Key></Object><Object><Key>headers</Key></Object></Delete>")
c.request("PUT", "/another", headers={"x-oss-date": "x"}); c.getresponse().read()
c.request("DELETE", "/another", headers={"x-oss-date": "x"}); c.getresponse().read()
PY
check "operations of every kind succeed" python3 "$WORK/operations.py" "$STORE_ADDRESS"
kill "$STRACE"
wait "$STRACE" 2>/dev/null

cat >"$WORK/order.py" <<'PY'
"""Reads the trace: prints each name or file that an answer found unsafe."""
import os, re, sys
trace, root = sys.argv[1:3]
calls, pending = [], {}
for line in open(trace, errors="replace"):
    thread, _, rest = line.rstrip("\n").partition(" ")
    rest = rest.lstrip()
    if rest.endswith("<unfinished ...>"):
        pending[thread] = rest[:-len("<unfinished ...>")].rstrip()
        continue
    m = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
    if m:
        rest = pending.pop(thread, "") + m.group(1)
    calls.append(rest)

def fd(text):  # 5</path> -> /path
    m = re.search(r"\d+<(/[^>]*)>", text)
    return m.group(1).replace(" (deleted)", "").replace("(deleted)", "") if m else None

def at(directory, name):
    return os.path.normpath(os.path.join(fd(directory) or "", name))

unsafe_file, unsafe_dir = set(), {}   # paths with unsynced content; directory -> names that came or went
answers = bad = renames = syncs = 0
DIRECTORY = r"(\d+<[^>]*>|AT_FDCWD[^,]*)"
for call in calls:
    name = call.partition("(")[0]
    if re.search(r"= -1 E", call):
        continue
    inside = root + "/"
    if name in ("write", "copy_file_range", "fsetxattr", "ftruncate", "futimens", "utimensat"):
        paths = re.findall(r"\d+<(/[^>]*)>", call)
        target = paths[1] if name == "copy_file_range" and len(paths) > 1 else paths[0] if paths else ""
        if target.startswith(inside):
            unsafe_file.add(target)
    elif name in ("fsync", "fdatasync"):
        path = fd(call)
        unsafe_file.discard(path)
        unsafe_dir.pop(path, None)
        syncs += 1
    elif name in ("mkdirat", "unlinkat"):
        m = re.match(rf'\w+\({DIRECTORY}, "([^"]*)"', call)
        path = at(m.group(1), m.group(2))
        # What goes from the store's own corners, and directories that were emptied, may come back after a power failure.
        temporary = "/.cistern/" in path and not path.endswith("/upload")
        if name == "unlinkat" and (temporary or "AT_REMOVEDIR" in call):
            unsafe_dir.pop(path, None)
            for d in unsafe_dir.values():
                d.discard(path)
        elif not ("/.cistern/tmp/" in path):
            unsafe_dir.setdefault(os.path.dirname(path), set()).add(path)
        if name == "unlinkat":
            unsafe_file.discard(path)
    elif name in ("renameat", "renameat2", "linkat"):
        m = re.match(rf'\w+\({DIRECTORY}, "([^"]*)", {DIRECTORY}, "([^"]*)"', call)
        old, new = at(m.group(1), m.group(2)), at(m.group(3), m.group(4))
        renames += name != "linkat"
        if old in unsafe_file and "/.cistern/tmp/" not in new:
            print("renamed before it was synced:", old, "to", new)
            bad += 1
        if old in unsafe_dir and unsafe_dir[old]:
            print("a directory renamed before its names were synced:", old, unsafe_dir[old])
            bad += 1
        if "/.cistern/tmp/" not in new:
            unsafe_dir.setdefault(os.path.dirname(new), set()).add(new)
    if re.search(r'HTTP/1\.1 20[04]', call):
        answers += 1
        # (The bytes of an append have been copied from their temporary file.)
        left = sorted(p for p in unsafe_file if "/.cistern/tmp/" not in p) + sorted(p for d in unsafe_dir.values() for p in d)
        if left:
            bad += 1
            print(f"answer {answers} was sent while these were not on disk:", *left)
            unsafe_file.clear()
            unsafe_dir.clear()
print(answers, "answers", renames, "renames", syncs, "syncs")
sys.exit(bad > 0 or answers < 20 or renames < 10 or syncs < 30)
PY
check "no answer goes out before data and names are on disk" python3 "$WORK/order.py" "$WORK/trace" "$STORE_DIR"
# The test of the test: without the syncs of directories, or of files, it must fail.
sed '/fsync([0-9]*<[^>]*demo\(\/[^>]*\)\?>/d' "$WORK/trace" >"$WORK/trace.names"
check_not "a store that doesn't sync directories is found out" python3 "$WORK/order.py" "$WORK/trace.names" "$STORE_DIR"
sed '/fsync([0-9]*<[^>]*tmp\/[^>]*>/d' "$WORK/trace" >"$WORK/trace.files"
check_not "a store that doesn't sync files is found out" python3 "$WORK/order.py" "$WORK/trace.files" "$STORE_DIR"
