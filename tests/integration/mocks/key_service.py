#!/usr/bin/env python3
"""Plays the services that give out temporary keys: instance metadata of ECS and of EC2 (with and without session tokens) and STS's
AssumeRoleWithOIDC. Only the standard library.

Each key is known to the store before it is given out: the file that `cistern store --keys` reads holds the lines it had at the
start, the key that is current and the next one, and the one before. POST /-/revoke makes the current and older keys unknown at
once; POST /-/fail?status=503 makes every answer that status (0: no more); GET /-/stats tells what was asked.

Prints "listening on http://ADDRESS:PORT" for each address. The log has one line a request, without contents.
"""
import argparse
import datetime
import json
import os
import ssl
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Keys:
    """The keys that exist, and the store's file of them."""

    def __init__(self, path, life):
        self.path = path
        self.life = life
        self.lock = threading.Lock()
        self.count = 0
        with open(path, encoding="ascii") as f:
            self.base = f.read()
        self.previous = None
        self.current = self.make()
        self.following = self.make()
        self.issued = None
        self.write()

    def make(self):
        self.count += 1
        # The words let a test look for secrets where none may be.
        return (f"STS.mock{self.count}." + os.urandom(3).hex(), f"mock-secret-{self.count}-" + os.urandom(8).hex(), f"mock-token-{self.count}-" + os.urandom(8).hex())

    def write(self):
        with open(self.path + ".new", "w", encoding="ascii") as f:
            f.write(self.base)
            for key in (self.previous, self.current, self.following):
                if key:
                    f.write(f"{key[0]}:{key[1]}::{key[2]}\n")
        os.rename(self.path + ".new", self.path)

    def advance(self, forget):
        self.previous = None if forget else self.current
        self.current = self.following
        self.following = self.make()
        self.issued = None
        self.write()

    def give(self, always_new):
        """A key and its expiration; a metadata service repeats one until 0.4 of its life are over."""
        with self.lock:
            now = time.time()
            if self.issued is not None and (always_new or now > self.issued + self.life * 0.4):
                self.advance(forget=False)
            if self.issued is None:
                self.issued = now
            end = datetime.datetime.fromtimestamp(self.issued + self.life, datetime.timezone.utc)
            return self.current, end.strftime("%Y-%m-%dT%H:%M:%SZ")

    def revoke(self):
        with self.lock:
            self.advance(forget=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, kind):
        data = body.encode()
        self.server.count(kind, status)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()

    def control(self, path, query):
        if path == "/-/revoke":
            self.server.keys.revoke()
        elif path == "/-/fail":
            self.server.fail = int(query["status"][0])
        return self.answer(200, json.dumps(self.server.stats) if path == "/-/stats" else "", "control")

    def handle_one(self):
        path, _, text = self.path.partition("?")
        query = urllib.parse.parse_qs(text)
        body = self.body()
        if path.startswith("/-/"):
            return self.control(path, query)
        if self.server.fail:
            return self.answer(self.server.fail, "", "failed")
        if path == "/latest/api/token":
            return self.session_token()
        for cloud, base in (("ram", "/latest/meta-data/ram/security-credentials/"), ("iam", "/latest/meta-data/iam/security-credentials/")):
            if path.startswith(base):
                return self.role(cloud, path[len(base):])
        if query.get("Action") == ["AssumeRoleWithOIDC"]:
            return self.sts(query, urllib.parse.parse_qs(body))
        return self.answer(404, "", "unknown")

    do_GET = do_PUT = do_POST = handle_one

    def session_token(self):
        if self.server.args.imds == "v1":
            return self.answer(404, "", "token")
        ttl = self.headers.get("X-aliyun-ecs-metadata-token-ttl-seconds") or self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        if self.command != "PUT" or not ttl or not 1 <= int(ttl) <= 21600:
            return self.answer(400, "", "token")
        return self.answer(200, self.server.session, "token")

    def role(self, cloud, name):
        header = "X-aliyun-ecs-metadata-token" if cloud == "ram" else "X-aws-ec2-metadata-token"
        if self.server.args.imds == "v2" and self.headers.get(header) != self.server.session:
            return self.answer(401, "", "role")
        if self.command != "GET":
            return self.answer(405, "", "role")
        if name == "":
            return self.answer(200, self.server.args.role + "\n", "list")
        if name != self.server.args.role:
            return self.answer(404, "", "role")
        key, expiration = self.server.keys.give(always_new=False)
        names = ("AccessKeySecret", "SecurityToken") if cloud == "ram" else ("SecretAccessKey", "Token")
        return self.answer(200, json.dumps({"Code": "Success", "AccessKeyId": key[0], names[0]: key[1], names[1]: key[2],
                                            "Expiration": expiration, "LastUpdated": "2020-01-01T00:00:00Z"}), "role")

    def sts(self, query, form):
        with open(self.server.args.oidc_token, encoding="ascii") as f:
            token = f.read().strip()
        needed = {"RoleArn": self.server.args.role, "OIDCProviderArn": "provider", "OIDCToken": token}
        good = all(form.get(name) == [value] for name, value in needed.items()) and form.get("RoleSessionName")
        if self.command != "POST" or query.get("Format") != ["JSON"] or query.get("Version") != ["2015-04-01"] or not good:
            # Real services repeat what they were sent; a client must not put that into its log.
            return self.answer(400, json.dumps({"Code": "AuthenticationFail.OIDCToken.Invalid", "RequestId": "0-1-2",
                                                "Message": "bad token " + form.get("OIDCToken", [""])[0]}), "sts")
        key, expiration = self.server.keys.give(always_new=True)
        return self.answer(200, json.dumps({"RequestId": "0-1-2", "AssumedRoleUser": {"Arn": "x"}, "Credentials": {
            "AccessKeyId": key[0], "AccessKeySecret": key[1], "SecurityToken": key[2], "Expiration": expiration}}), "sts")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def count(self, kind, status):
        with self.keys.lock:
            self.stats[kind] = self.stats.get(kind, 0) + 1
        print(f"{time.time():.3f} {kind} {status}", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", action="append", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--keys", required=True)
    parser.add_argument("--life", type=float, default=3600)
    parser.add_argument("--imds", choices=("v1", "v2"), default="v2")
    parser.add_argument("--role", default="demo")
    parser.add_argument("--oidc-token", metavar="FILE")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    args = parser.parse_args()
    keys = Keys(args.keys, args.life)
    stats, session = {}, "session-" + os.urandom(8).hex()
    for where in args.listen:
        address, port = where.rsplit(":", 1)
        server = Server((address, int(port)), Handler)
        server.args, server.keys, server.stats, server.session, server.fail = args, keys, stats, session, 0
        if args.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*args.tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"listening on {'https' if args.tls else 'http'}://{address}:{server.server_address[1]}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
