#!/usr/bin/env python3
"""Requests to an S3 server that a client of objects does not make: buckets, versions, locks.

  s3-request.py ENVFILE bucket NAME [--versioned] [--lock-days N]   make a bucket; --lock-days: with Object Lock,
                                                                    GOVERNANCE for N days by default
  s3-request.py ENVFILE suspend NAME             versions are kept no longer
  s3-request.py ENVFILE lifecycle NAME PREFIX DAYS   a rule by which objects below PREFIX expire
  s3-request.py ENVFILE list NAME [PREFIX]       keys and sizes, one a line
  s3-request.py ENVFILE versions NAME [PREFIX]   every version: key, version, whether it is a delete marker
  s3-request.py ENVFILE put NAME KEY FILE        an object, whatever stood there
  s3-request.py ENVFILE get NAME KEY FILE        its bytes, into a file
  s3-request.py ENVFILE delete NAME KEY          (in a versioned bucket: a delete marker)
ENVFILE is what start-s3 or start-rgw left in DIR/env. As user admin, signed with AWS signature version 4.
Ends with 1 and the server's answer when it refuses.
"""
import base64, datetime, hashlib, hmac, os, ssl, sys, time, urllib.error, urllib.request
import xml.etree.ElementTree as ET
from urllib.parse import quote, urlsplit


def read_env(path):
    return dict(line.strip().split("=", 1) for line in open(path) if "=" in line)


class Client:
    def __init__(self, env):
        self.endpoint, self.region = env["S3_ENDPOINT"], env["S3_REGION"]
        self.key, self.secret = env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"]
        self.context = ssl.create_default_context(cafile=env["S3_CA_FILE"]) if "S3_CA_FILE" in env else None

    def request(self, method, path, query=None, body=b"", headers=None, timeout=20):
        """The status and the body of the answer; refusals do not raise, a server that is away does."""
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, date = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        path = quote(path, safe="/-_.~")
        args = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted((query or {}).items()))
        payload = hashlib.sha256(body).hexdigest()
        signed = {"host": urlsplit(self.endpoint).netloc, "x-amz-content-sha256": payload, "x-amz-date": stamp,
                  **{k.lower(): v for k, v in (headers or {}).items()}}
        names = ";".join(sorted(signed))
        canonical = "\n".join([method, path, args, *(f"{k}:{signed[k]}" for k in sorted(signed)), "", names, payload])
        scope = f"{date}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in (date, self.region, "s3", "aws4_request", text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signed["authorization"] = f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        url = f"{self.endpoint}{path}" + (f"?{args}" if args else "")
        request = urllib.request.Request(url, data=body if method in ("PUT", "POST") else None, method=method, headers=signed)
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=timeout) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()

    def need(self, *args, **kw):
        status, body = self.request(*args, **kw)
        if status >= 300:
            sys.exit(f"s3-request: {args[0]} {args[1]}: {status} {body[:400].decode(errors='replace')}")
        return body

    def bucket(self, name, versioned=False, lock_days=None):
        lock = {"x-amz-bucket-object-lock-enabled": "true"} if lock_days else {}
        self.need("PUT", f"/{name}", headers=lock)
        if versioned or lock_days:
            self.put_setting(name, "versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
        if lock_days:
            self.put_setting(name, "object-lock", "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>"
                             f"<DefaultRetention><Mode>GOVERNANCE</Mode><Days>{lock_days}</Days></DefaultRetention></Rule>"
                             "</ObjectLockConfiguration>")

    def put_setting(self, name, what, xml):
        body = xml.encode()
        md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        self.need("PUT", f"/{name}", {what: ""}, body, {"content-md5": md5})

    def pages(self, name, query):
        while True:
            root = ET.fromstring(self.need("GET", f"/{name}", query))
            for node in root.iter():
                node.tag = node.tag.rpartition("}")[2]
            yield root
            if root.findtext("IsTruncated") != "true":
                return
            if "versions" in query:
                query = {**query, "key-marker": root.findtext("NextKeyMarker"),
                         "version-id-marker": root.findtext("NextVersionIdMarker") or ""}
            else:
                query = {**query, "continuation-token": root.findtext("NextContinuationToken")}


def main(args):
    if not args or {"-h", "--help"} & set(args):
        print(__doc__.strip())
        return
    client, verb, name, rest = Client(read_env(args[0])), args[1], args[2], args[3:]
    if verb == "bucket":
        days = rest[rest.index("--lock-days") + 1] if "--lock-days" in rest else None
        client.bucket(name, "--versioned" in rest, days)
    elif verb == "suspend":
        client.put_setting(name, "versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>")
    elif verb == "lifecycle":
        client.put_setting(name, "lifecycle", "<LifecycleConfiguration><Rule><ID>tidy</ID><Status>Enabled</Status>"
                           f"<Filter><Prefix>{rest[0]}</Prefix></Filter><Expiration><Days>{rest[1]}</Days></Expiration>"
                           "</Rule></LifecycleConfiguration>")
    elif verb == "list":
        for page in client.pages(name, {"list-type": "2", "prefix": rest[0] if rest else ""}):
            for node in page.findall("Contents"):
                print(node.findtext("Key"), node.findtext("Size"))
    elif verb == "versions":
        for page in client.pages(name, {"versions": "", "prefix": rest[0] if rest else ""}):
            for node in page:
                if node.tag in ("Version", "DeleteMarker"):
                    print(node.findtext("Key"), node.findtext("VersionId"), "deleted" if node.tag == "DeleteMarker" else "kept")
    elif verb == "put":
        client.need("PUT", f"/{name}/{rest[0]}", body=open(rest[1], "rb").read())
    elif verb == "get":
        body = client.need("GET", f"/{name}/{rest[0]}")
        with open(rest[1], "wb") as f:
            f.write(body)
    elif verb == "delete":
        client.need("DELETE", f"/{name}/{rest[0]}")
    elif verb == "wait":
        # For the start scripts: NAME is the process to watch, REST the buckets to make.
        wait(client, int(name), rest)
    else:
        sys.exit(__doc__)


def wait(client, pid, buckets):
    """Makes the buckets as soon as the server lets us, and comes back when an object can be written."""
    last = "no answer"
    for _ in range(300):
        if not os.path.exists(f"/proc/{pid}"):
            sys.exit("the server ended")
        try:
            while buckets:
                status, body = client.request("PUT", f"/{buckets[0]}", timeout=5)
                last = f"PUT /{buckets[0]}: {status} {body[:200]!r}"
                if status not in (200, 409):
                    break
                first = buckets.pop(0)
            else:
                # A bucket exists before the first object can be written.
                status, body = client.request("PUT", f"/{first}/.ready", body=b"ready", timeout=5)
                last = f"PUT /{first}/.ready: {status} {body[:200]!r}"
                if status == 200:
                    client.need("DELETE", f"/{first}/.ready")
                    return
                buckets.append(first)
        except OSError as e:
            last = str(e)
        time.sleep(0.1)
    sys.exit(f"no service within 30 s: {last}")


if __name__ == "__main__":
    main(sys.argv[1:])
