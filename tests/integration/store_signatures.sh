#!/usr/bin/env bash
# Bodies signed chunk by chunk and signed URLs, right and wrong in every place.
. "$(dirname "$0")/lib.sh"
requires python3

mkdir -p "$WORK/objects/demo"
STORE_DIR=$WORK/objects
echo key:secret >"$WORK/keys"
start_store --keys "$WORK/keys"
cat >"$WORK/sign.py" <<'PY'
import base64, datetime, hashlib, hmac, http.client, sys, time, urllib.parse, zlib
address = sys.argv[1]
PATH, EMPTY = "/demo/object", hashlib.sha256(b"").hexdigest()
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
failed = False

def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()

def signing_key(day):
    return mac(mac(mac(mac(b"AWS4secret", day), "us-east-1"), "s3"), "aws4_request")

def now(skew):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=skew)).strftime("%Y%m%dT%H%M%SZ")

def ask(method, target, body=None, headers={}):
    c = http.client.HTTPConnection(address, timeout=60)
    c.request(method, target, body, headers)
    r = c.getresponse()
    text = r.read().decode(errors="replace")
    return r.status, text.partition("<Code>")[2].partition("<")[0]

def expect(what, got, status, code=""):
    global failed
    if got != (status, code):
        failed = True
        print(what, "gave", got)

def put(chunks, spoil=None, declared=None, trailer=None, skew=0, last=True):
    when = now(skew)
    day = when[:8]
    headers = {"host": address, "x-amz-content-sha256": SIGNED + ("-TRAILER" if trailer else ""), "x-amz-date": when,
               "x-amz-decoded-content-length": str(sum(map(len, chunks)) if declared is None else declared)}
    if trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    names = ";".join(sorted(headers))
    canonical = f"PUT\n{PATH}\n\n" + "".join(f"{k}:{headers[k]}\n" for k in sorted(headers)) + f"\n{names}\n" + headers["x-amz-content-sha256"]
    scope = f"{day}/us-east-1/s3/aws4_request"
    key = signing_key(day)
    previous = signature = mac(key, f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}").hex()
    body = b""
    for i, chunk in enumerate(chunks + ([b""] if last else [])):
        previous = mac(key, f"AWS4-HMAC-SHA256-PAYLOAD\n{when}\n{scope}\n{previous}\n{EMPTY}\n{hashlib.sha256(chunk).hexdigest()}").hex()
        shown = "0" * 64 if spoil == ("signature", i) else previous
        body += f"{len(chunk):x}".encode() + (b"" if spoil == ("none", i) else f";chunk-signature={shown}".encode()) + b"\r\n"
        body += b"X" + chunk[1:] if spoil == ("data", i) else chunk
        body += b"" if trailer and not chunk else b"\r\n"
    if trailer:
        line = f"x-amz-checksum-crc32:{trailer}\n"
        shown = mac(key, f"AWS4-HMAC-SHA256-TRAILER\n{when}\n{scope}\n{previous}\n{hashlib.sha256(line.encode()).hexdigest()}").hex()
        body += f"{line.strip()}\r\nx-amz-trailer-signature:{'0' * 64 if spoil == 'trailer' else shown}\r\n\r\n".encode()
    del headers["host"]
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential=key/{scope}, SignedHeaders={names}, Signature={signature}"
    return ask("PUT", PATH, body, headers)

def presigned(expires="60", skew=0):
    when = now(skew)
    scope = f"{when[:8]}/us-east-1/s3/aws4_request"
    query = {"X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"key/{scope}", "X-Amz-Date": when,
             "X-Amz-Expires": expires, "X-Amz-SignedHeaders": "host"}
    text = "&".join(f"{k}={urllib.parse.quote(query[k], safe='')}" for k in sorted(query))
    canonical = f"GET\n{PATH}\n{text}\nhost:{address}\n\nhost\nUNSIGNED-PAYLOAD"
    signature = mac(signing_key(when[:8]), f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}").hex()
    return ask("GET", f"{PATH}?{text}&X-Amz-Signature={signature}")

def version1(expires):
    signature = base64.b64encode(hmac.new(b"secret", f"GET\n\n\n{expires}\n{PATH}".encode(), hashlib.sha1).digest()).decode()
    return ask("GET", f"{PATH}?OSSAccessKeyId=key&Expires={expires}&Signature={urllib.parse.quote(signature, safe='')}")

A, B = b"a" * 65536, b"b" * 100
CRC = base64.b64encode(zlib.crc32(A + B).to_bytes(4, "big")).decode()
BAD = 403, "SignatureDoesNotMatch"
expect("signed chunks", put([A, B]), 200)
for what in "signature", "none":
    for i in range(3):
        expect(f"a bad {what} of chunk {i}", put([A, B], (what, i)), *BAD)
expect("changed data", put([A, B], ("data", 1)), *BAD)
expect("less than declared", put([A, B], declared=len(A + B) + 1), 400, "IncompleteBody")
expect("more than declared", put([A, B], declared=len(A)), 400, "IncompleteBody")
expect("no last chunk", put([A, B], last=False), 400, "IncompleteBody")
expect("an empty object", put([]), 200)
expect("an empty object without its only chunk", put([], last=False), 400, "IncompleteBody")
expect("too late", put([A], skew=-1000), 403, "RequestTimeTooSkewed")
expect("too early", put([A], skew=1000), 403, "RequestTimeTooSkewed")
expect("a signed trailer", put([A, B], trailer=CRC), 200)
expect("a trailer badly signed", put([A, B], "trailer", trailer=CRC), *BAD)
expect("a wrong checksum", put([A, B], trailer="AAAAAA=="), 400, "BadDigest")
expect("a signed URL", presigned(), 200)
expect("an expired one", presigned("10", -20), 403, "AccessDenied")
expect("one of the future", presigned(skew=2000), 403, "AccessDenied")
for expires, code in ("0", "AuthorizationQueryParametersError"), ("604801", "AuthorizationQueryParametersError"):
    expect(f"one for {expires} s", presigned(expires), 400, code)
for expires in "-1", "9223372036854775807", "99999999999999999999", "1e3":
    expect(f"one for {expires} s", presigned(expires), 400, "AuthorizationHeaderMalformed")
expect("a URL of version 1", version1(int(time.time()) + 60), 200)
expect("an expired one", version1(int(time.time()) - 1), 403, "AccessDenied")
for expires in "9223372036854775808", "-5", "abc":
    expect(f"one until {expires}", version1(expires), 400, "InvalidArgument")
sys.exit(failed)
PY
check "what is signed right is taken, what is wrong is refused" python3 "$WORK/sign.py" "$STORE_ADDRESS"
check "the store lives" kill -0 "$STORE_PID"
