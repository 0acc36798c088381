#!/usr/bin/python3
"""Runs real clients against a running `cistern store` that checks signatures, and prints the table client x operation.

    matrix.py --endpoint http://127.0.0.1:PORT --dir STORE-DIRECTORY --ali-oss PATH-OF-THE-NPM-MODULE

Keys come from TEST_AK and TEST_SK. A cell is "ok", "FAILED", or "-" with its reason below the table. Exit status 1 when one failed.
"""
import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
import urllib.request

OPERATIONS = [
    "create bucket", "list buckets", "put", "user metadata", "head", "get", "get range", "odd keys", "list v1", "list v2",
    "delimiter", "multipart", "UploadPartCopy", "list parts, abort", "append", "copy", "OSS symlink", "conditional", "presigned URL",
    "wrong secret", "mount", "delete", "delete many", "delete bucket",
]
ODD = ["a b+c%/ä&=?#.txt", "deep/../dots", "trail/", "collide", "collide/inner", "quote'\"<>"]


class Skip(Exception):
    pass


def check(condition, text=""):
    if not condition:
        raise AssertionError(text or "unexpected result")


class Client:
    """One client: a method for each operation, named op_<words>; a string attribute there is the reason for an empty cell."""

    name = ""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.ak, self.sk = os.environ["TEST_AK"], os.environ["TEST_SK"]
        self.bucket = self.name.replace(" ", "-").lower() + "-bucket"
        self.env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": work, "LANG": "C.UTF-8"}
        self.data = os.path.join(work, "data")
        self.small = self.file("small", 5000)
        self.large = self.file("large", 12 << 20)

    def file(self, name, size):
        path = os.path.join(self.work, name)
        with open(path, "wb") as f:
            f.write(os.urandom(size))
        return path

    def run(self, *argv, env=None, fails=False, text=True):
        done = subprocess.run(argv, env={**self.env, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=120, stdin=subprocess.DEVNULL, check=False)
        if fails:
            check(done.returncode != 0, f"{argv[:4]} should have failed")
            return (done.stdout + done.stderr).decode(errors="replace")
        check(done.returncode == 0, f"{' '.join(argv)[:300]}: {done.stderr.decode(errors='replace')[-1500:]}")
        return done.stdout.decode() if text else done.stdout

    def stored(self, key):
        """The bytes of an ordinary key, as they lie in the store's directory."""
        with open(os.path.join(self.args.dir, self.bucket, key), "rb") as f:
            return f.read()

    def same(self, path_a, path_b_or_bytes):
        a = open(path_a, "rb").read()
        b = path_b_or_bytes if isinstance(path_b_or_bytes, bytes) else open(path_b_or_bytes, "rb").read()
        check(a == b, f"bytes differ: {len(a)} and {len(b)}")

    def out(self, name="out"):
        return os.path.join(self.work, name)


S3_APPEND = "the S3 API has no append"
S3_SYMLINK = "the S3 API has no symbolic links"


class AwsCli(Client):
    name = "awscli"
    op_append, op_oss_symlink, op_mount = S3_APPEND, S3_SYMLINK, "not a file system"

    def aws(self, *argv, fails=False, env=None):
        keys = {"AWS_ACCESS_KEY_ID": self.ak, "AWS_SECRET_ACCESS_KEY": self.sk, "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true", "AWS_PAGER": ""}
        keys.update(env or {})
        return self.run("/usr/bin/aws", "--endpoint-url", self.args.endpoint, "--output", "json", *argv, env=keys, fails=fails)

    def api(self, command, *argv, **kw):
        text = self.aws("s3api", command, "--bucket", self.bucket, *argv, **kw)
        return json.loads(text) if text.strip().startswith("{") else text

    def op_create_bucket(self): self.aws("s3", "mb", f"s3://{self.bucket}")
    def op_list_buckets(self): check(self.bucket in self.aws("s3", "ls"))

    def op_put(self):
        self.aws("s3", "cp", self.small, f"s3://{self.bucket}/dir/small")
        self.same(self.small, self.stored("dir/small"))

    def op_user_metadata(self):
        self.api("put-object", "--key", "meta", "--body", self.small, "--metadata", "color=blue,size=xl", "--content-type", "text/x-test")
        head = self.api("head-object", "--key", "meta")
        check(head["Metadata"] == {"color": "blue", "size": "xl"} and head["ContentType"] == "text/x-test", head)

    def op_head(self): check(self.api("head-object", "--key", "dir/small")["ContentLength"] == 5000)

    def op_get(self):
        self.aws("s3", "cp", f"s3://{self.bucket}/dir/small", self.out())
        self.same(self.small, self.out())

    def op_get_range(self):
        self.api("get-object", "--key", "dir/small", "--range", "bytes=100-199", self.out())
        self.same(self.out(), open(self.small, "rb").read()[100:200])

    def op_odd_keys(self):
        for key in ODD:
            self.api("put-object", "--key", key, "--body", self.small)
        keys = [o["Key"] for o in self.api("list-objects-v2")["Contents"]]
        check(set(ODD) <= set(keys), keys)
        for key in ODD:
            self.api("get-object", "--key", key, self.out())
            self.same(self.small, self.out())

    def op_list_v1(self): check("dir/small" in [o["Key"] for o in self.api("list-objects", "--page-size", "2")["Contents"]])
    def op_list_v2(self): check("dir/small" in [o["Key"] for o in self.api("list-objects-v2", "--page-size", "2")["Contents"]])

    def op_delimiter(self):
        page = self.api("list-objects-v2", "--delimiter", "/")
        check("dir/" in [p["Prefix"] for p in page["CommonPrefixes"]], page)

    def op_multipart(self):
        self.aws("s3", "cp", self.large, f"s3://{self.bucket}/large")
        self.same(self.large, self.stored("large"))
        check(self.api("head-object", "--key", "large")["ETag"].endswith('-2"'))

    def op_uploadpartcopy(self):
        self.aws("s3", "cp", f"s3://{self.bucket}/large", f"s3://{self.bucket}/large-copy")
        self.same(self.large, self.stored("large-copy"))

    def op_list_parts_abort(self):
        upload = self.api("create-multipart-upload", "--key", "unfinished")["UploadId"]
        self.api("upload-part", "--key", "unfinished", "--upload-id", upload, "--part-number", "1", "--body", self.small)
        check(self.api("list-parts", "--key", "unfinished", "--upload-id", upload)["Parts"][0]["Size"] == 5000)
        check(upload in [u["UploadId"] for u in self.api("list-multipart-uploads")["Uploads"]])
        self.api("abort-multipart-upload", "--key", "unfinished", "--upload-id", upload)
        check("NoSuchUpload" in self.api("list-parts", "--key", "unfinished", "--upload-id", upload, fails=True))

    def op_copy(self):
        self.aws("s3", "cp", f"s3://{self.bucket}/dir/small", f"s3://{self.bucket}/copy")
        self.same(self.small, self.stored("copy"))

    def op_conditional(self):
        etag = self.api("head-object", "--key", "dir/small")["ETag"]
        check("304" in self.api("get-object", "--key", "dir/small", "--if-none-match", etag, self.out(), fails=True))
        check("412" in self.api("get-object", "--key", "dir/small", "--if-match", '"x"', self.out(), fails=True)
              or "PreconditionFailed" in self.api("get-object", "--key", "dir/small", "--if-match", '"x"', self.out(), fails=True))

    def op_presigned_url(self):
        url = self.aws("s3", "presign", f"s3://{self.bucket}/dir/small", "--expires-in", "60").strip()
        self.same(self.small, urllib.request.urlopen(url, timeout=20).read())

    def op_wrong_secret(self):
        check("SignatureDoesNotMatch" in self.aws("s3api", "list-objects-v2", "--bucket", self.bucket, fails=True,
                                                  env={"AWS_SECRET_ACCESS_KEY": "wrong"}))

    def op_delete(self):
        self.aws("s3", "rm", f"s3://{self.bucket}/copy")
        check("404" in self.api("head-object", "--key", "copy", fails=True))

    def op_delete_many(self):
        many = json.dumps({"Objects": [{"Key": k} for k in ODD], "Quiet": True})
        self.api("delete-objects", "--delete", many)
        keys = [o["Key"] for o in self.api("list-objects-v2")["Contents"]]
        check(not set(ODD) & set(keys), keys)

    def op_delete_bucket(self):
        check("BucketNotEmpty" in self.api("delete-bucket", fails=True))
        self.aws("s3", "rb", "--force", f"s3://{self.bucket}")
        check(self.bucket not in self.aws("s3", "ls"))


class S3cmd(Client):
    name = "s3cmd"
    op_append, op_oss_symlink, op_mount = S3_APPEND, S3_SYMLINK, "not a file system"
    op_conditional = "s3cmd sends no conditional headers"
    op_list_v2 = "s3cmd lists with V1 only"

    def s3cmd(self, *argv, secret=None, **kw):
        host = urllib.parse.urlsplit(self.args.endpoint).netloc
        config = self.out("s3cfg")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"[default]\naccess_key = {self.ak}\nsecret_key = {secret or self.sk}\nhost_base = {host}\n"
                    f"host_bucket = {host}\nuse_https = False\nmultipart_copy_chunk_size_mb = 5\n")
        return self.run("s3cmd", "-c", config, "--no-progress", *argv, **kw)

    def url(self, key=""): return f"s3://{self.bucket}/{key}"
    def op_create_bucket(self): self.s3cmd("mb", self.url())
    def op_list_buckets(self): check(self.bucket in self.s3cmd("ls"))

    def op_put(self):
        self.s3cmd("put", self.small, self.url("dir/small"))
        self.same(self.small, self.stored("dir/small"))

    def op_user_metadata(self):
        self.s3cmd("put", "--add-header=x-amz-meta-color:blue", "-m", "text/x-test", self.small, self.url("meta"))
        info = self.s3cmd("info", self.url("meta"))
        check("color: " in info.lower() and "blue" in info and "text/x-test" in info, info)

    def op_head(self): check("5000" in self.s3cmd("info", self.url("dir/small")))

    def op_get(self):
        self.s3cmd("get", "--force", self.url("dir/small"), self.out())
        self.same(self.small, self.out())

    def op_get_range(self):
        with open(self.out("part"), "wb") as f:
            f.write(open(self.small, "rb").read()[:1000])
        self.s3cmd("get", "--continue", self.url("dir/small"), self.out("part"))
        self.same(self.small, self.out("part"))

    def op_odd_keys(self):
        for key in [k for k in ODD if not k.endswith("/")]:
            self.s3cmd("put", self.small, self.url(key))
            self.s3cmd("get", "--force", self.url(key), self.out())
            self.same(self.small, self.out())

    def op_list_v1(self): check(self.url("dir/small") in self.s3cmd("ls", "-r", self.url()))
    def op_delimiter(self): check("DIR" in self.s3cmd("ls", self.url()))

    def op_multipart(self):
        self.s3cmd("put", "--multipart-chunk-size-mb=5", self.large, self.url("large"))
        self.same(self.large, self.stored("large"))

    def op_uploadpartcopy(self):
        self.s3cmd("cp", self.url("large"), self.url("large-copy"))
        self.same(self.large, self.stored("large-copy"))

    def op_list_parts_abort(self):
        import boto3  # s3cmd can list and abort, but not leave an upload unfinished
        s3 = boto3.client("s3", endpoint_url=self.args.endpoint, aws_access_key_id=self.ak, aws_secret_access_key=self.sk,
                          region_name="us-east-1")
        upload = s3.create_multipart_upload(Bucket=self.bucket, Key="unfinished")["UploadId"]
        s3.upload_part(Bucket=self.bucket, Key="unfinished", UploadId=upload, PartNumber=1, Body=b"x" * 5000)
        check(upload in self.s3cmd("multipart", self.url()))
        check("5000" in self.s3cmd("listmp", self.url("unfinished"), upload))
        self.s3cmd("abortmp", self.url("unfinished"), upload)
        check(upload not in self.s3cmd("multipart", self.url()))

    def op_copy(self):
        self.s3cmd("cp", self.url("dir/small"), self.url("copy"))
        self.same(self.small, self.stored("copy"))

    def op_presigned_url(self):
        url = self.s3cmd("signurl", self.url("dir/small"), "+60").strip()
        raise Skip("signurl makes Signature V2 URLs, which are not served") if "AWSAccessKeyId=" in url else None

    def op_wrong_secret(self): check("SignatureDoesNotMatch" in self.s3cmd("ls", self.url(), secret="wrong", fails=True))

    def op_delete(self):
        self.s3cmd("del", self.url("copy"))
        check("copy" not in self.s3cmd("ls", self.url("copy")))

    def op_delete_many(self):
        self.s3cmd("del", "-r", "--force", self.url())
        check(self.s3cmd("ls", self.url()).strip() == "")

    def op_delete_bucket(self):
        self.s3cmd("rb", self.url())
        check(self.bucket not in self.s3cmd("ls"))


