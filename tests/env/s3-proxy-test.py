#!/usr/bin/env python3
"""Prove every action of s3-proxy.py against a real store:  s3-proxy-test.py ENVFILE   (of start-s3)

Starts a proxy, sets rules over its admin port, drives it with boto3, which comes once from PyPI into a virtual
environment in the directory that `cache-dir` prints. The proxy serves what the store serves: https before https.
"""
import json, os, secrets, socket, ssl, subprocess, sys, tempfile, threading, time, urllib.request

if {"-h", "--help"} & set(sys.argv):
    print(__doc__)
    sys.exit()
if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
here = os.path.dirname(os.path.abspath(__file__))
try:
    import boto3
except ImportError:
    cache = subprocess.run([f"{here}/cache-dir"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    venv = f"{cache}/boto3"
    if sys.prefix == venv:
        raise
    if not os.path.exists(f"{venv}/bin/boto3-ready"):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([f"{venv}/bin/pip", "install", "--quiet", "boto3"], check=True)
        open(f"{venv}/bin/boto3-ready", "w").close()
    os.execv(f"{venv}/bin/python", [f"{venv}/bin/python", *sys.argv])
from botocore.client import ClientError
from botocore.config import Config

env = dict(line.strip().split("=", 1) for line in open(sys.argv[1]) if "=" in line)
tmp = tempfile.TemporaryDirectory()
rules_file = f"{tmp.name}/rules.json"
open(rules_file, "w").write('{"rules": []}')
ca = env.get("S3_CA_FILE")
context = ssl.create_default_context(cafile=ca) if ca else None
near = os.path.dirname(ca) if ca else ""
tls = ["--cert", f"{near}/server.crt", "--cert-key", f"{near}/server.key"] if ca else []
out = subprocess.run([f"{here}/s3-proxy.py", "--env", sys.argv[1], "--dir", f"{tmp.name}/px", "--rules", rules_file, *tls],
                     check=True, stdout=subprocess.PIPE, text=True).stdout
px = dict(line.split("=", 1) for line in out.split())
BUCKET, failed, RUN = env["S3_BUCKET"], 0, "t" + secrets.token_hex(3)


def client(key="S3", attempts=1, **kw):
    return boto3.client("s3", endpoint_url=px["S3_PROXY_ENDPOINT"], aws_access_key_id=env[f"{key}_ACCESS_KEY"],
                        aws_secret_access_key=kw.get("secret", env[f"{key}_SECRET_KEY"]), region_name="us-east-1", verify=ca,
                        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": attempts, "mode": "standard"},
                                      read_timeout=kw.get("timeout", 20), max_pool_connections=30))


def admin(path, method="GET", doc=None):
    req = urllib.request.Request(px["S3_PROXY_ADMIN"] + path, method=method, data=json.dumps(doc).encode() if doc is not None else None)
    return json.load(urllib.request.urlopen(req, timeout=10))


def rules(*rr):
    admin("/log", "DELETE")
    return admin("/rules", "PUT", {"rules": list(rr)})


def log():
    return [(x["method"], x["status"]) for x in admin("/log")]


def status(f):
    try:
        r = f()
        return r["ResponseMetadata"]["HTTPStatusCode"] if isinstance(r, dict) else 200
    except ClientError as e:
        return e.response["ResponseMetadata"]["HTTPStatusCode"]
    except Exception as e:
        return type(e).__name__


def check(name, got, want):
    global failed
    ok = got == want or (isinstance(want, tuple) and got in want)
    failed += not ok
    print("ok  " if ok else "FAIL", name, "" if ok else f": {got!r} instead of {want!r}", flush=True)


c, BODY = client(), os.urandom(300000)


def own(key):
    """A run's own keys, so that runs do not meet."""
    return key.replace("t/", f"{RUN}/", 1)


def put(key, body=b"x", c=c, **kw):
    return c.put_object(Bucket=BUCKET, Key=own(key), Body=body, **kw)


def get(key, c=c, **kw):
    return c.get_object(Bucket=BUCKET, Key=own(key), **kw)["Body"].read()


def raw_get(key):
    """Bytes of the body that arrive before the connection ends, and its announced length."""
    u = c.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": own(key)}).split("/", 3)
    s = socket.create_connection(u[2].split(":"), timeout=20)
    if context:
        s = context.wrap_socket(s, server_hostname="127.0.0.1")
    s.sendall(f"GET /{u[3]} HTTP/1.1\r\nHost: {u[2]}\r\n\r\n".encode())
    data = b""
    try:
        while piece := s.recv(65536):
            data += piece
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(next((l.split(b":")[1] for l in head.lower().split(b"\r\n") if l.startswith(b"content-length")), b"-1"))
            if len(body) == length:
                break
    except (ConnectionResetError, ssl.SSLError):
        return "reset"
    return (len(body), length) if data else "nothing"


try:
    put("t/body", BODY)
    # -- ignored conditions
    put("t/cond", b"first", IfNoneMatch="*")
    check("conditional PUT passes through", status(lambda: put("t/cond", IfNoneMatch="*")), 412)
    rules({"do": "strip"})
    check("strip: second conditional PUT wins", status(lambda: put("t/cond", b"second", IfNoneMatch="*")), 200)
    check("strip: content overwritten", get("t/cond"), b"second")
    check("strip: logged", admin("/log")[0].get("strip"), "stripped, signed anew")
    check("strip: If-Match too", status(lambda: put("t/cond", IfMatch='"00"')), 200)
    check("strip: a wrong signature stays wrong", status(lambda: put("t/cond", IfNoneMatch="*", c=client(secret="x"))), 403)
    check("strip: another identity keeps its rights",
          status(lambda: put("t/ro", IfNoneMatch="*", c=client("S3_READONLY"))), 403)
    wins = []
    ts = [threading.Thread(target=lambda i=i: wins.append(status(lambda: put("t/race", b"%d" % i, IfNoneMatch="*")))) for i in range(20)]
    [t.start() for t in ts], [t.join() for t in ts]
    check("strip: all of 20 racers win", wins.count(200), 20)
    rules({"do": "strip", "headers": ["if-none-match"], "path": f"/{RUN}/other"})
    check("strip: only where the path matches", status(lambda: put("t/cond", IfNoneMatch="*")), 412)
    listed = lambda **kw: [o["Key"].rsplit("/", 1)[1] for o in client(**kw).list_objects_v2(
        Bucket=BUCKET, Prefix=f"{RUN}/points/", StartAfter=f"{RUN}/points/b").get("Contents", [])]
    for name in "abc":
        put(f"t/points/{name}")
    rules()
    check("no strip: a listing begins at its point", listed(), ["c"])
    rules({"do": "strip", "parameters": ["start-after"]})
    check("strip: a listing begins at the beginning", listed(), ["a", "b", "c"])
    check("strip: the query was signed anew", admin("/log")[0].get("strip"), "stripped, signed anew")
    check("strip: a wrong signature of a query stays wrong", status(lambda: listed(secret="x")), 403)
    check("strip: of a query no header goes", status(lambda: put("t/cond", IfNoneMatch="*")), 412)
    # -- refusals
    rules({"do": "status", "method": "PUT", "from": 3, "count": 1})
    check("status: the 3rd PUT only", [status(lambda: put(f"t/s{i}")) for i in range(4)], [200, 200, 503, 200])
    check("status: store untouched", status(lambda: get("t/s2")), 404)
    check("status: counts", [(r["seen"], r["acted"]) for r in admin("/rules")["rules"]], [(4, 1)])
    rules({"do": "status", "status": 501, "code": "NotImplemented", "header": {"if-none-match": "\\*"}})
    check("status: by header", [status(lambda: put("t/h", IfNoneMatch="*")), status(lambda: put("t/h"))], [501, 200])
    rules({"do": "status", "status": 429, "code": "TooManyRequests", "every": 2})
    check("status: every 2nd", [status(lambda: put("t/e")) for _ in range(4)], [429, 200, 429, 200])
    rules({"do": "status", "from": 1, "count": 2, "retry_after": 1})
    check("status: a retrying client gets through", status(lambda: put("t/retry", c=client(attempts=4))), 200)
    check("status: and needed three", log(), [("PUT", 503), ("PUT", 503), ("PUT", 200)])
    rules({"do": "status", "read_body": False})
    check("status: without reading 20 MB", status(lambda: put("t/big", b"x" * 20_000_000)), (503, "ConnectionClosedError", "ConnectionError"))
    rules({"do": "refuse"})
    check("refuse", status(lambda: put("t/r")), "ConnectionClosedError")
    # -- lost replies
    rules({"do": "drop_reply", "count": 1})
    check("drop_reply: client sees a dead connection", status(lambda: put("t/lost", b"there", IfNoneMatch="*")), "ConnectionClosedError")
    check("drop_reply: yet it was done", get("t/lost"), b"there")
    rules({"do": "drop_reply", "count": 1, "method": "PUT"})
    check("drop_reply: the retry finds its own object", status(lambda: put("t/lost2", IfNoneMatch="*", c=client(attempts=3))), 412)
    rules({"do": "repeat", "method": "PUT"})
    check("repeat: 412 for one's own write", status(lambda: put("t/twice", b"mine", IfNoneMatch="*")), 412)
    check("repeat: written", get("t/twice"), b"mine")
    # -- bodies
    rules({"do": "cut", "after": 1000, "method": "GET"})
    check("cut: after 1,000 bytes", raw_get("t/body"), (1000, 300000))
    check("cut: boto3 notices", status(lambda: get("t/body")), ("ResponseStreamingError", "IncompleteReadError", "ProtocolError"))
    rules({"do": "cut", "after": 0, "method": "GET"})
    check("cut: after the head", raw_get("t/body"), (0, 300000))
    rules({"do": "cut", "after": 1000, "method": "GET", "rst": True})
    check("cut: reset", raw_get("t/body"), ("reset", (1000, 300000)))
    rules({"do": "cut_upload", "after": 100000, "method": "PUT"})
    check("cut_upload: client sees it", status(lambda: put("t/half", BODY)), ("ConnectionClosedError", "SSLError"))
    rules()
    time.sleep(0.3)
    check("cut_upload: no half object", status(lambda: get("t/half")), 404)
    rules({"do": "corrupt", "at": 12345, "method": "GET"})
    u = c.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": own("t/body")})
    got = urllib.request.urlopen(u, context=context).read()
    check("corrupt: one byte, one bit", [(i, a ^ b) for i, (a, b) in enumerate(zip(got, BODY)) if a != b], [(12345, 1)])
    rules({"do": "stall", "seconds": 1.2, "method": "GET"})
    t = time.time(); ok = get("t/body") == BODY
    check("stall: request", (ok, 1.1 < time.time() - t < 3), (True, True))
    rules({"do": "stall", "seconds": 1.2, "where": "body", "after": 100000, "method": "GET"})
    t = time.time(); ok = urllib.request.urlopen(u, context=context).read() == BODY
    check("stall: in the body", (ok, 1.1 < time.time() - t < 3), (True, True))
    rules({"do": "stall", "seconds": 5, "where": "reply", "method": "GET"})
    check("stall: the client's timeout", status(lambda: get("t/body", c=client(timeout=1))), "ReadTimeoutError")
    rules({"do": "throttle", "bytes_per_second": 200000})
    t = time.time(); ok = urllib.request.urlopen(u, context=context).read() == BODY
    check("throttle: down", (ok, 1.2 < time.time() - t < 4), (True, True))
    t = time.time(); put("t/up", BODY)
    check("throttle: up", 1.2 < time.time() - t < 4, True)
    # -- rules file
    rules()
    open(rules_file, "w").write('{"rules": [{"do": "status", "status": 500, "code": "InternalError", "name": "filed"}]}')
    check("file: taken up", status(lambda: put("t/f")), 500)
    check("file: named in the log", admin("/log")[-1]["rules"], ["filed"])
    open(rules_file, "w").write('{"rules": [')
    check("file: broken JSON keeps the old", (status(lambda: put("t/f")), bool(admin("/rules")["error"])), (500, True))
    os.unlink(rules_file)
    check("file: gone means no rules", status(lambda: put("t/f")), 200)
    try:
        admin("/rules", "PUT", {"rules": [{"do": "explode"}]})
        check("admin: a wrong rule is refused", 200, 400)
    except urllib.error.HTTPError as e:
        check("admin: a wrong rule is refused", e.code, 400)
    # -- plain service
    rules()
    with open(f"{tmp.name}/big", "wb") as f:
        f.write(os.urandom(1 << 20) * 40)
    c.upload_file(f"{tmp.name}/big", BUCKET, own("t/big"))
    check("40 MB in parts, 30 readers", len({status(lambda: get("t/body")) for _ in range(30)} | {len(get("t/big"))}), 2)
    log_has_key = {x.get("key") for x in admin("/log")} == {env["S3_ACCESS_KEY"]}
    check("log names the access key", log_has_key, True)
finally:
    try:
        rules()
        for o in c.list_objects_v2(Bucket=BUCKET, Prefix=RUN).get("Contents", []):
            c.delete_object(Bucket=BUCKET, Key=o["Key"])
    except Exception as e:
        print(f"objects {RUN}* are left behind: {e}", file=sys.stderr)
    subprocess.run([f"{here}/stop", f"{tmp.name}/px"])
    err = open(f"{tmp.name}/px/log").read()
    if "Traceback" in err:
        failed += 1
        print("FAIL the proxy's log has a traceback:\n" + err)
    tmp.cleanup()
sys.exit(1 if failed else 0)