class Rclone(Client):
    name = "rclone"
    op_append, op_oss_symlink = S3_APPEND, S3_SYMLINK
    op_conditional = "rclone sends no conditional headers on reads"

    def rclone(self, *argv, env=None, **kw):
        config = {"RCLONE_CONFIG": self.out("rclone.conf"), "RCLONE_CONFIG_R_TYPE": "s3", "RCLONE_CONFIG_R_PROVIDER": "Other",
                  "RCLONE_CONFIG_R_ENDPOINT": self.args.endpoint, "RCLONE_CONFIG_R_ACCESS_KEY_ID": self.ak,
                  "RCLONE_CONFIG_R_SECRET_ACCESS_KEY": self.sk, "RCLONE_CONFIG_R_REGION": "us-east-1",
                  "RCLONE_CONFIG_R_UPLOAD_CUTOFF": "5M", "RCLONE_CONFIG_R_CHUNK_SIZE": "5M", "RCLONE_CONFIG_R_COPY_CUTOFF": "5M",
                  "RCLONE_RETRIES": "1", "RCLONE_LOW_LEVEL_RETRIES": "1"}
        open(config["RCLONE_CONFIG"], "a", encoding="utf-8").close()
        return self.run("rclone", *argv, env={**config, **(env or {})}, **kw)

    def url(self, key=""): return f"r:{self.bucket}/{key}"
    def op_create_bucket(self): self.rclone("mkdir", self.url())
    def op_list_buckets(self): check(self.bucket in self.rclone("lsd", "r:"))

    def op_put(self):
        self.rclone("copyto", self.small, self.url("dir/small"))
        self.same(self.small, self.stored("dir/small"))

    def op_user_metadata(self):
        self.rclone("copyto", "--metadata-set", "color=blue", "--metadata", self.small, self.url("meta"))
        check(json.loads(self.rclone("lsjson", "--stat", "-M", self.url("meta")))["Metadata"]["color"] == "blue")

    def op_head(self): check(json.loads(self.rclone("lsjson", "--stat", self.url("dir/small")))["Size"] == 5000)

    def op_get(self):
        self.rclone("copyto", self.url("dir/small"), self.out())
        self.same(self.small, self.out())

    def op_get_range(self):
        check(self.rclone("cat", "--offset", "100", "--count", "100", self.url("dir/small"), text=False) == open(self.small, "rb").read()[100:200])

    def op_odd_keys(self):
        for key in ["a b+c%/ä&=?#.txt", "quote'\"<>", "collide", "collide/inner"]:
            self.rclone("copyto", self.small, self.url(key))
            check(self.rclone("cat", self.url(key), text=False) == open(self.small, "rb").read(), key)

    def op_list_v1(self): check("dir/small" in self.rclone("lsf", "-R", "--s3-list-version", "1", self.url()).split("\n"))
    def op_list_v2(self): check("dir/small" in self.rclone("lsf", "-R", "--s3-list-version", "2", self.url()).split("\n"))
    def op_delimiter(self): check("dir/" in self.rclone("lsf", self.url()).split("\n"))

    def op_multipart(self):
        self.rclone("copyto", self.large, self.url("large"))
        self.same(self.large, self.stored("large"))
        self.rclone("check", "--one-way", self.large, self.url(), "--download")

    def op_uploadpartcopy(self):
        self.rclone("copyto", self.url("large"), self.url("large-copy"))
        self.same(self.large, self.stored("large-copy"))

    def op_list_parts_abort(self):
        check(self.bucket in self.rclone("backend", "list-multipart-uploads", self.url()))
        self.rclone("backend", "cleanup", "-o", "max-age=1s", self.url())

    def op_copy(self):
        self.rclone("copyto", self.url("dir/small"), self.url("copy"))
        self.same(self.small, self.stored("copy"))

    def op_presigned_url(self):
        url = self.rclone("link", "--expire", "1m", self.url("dir/small")).strip()
        self.same(self.small, urllib.request.urlopen(url, timeout=20).read())

    def op_wrong_secret(self):
        check("SignatureDoesNotMatch" in self.rclone("lsf", self.url(), env={"RCLONE_CONFIG_R_SECRET_ACCESS_KEY": "wrong"}, fails=True))

    op_mount = "rclone's mount is FUSE over the operations above"

    def op_delete(self):
        self.rclone("deletefile", self.url("copy"))
        check("copy" not in self.rclone("lsf", self.url()).split("\n"))

    def op_delete_many(self):
        self.rclone("delete", self.url())
        check(self.rclone("lsf", "-R", "--files-only", self.url()).strip() == "")

    def op_delete_bucket(self):
        self.rclone("purge", self.url())
        check(self.bucket not in self.rclone("lsd", "r:"))


class Boto3(Client):
    name = "boto3"
    op_append, op_oss_symlink, op_mount = S3_APPEND, S3_SYMLINK, "not a file system"

    def client(self, secret=None):
        import boto3
        from botocore.config import Config
        return boto3.client("s3", endpoint_url=self.args.endpoint, aws_access_key_id=self.ak, aws_secret_access_key=secret or self.sk,
                            region_name="us-east-1", config=Config(signature_version="s3v4", retries={"max_attempts": 1}, s3={"addressing_style": "path"}))

    def __init__(self, args, work):
        super().__init__(args, work)
        self.s3 = self.client()
        self.b = {"Bucket": self.bucket}
        self.bytes = open(self.small, "rb").read()

    def refused(self, code, call, **kw):
        from botocore.exceptions import ClientError
        try:
            call(**self.b, **kw)
        except ClientError as e:
            check(e.response["Error"]["Code"] == code or e.response["ResponseMetadata"]["HTTPStatusCode"] == code, e.response)
            return
        raise AssertionError(f"{code} expected")

    def body(self, key, **kw): return self.s3.get_object(**self.b, Key=key, **kw)["Body"].read()
    def op_create_bucket(self): self.s3.create_bucket(**self.b)
    def op_list_buckets(self): check(self.bucket in [b["Name"] for b in self.s3.list_buckets()["Buckets"]])

    def op_put(self):
        self.s3.put_object(**self.b, Key="dir/small", Body=self.bytes, ContentMD5=__import__("base64").b64encode(
            __import__("hashlib").md5(self.bytes).digest()).decode())
        self.same(self.small, self.stored("dir/small"))
        self.refused("BadDigest", self.s3.put_object, Key="bad", Body=b"x", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
        self.s3.put_object(**self.b, Key="sum", Body=self.bytes, ChecksumAlgorithm="SHA256")
        self.s3.put_object(**self.b, Key="sum", Body=self.bytes, ChecksumAlgorithm="CRC32")

    def op_user_metadata(self):
        self.s3.put_object(**self.b, Key="meta", Body=b"x", Metadata={"color": "blue"}, ContentType="text/x-test", CacheControl="no-store")
        head = self.s3.head_object(**self.b, Key="meta")
        check(head["Metadata"] == {"color": "blue"} and head["ContentType"] == "text/x-test" and head["CacheControl"] == "no-store", head)

    def op_head(self):
        check(self.s3.head_object(**self.b, Key="dir/small")["ContentLength"] == 5000)
        self.refused(404, self.s3.head_object, Key="missing")

    def op_get(self): check(self.body("dir/small") == self.bytes)

    def op_get_range(self):
        for header, want in (("bytes=100-199", self.bytes[100:200]), ("bytes=4990-", self.bytes[4990:]), ("bytes=-7", self.bytes[-7:]),
                             ("bytes=4000-9999", self.bytes[4000:])):
            check(self.body("dir/small", Range=header) == want, header)
        self.refused("InvalidRange", self.s3.get_object, Key="dir/small", Range="bytes=5000-")

    def op_odd_keys(self):
        keys = ODD + ["k" * 1023, "x/" * 400 + "y", "/lead", "a//b", "...", "\u4e2d\u6587"]
        for key in keys:
            self.s3.put_object(**self.b, Key=key, Body=key.encode())
        for key in keys:
            check(self.body(key) == key.encode(), key)
        listed = [o["Key"] for p in self.s3.get_paginator("list_objects_v2").paginate(**self.b, PaginationConfig={"PageSize": 3}) for o in p["Contents"]]
        check(set(keys) <= set(listed) and listed == sorted(listed, key=lambda k: k.encode()), "order or completeness")

    def op_list_v1(self):
        keys = [o["Key"] for p in self.s3.get_paginator("list_objects").paginate(**self.b, PaginationConfig={"PageSize": 3}) for o in p["Contents"]]
        check("dir/small" in keys)

    def op_list_v2(self):
        page = self.s3.list_objects_v2(**self.b, Prefix="dir/", StartAfter="dir/s", FetchOwner=True)
        check([o["Key"] for o in page["Contents"]] == ["dir/small"] and page["KeyCount"] == 1)

    def op_delimiter(self):
        page = self.s3.list_objects_v2(**self.b, Delimiter="/", EncodingType="url")
        check("dir/" in [p["Prefix"] for p in page["CommonPrefixes"]])

    def op_multipart(self):
        from boto3.s3.transfer import TransferConfig
        self.s3.upload_file(self.large, self.bucket, "large", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
        self.same(self.large, self.stored("large"))

    def op_uploadpartcopy(self):
        upload = self.s3.create_multipart_upload(**self.b, Key="pieces")["UploadId"]
        source = {"Bucket": self.bucket, "Key": "large"}
        parts = []
        for n, span in enumerate(("bytes=0-5242879", "bytes=7340032-12582911"), 1):
            r = self.s3.upload_part_copy(**self.b, Key="pieces", UploadId=upload, PartNumber=n, CopySource=source, CopySourceRange=span)
            parts.append({"PartNumber": n, "ETag": r["CopyPartResult"]["ETag"]})
        self.s3.complete_multipart_upload(**self.b, Key="pieces", UploadId=upload, MultipartUpload={"Parts": parts})
        large = open(self.large, "rb").read()
        check(self.stored("pieces") == large[:5242880] + large[7340032:])

    def op_list_parts_abort(self):
        k = {**self.b, "Key": "unfinished"}
        upload = self.s3.create_multipart_upload(**k)["UploadId"]
        for n in (1, 2, 3):
            self.s3.upload_part(**k, UploadId=upload, PartNumber=n, Body=b"x" * n)
        page = self.s3.list_parts(**k, UploadId=upload, MaxParts=2)
        check([p["Size"] for p in page["Parts"]] == [1, 2] and page["IsTruncated"])
        self.refused("EntityTooSmall", self.s3.complete_multipart_upload, Key="unfinished", UploadId=upload, MultipartUpload={
            "Parts": [{"PartNumber": p["PartNumber"], "ETag": p["ETag"]} for p in self.s3.list_parts(**k, UploadId=upload)["Parts"]]})
        check(len(self.s3.list_multipart_uploads(**self.b)["Uploads"]) == 1)
        self.s3.abort_multipart_upload(**k, UploadId=upload)
        self.refused("NoSuchUpload", self.s3.list_parts, Key="unfinished", UploadId=upload)

    def op_copy(self):
        source = {"Bucket": self.bucket, "Key": "meta"}
        self.s3.copy_object(**self.b, Key="copy", CopySource=source)
        check(self.s3.head_object(**self.b, Key="copy")["Metadata"] == {"color": "blue"})
        self.s3.copy_object(**self.b, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"color": "red"})
        check(self.s3.head_object(**self.b, Key="copy")["Metadata"] == {"color": "red"})

    def op_conditional(self):
        etag = self.s3.head_object(**self.b, Key="dir/small")["ETag"]
        check(self.body("dir/small", IfMatch=etag) == self.bytes)
        self.refused(304, self.s3.get_object, Key="dir/small", IfNoneMatch=etag)
        self.refused("PreconditionFailed", self.s3.get_object, Key="dir/small", IfMatch='"x"')

    def op_presigned_url(self):
        url = self.s3.generate_presigned_url("get_object", Params={**self.b, "Key": "dir/small"}, ExpiresIn=60)
        check(urllib.request.urlopen(url, timeout=20).read() == self.bytes)
        url = self.s3.generate_presigned_url("put_object", Params={**self.b, "Key": "signed-put"}, ExpiresIn=60)
        urllib.request.urlopen(urllib.request.Request(url, data=b"via url", method="PUT"), timeout=20)
        check(self.body("signed-put") == b"via url")

    def op_wrong_secret(self): self.refused("SignatureDoesNotMatch", self.client("wrong").list_objects_v2)

    def op_delete(self):
        self.s3.delete_object(**self.b, Key="copy")
        self.refused("NoSuchKey", self.s3.get_object, Key="copy")
        self.s3.delete_object(**self.b, Key="copy")

    def op_delete_many(self):
        while True:
            page = self.s3.list_objects_v2(**self.b)
            if not page.get("Contents"):
                break
            self.s3.delete_objects(**self.b, Delete={"Objects": [{"Key": o["Key"]} for o in page["Contents"]]})

    def op_delete_bucket(self):
        self.s3.delete_bucket(**self.b)
        self.refused(404, self.s3.head_bucket)


class AliOss(Client):
    name = "ali-oss V1"
    sign = "v1"
    keys = [k for k in ODD if ".." not in k]  # Node.js resolves ".." in URLs before it sends them
    op_mount = "not a file system"

    def oss(self, operation, fails=False, env=None, **kw):
        config = {"ALI_OSS_MODULE": self.args.ali_oss, "ENDPOINT": self.args.endpoint, "SIGN": self.sign,
                  "OSS_ACCESS_KEY_ID": self.ak, "OSS_ACCESS_KEY_SECRET": self.sk, **(env or {})}
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ali_oss.js")
        text = self.run("node", script, operation, json.dumps({"bucket": self.bucket, **kw}), env=config, fails=fails)
        return text if fails else json.loads(text)

    def op_create_bucket(self): self.oss("createBucket")
    def op_list_buckets(self): check(self.bucket in self.oss("listBuckets"))

    def op_put(self):
        self.oss("put", key="dir/small", file=self.small)
        self.same(self.small, self.stored("dir/small"))
        check(self.oss("forbidOverwrite", key="dir/small") == "FileAlreadyExists")

    def op_user_metadata(self):
        self.oss("put", key="meta", file=self.small, meta={"color": "blue"}, headers={"Content-Type": "text/x-test"})
        head = self.oss("head", key="meta")
        check(head["meta"] == {"color": "blue"} and head["headers"]["content-type"] == "text/x-test", head)

    def op_head(self):
        check(self.oss("head", key="dir/small")["headers"]["content-length"] == "5000")
        meta = self.oss("objectMeta", key="dir/small")
        check(meta["content-length"] == "5000" and "etag" in meta and "last-modified" in meta, meta)
        check("NoSuchKey" in self.oss("head", key="missing", fails=True))

    def op_get(self):
        self.oss("get", key="dir/small", file=self.out())
        self.same(self.small, self.out())

    def op_get_range(self):
        self.oss("get", key="dir/small", file=self.out(), headers={"Range": "bytes=100-199"})
        self.same(self.out(), open(self.small, "rb").read()[100:200])
        # OSS answers a range beyond the end with the whole object unless asked for the standard's behaviour.
        self.oss("get", key="dir/small", file=self.out(), headers={"Range": "bytes=9000-9999"})
        self.same(self.out(), self.small)
        check("416" in self.oss("get", key="dir/small", file=self.out(), fails=True,
                                headers={"Range": "bytes=9000-9999", "x-oss-range-behavior": "standard"}))

    def op_odd_keys(self):
        for key in self.keys:
            self.oss("put", key=key, file=self.small)
            self.oss("get", key=key, file=self.out())
            self.same(self.small, self.out())

    def pages(self, operation, token, **query):
        keys, prefixes, more = [], [], None
        while True:
            page = self.oss(operation, query={**query, **({token: more} if more else {})})
            keys += page["keys"]
            prefixes += page["prefixes"]
            more = page["next"]
            if not more:
                return keys, prefixes

    def op_list_v1(self): check("dir/small" in self.pages("list", "marker", **{"max-keys": 3})[0])

    def op_list_v2(self):
        keys = self.pages("listV2", "continuation-token", **{"max-keys": 3})[0]
        check("dir/small" in keys and set(self.keys) <= set(keys), keys)

    def op_delimiter(self): check("dir/" in self.pages("listV2", "continuation-token", delimiter="/")[1])

    def op_multipart(self):
        self.oss("multipart", key="large", file=self.large, partSize=1 << 20)
        self.same(self.large, self.stored("large"))

    def op_uploadpartcopy(self):
        self.oss("multipartCopy", key="large-copy", source="large", partSize=5 << 20)
        self.same(self.large, self.stored("large-copy"))

    def op_list_parts_abort(self):
        check(self.oss("partsAndAbort", key="unfinished", file=self.large, partSize=1 << 20) == {"found": True, "parts": [1 << 20], "left": 0})

    def op_append(self):
        check(self.oss("append", key="log") == {"refused": "PositionNotEqualToLength", "content": "first,second"})

    def op_copy(self):
        self.oss("copy", key="copy", source="dir/small")
        self.same(self.small, self.stored("copy"))

    def op_oss_symlink(self): check(self.oss("symlink", key="link", source="dir/small") == {"target": "dir/small", "content": 5000})
    def op_conditional(self): check(self.oss("conditional", key="dir/small") == [304, 412, 200])
    def op_presigned_url(self):
        # ali-oss signs URLs for virtual-host addresses only, which nobody resolves here: the connection goes to the store's address.
        address = urllib.parse.urlsplit(self.args.endpoint)
        url = urllib.parse.urlsplit(self.oss("sign", key="dir/small", env={"ENDPOINT": f"http://localhost:{address.port}"}))
        check(url.netloc == f"{self.bucket}.localhost:{address.port}", url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        connection.request("GET", f"{url.path}?{url.query}", headers={"Host": url.netloc})
        answer = connection.getresponse()
        body = answer.read()
        check(answer.status == 200, body)
        self.same(self.small, body)
    def op_wrong_secret(self): check("SignatureDoesNotMatch" in self.oss("list", query={}, fails=True, env={"OSS_ACCESS_KEY_SECRET": "wrong"}))

    def op_delete(self):
        self.oss("remove", key="copy")
        check("NoSuchKey" in self.oss("head", key="copy", fails=True))

    def op_delete_many(self):
        keys = self.pages("listV2", "continuation-token")[0]
        self.oss("removeMany", keys=keys)
        check(self.pages("listV2", "continuation-token")[0] == [])

    def op_delete_bucket(self):
        self.oss("deleteBucket")
        check(self.bucket not in self.oss("listBuckets"))


class AliOssV4(AliOss):
    name = "ali-oss V4"
    sign = "v4"


class S3fs(Client):
    name = "s3fs"
    op_append, op_oss_symlink = S3_APPEND, S3_SYMLINK
    op_create_bucket = op_list_buckets = op_delete_bucket = "s3fs has no bucket commands; the bucket is made as a folder"
    op_list_parts_abort = op_conditional = op_presigned_url = "not reachable through a mount"
    op_list_v1 = "s3fs lists with V1 by default: see list v2"

    def __init__(self, args, work):
        super().__init__(args, work)
        os.makedirs(os.path.join(args.dir, self.bucket), exist_ok=True)
        self.mnt = self.out("mnt")
        os.mkdir(self.mnt)
        self.mounted = False

    def mount(self, secret=None, *options):
        passwd = self.out("passwd-s3fs")
        with open(passwd, "w", encoding="utf-8") as f:
            f.write(f"{self.ak}:{secret or self.sk}\n")
        os.chmod(passwd, 0o600)
        process = subprocess.Popen(["s3fs", self.bucket, self.mnt, "-f", "-o", f"url={self.args.endpoint},passwd_file={passwd},"
                                    "use_path_request_style,multipart_size=5,listobjectsv2,stat_cache_expire=1,retries=1"], env=self.env,
                                   stdout=open(self.out("s3fs.log"), "wb"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        for _ in range(200):
            if process.poll() is not None:
                return None
            if os.path.ismount(self.mnt):
                return process
            time.sleep(0.05)
        process.terminate()
        raise AssertionError("s3fs did not mount")

    def close(self):
        if self.mounted:
            subprocess.run(["fusermount3", "-u", "-z", self.mnt], check=False, timeout=20)
            self.mounted.wait(timeout=30)
            self.mounted = None

    def path(self, key): return os.path.join(self.mnt, key)

    def op_put(self):
        self.mounted = self.mount()
        check(self.mounted, open(self.out("s3fs.log"), errors="replace").read())
        os.mkdir(self.path("dir"))
        self.run("cp", self.small, self.path("dir/small"))
        self.same(self.small, self.stored("dir/small"))

    def op_mount(self): check(os.path.ismount(self.mnt) and os.statvfs(self.mnt).f_namemax > 0)
    def op_head(self): check(os.stat(self.path("dir/small")).st_size == 5000)

    def op_get(self):
        with open(os.path.join(self.args.dir, self.bucket, "outside"), "wb") as f:
            f.write(b"put there by a user")
        self.same(self.path("outside"), b"put there by a user")

    def op_get_range(self):
        with open(self.path("dir/small"), "rb") as f:
            f.seek(100)
            check(f.read(100) == open(self.small, "rb").read()[100:200])

    def op_user_metadata(self):
        os.chmod(self.path("dir/small"), 0o600)
        os.utime(self.path("dir/small"), (1_000_000_000, 1_000_000_000))
        time.sleep(1.1)
        st = os.stat(self.path("dir/small"))
        check(st.st_mode & 0o777 == 0o600 and int(st.st_mtime) == 1_000_000_000, st)

    def op_odd_keys(self):
        for name in ("a b+c%ä&=#.txt", "quote'\"<>"):
            self.run("cp", self.small, self.path(name))
            self.same(self.small, self.path(name))

    def op_list_v2(self): check({"dir", "outside"} <= set(os.listdir(self.mnt)))
    def op_delimiter(self): check(os.listdir(self.path("dir")) == ["small"])

    def op_multipart(self):
        self.run("cp", self.large, self.path("large"))
        self.same(self.large, self.stored("large"))

    def op_uploadpartcopy(self):
        with open(self.path("large"), "r+b") as f:
            f.seek(100)
            f.write(b"patched")
        content = bytearray(open(self.large, "rb").read())
        content[100:107] = b"patched"
        check(self.stored("large") == bytes(content))

    def op_copy(self):
        os.rename(self.path("dir/small"), self.path("moved"))
        self.same(self.small, self.stored("moved"))
        check(not os.path.exists(os.path.join(self.args.dir, self.bucket, "dir/small")))

    def op_wrong_secret(self):
        self.close()
        check(self.mount("wrong") is None, "s3fs mounted with a wrong secret")
        self.mounted = self.mount()

    def op_delete(self):
        os.unlink(self.path("moved"))
        check(not os.path.exists(os.path.join(self.args.dir, self.bucket, "moved")))

    def op_delete_many(self):
        self.run("rm", "-rf", self.path("dir"), self.path("large"))
        check("dir" not in os.listdir(self.mnt))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--ali-oss", required=True)
    parser.add_argument("--only", help="one client")
    args = parser.parse_args()

    clients = [c for c in (AwsCli, S3cmd, Rclone, Boto3, AliOss, AliOssV4, S3fs) if args.only in (None, c.name)]
    table, reasons, failed = {}, {}, 0
    for kind in clients:
        with tempfile.TemporaryDirectory(prefix="cistern-client-") as work:
            client = kind(args, work)
            for operation in OPERATIONS:
                method = getattr(client, "op_" + "".join(c if c.isalnum() else "_" for c in operation.lower().replace(", ", "_")))
                if isinstance(method, str):
                    cell = "-"
                    reasons.setdefault(method, []).append(f"{kind.name}: {operation}")
                else:
                    try:
                        method()
                        cell = "ok"
                    except Skip as e:
                        cell = "-"
                        reasons.setdefault(str(e), []).append(f"{kind.name}: {operation}")
                    except Exception:  # pylint: disable=broad-except
                        cell = "FAILED"
                        failed += 1
                        print(f"--- {kind.name}: {operation}\n{traceback.format_exc()}", file=sys.stderr)
                table[kind.name, operation] = cell
            if hasattr(client, "close"):
                client.close()

    width = max(len(o) for o in OPERATIONS) + 2
    print(" " * width + "".join(f"{c.name:>12}" for c in clients))
    for operation in OPERATIONS:
        print(f"{operation:<{width}}" + "".join(f"{table[c.name, operation]:>12}" for c in clients))
    for reason, cells in reasons.items():
        print(f"- {reason} ({'; '.join(cells)})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
