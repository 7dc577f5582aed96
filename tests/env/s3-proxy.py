#!/usr/bin/env python3
"""A faulty S3 store: an HTTP proxy in front of a real one, with rules for what goes wrong.

  s3-proxy.py --env FILE | --upstream URL   [--rules FILE] [--dir DIR] [--port N] [--admin-port N] [--ca FILE]
              [--cert FILE --cert-key FILE]

  --env FILE   what start-s3 left in DIR/env: gives the upstream, its CA and the keys for "strip"
  --upstream   http://HOST:PORT or https://HOST:PORT; --ca is the CA to trust then
  --cert ...   serve https with this certificate and key; plain http without
  --key K:S    a further access key and secret that "strip" may sign with (repeatable)
  --rules FILE JSON rules, read again whenever the file changes; broken JSON keeps the old rules
  --dir DIR    run in the background: DIR/pid, DIR/env, DIR/log; end it with: stop DIR
               (without --dir it stays in the foreground)
Prints S3_PROXY_ENDPOINT, S3_PROXY_ADMIN and S3_PROXY_PID. Point the client at the endpoint
with the same keys, bucket and path-style addressing: the Host header goes through unchanged,
so that its signatures hold. HTTP/1.1 on both sides; one upstream connection a request.

RULES  {"rules": [RULE...]}. A rule that matches a request counts it; it acts on the matching
requests number "from" (default 1) to "from"+"count"-1 (default: no end), or on every "every"-th.
  match   "method": "PUT"   "path": REGEX   "query": REGEX   "header": {"if-none-match": REGEX}
          (path is the raw path with the bucket, REGEX is searched for; all given must match)
  name    "name": "...", seen in the request log
  act     "do": one of
    status     reply "status" (503) with S3 "code" (SlowDown), "message", or with "body"; optional
               "retry_after": S. The upstream sees nothing. The body is read first; "read_body": false closes
    refuse     close the connection without a byte, upstream untouched
    drop_reply do the request upstream, wait for its reply, close without a byte: reply lost
    repeat     do the request upstream twice, answer with the second reply (body in memory)
    cut        pass "after": N bytes of the reply's body, then close ("rst": true: reset).
               The head with its full Content-Length is sent; N = 0 cuts right after the head
    cut_upload pass "after": N bytes of the request's body, then close both sides
    corrupt    flip a bit of the reply's body byte at offset "at" (0)
    stall      wait "seconds" before the "where": "request" (default) is forwarded, before the
               "reply" is sent, or in the reply's "body" after "after": N bytes
    throttle   pass the reply's and the request's body at "bytes_per_second"
    strip      take request "headers" away (default if-none-match, if-match): a store that
               ignores conditions; or "parameters" of the query (then no headers by default):
               ["start-after"] is a store that lists from the beginning whatever it is asked. What
               is signed: the client's signature is checked, then the
               request signed anew with the same key; a request whose signature is wrong or
               whose key is unknown goes on unchanged, for the store to refuse
  strip, stall, throttle, corrupt combine; of the others the first that acts decides.

ADMIN  GET /rules (with "seen" and "acted" counts), PUT /rules (replace, counts from zero),
       POST /rules (one rule more), DELETE /rules; GET /log (one JSON object a request, oldest
       first; of secrets only a hash), DELETE /log; GET /stats (requests by method and status)
"""
import argparse, asyncio, collections, hashlib, hmac, json, os, re, signal, socket, ssl, struct, sys, time
from urllib.parse import quote, unquote, urlsplit

CHUNK = 65536
DOS = {"status", "refuse", "drop_reply", "repeat", "cut", "cut_upload", "corrupt", "stall", "throttle", "strip"}
FIELDS = {"name", "method", "path", "query", "header", "from", "count", "every", "do", "status", "code", "message",
          "body", "retry_after", "read_body", "after", "rst", "at", "seconds", "where", "bytes_per_second", "headers",
          "parameters"}


# What is asked of the store beside storing; shown in the log as it came.
SHOWN = ("if-none-match", "if-match", "range", "content-length", "host", "x-amz-server-side-encryption",
         "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-customer-algorithm",
         "x-amz-storage-class")
# Secrets: shown in the log by a hash.
HASHED = ("x-amz-security-token", "x-amz-server-side-encryption-customer-key")


class Broken(Exception):
    """One side went away or spoke nonsense."""


class Rule:
    def __init__(self, d):
        if not isinstance(d, dict) or d.get("do") not in DOS:
            raise ValueError(f"\"do\" must be one of {sorted(DOS)}: {d}")
        if set(d) - FIELDS:
            raise ValueError(f"unknown field {sorted(set(d) - FIELDS)} in {d}")
        self.d, self.seen, self.acted = d, 0, 0
        self.path, self.query = re.compile(d.get("path", "")), re.compile(d.get("query", ""))
        self.header = {k.lower(): re.compile(v) for k, v in d.get("header", {}).items()}

    def acts(self, r):
        d = self.d
        if "method" in d and d["method"].upper() != r.method or not self.path.search(r.path) \
                or not self.query.search(r.query) \
                or not all(k in r.h and v.search(r.h[k]) for k, v in self.header.items()):
            return False
        self.seen += 1
        n = self.seen - d.get("from", 1)
        yes = n >= 0 and (n % d["every"] == 0 if d.get("every") else True) \
            and (d.get("count") is None or n // d.get("every", 1) < d["count"])
        self.acted += yes
        return yes


class Rules:
    def __init__(self, path):
        self.path, self.stamp, self.rules, self.error = path, None, [], None
        self.refresh()

    def set(self, doc):
        self.rules, self.error = [Rule(d) for d in (doc["rules"] if isinstance(doc, dict) else doc)], None

    def refresh(self):
        if not self.path:
            return
        try:
            st = os.stat(self.path)
            stamp = (st.st_mtime_ns, st.st_size, st.st_ino)
        except OSError:
            stamp = None
        if stamp == self.stamp:
            return
        self.stamp = stamp
        try:
            self.set(json.load(open(self.path)) if stamp else [])
        except (ValueError, KeyError, TypeError, re.error, OSError) as e:
            self.error = f"{self.path}: {e} (the rules before it stay)"
            print(f"s3-proxy: {self.error}", file=sys.stderr, flush=True)

    def dump(self):
        return {"rules": [{**r.d, "seen": r.seen, "acted": r.acted} for r in self.rules], "error": self.error}


class Head:
    """Start line and headers of a message; h holds the last value of each, in lower case."""

    def __init__(self, raw):
        lines = raw.decode("latin-1").split("\r\n")
        self.start, self.headers = lines[0], []
        for line in filter(None, lines[1:]):
            k, sep, v = line.partition(":")
            if not sep:
                raise Broken(f"header {line!r}")
            self.headers.append((k, v.strip()))
        self.h = {k.lower(): v for k, v in self.headers}

    def without(self, *names):
        return [(k, v) for k, v in self.headers if k.lower() not in names]


async def read_head(reader):
    try:
        return Head((await reader.readuntil(b"\r\n\r\n"))[:-4])
    except asyncio.IncompleteReadError as e:
        if e.partial:
            raise Broken("cut in the head") from None
        return None
    except asyncio.LimitOverrunError:
        raise Broken("head too long") from None


async def body_of(reader, h, has_body=True, until_close=False):
    """The message's body in pieces, without its framing."""
    if not has_body:
        return
    if "chunked" in h.get("transfer-encoding", "").lower():
        while True:
            n = int((await reader.readline()).split(b";")[0].strip() or b"x", 16)
            while n:
                piece = await reader.read(min(n, CHUNK))
                if not piece:
                    raise Broken("cut in a chunk")
                n -= len(piece)
                yield piece
                if not n:
                    await reader.readexactly(2)
                    break
            else:
                while (await reader.readline()).strip():
                    pass  # trailers
                return
    elif "content-length" in h:
        n = int(h["content-length"])
        while n:
            piece = await reader.read(min(n, CHUNK))
            if not piece:
                raise Broken("cut in the body")
            n -= len(piece)
            yield piece
    elif until_close:
        while piece := await reader.read(CHUNK):
            yield piece


def encode(head, headers):
    return "\r\n".join([head, *(f"{k}: {v}" for k, v in headers), "", ""]).encode("latin-1")


def frame(piece, chunked):
    return b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece


def close(writer, rst=False):
    sock = writer.get_extra_info("socket")
    if rst and sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


# ---- AWS signature version 4, header form

AUTH = re.compile(r"AWS4-HMAC-SHA256\s+Credential=([^/]+)/(\d+)/([^/]+)/([^/]+)/aws4_request,\s*"
                  r"SignedHeaders=([^,]+),\s*Signature=([0-9a-f]{64})")


def signature(secret, date, region, service, method, path, query, headers, signed, payload, stamp):
    args = sorted((quote(unquote(k), safe="-_.~"), quote(unquote(v), safe="-_.~"))
                  for k, _, v in (p.partition("=") for p in query.split("&") if p))
    values = collections.defaultdict(list)
    for k, v in headers:
        values[k.lower()].append(" ".join(v.split()))
    canonical = "\n".join([method, quote(unquote(path), safe="/-_.~"), "&".join("=".join(a) for a in args),
                           *(f"{n}:{','.join(values[n])}" for n in signed), "", ";".join(signed), payload])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, f"{date}/{region}/{service}/aws4_request",
                      hashlib.sha256(canonical.encode("latin-1")).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def strip(r, headers, names, parameters, keys):
    """Headers and query without names, signed anew where they were signed; and what was done."""
    left = [(k, v) for k, v in headers if k.lower() not in names]
    query = "&".join(p for p in r.query.split("&") if unquote(p.partition("=")[0]) not in parameters)
    if len(left) == len(headers) and query == r.query:
        return headers, r.query, None
    m = AUTH.match(r.h.get("authorization", ""))
    if not m or query == r.query and not set(m.group(5).split(";")) & set(names):
        return left, query, "stripped"
    key, date, region, service, signed, given = m.groups()
    payload = r.h.get("x-amz-content-sha256", "")
    if payload.startswith("STREAMING-AWS4-HMAC"):
        return headers, r.query, "not stripped: every chunk is signed"
    if key not in keys:
        return headers, r.query, "not stripped: unknown key"
    args = (keys[key], date, region, service, r.method, r.path)
    stamp = r.h.get("x-amz-date", "")
    if signature(*args, r.query, headers, signed.split(";"), payload, stamp) != given:
        return headers, r.query, "not stripped: wrong signature"
    rest = [n for n in signed.split(";") if n not in names]
    new = signature(*args, query, left, rest, payload, stamp)
    auth = f"AWS4-HMAC-SHA256 Credential={key}/{date}/{region}/{service}/aws4_request, " \
           f"SignedHeaders={';'.join(rest)}, Signature={new}"
    return [(k, auth if k.lower() == "authorization" else v) for k, v in left], query, "stripped, signed anew"


# ---- the proxy

class Proxy:
    def __init__(self, upstream, ca, rules, keys):
        u = urlsplit(upstream)
        if u.scheme not in ("http", "https") or not u.port:
            sys.exit("s3-proxy: the upstream must be http://HOST:PORT or https://HOST:PORT")
        self.tls = ssl.create_default_context(cafile=ca) if u.scheme == "https" else None
        self.host, self.port, self.rules, self.keys = u.hostname, u.port, rules, keys
        self.log, self.n = collections.deque(maxlen=100000), 0
        self.clients = set()  # asyncio itself forgets a task whose client has gone

    async def client(self, reader, writer):
        self.clients.add(asyncio.current_task())
        try:
            while True:
                r = await read_head(reader)
                if r is None or not await self.request(r, reader, writer):
                    break
        except (Broken, OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self.clients.discard(asyncio.current_task())
            close(writer)

    async def request(self, r, reader, writer):
        """Serve one request; false when the client's connection is to end."""
        r.method, target, _ = r.start.split(" ", 2)
        target = re.sub(r"^http://[^/]+", "", target)
        r.path, _, r.query = target.partition("?")
        self.rules.refresh()
        active = [x for x in self.rules.rules if x.acts(r)]
        self.n += 1
        e = {"n": self.n, "time": round(time.time(), 3), "method": r.method, "path": r.path, "query": r.query,
             "rules": [x.d.get("name", x.d["do"]) for x in active], "status": None, "sent": 0, "received": 0}
        e.update((k, r.h[k]) for k in SHOWN if k in r.h)
        e.update((k, hashlib.sha256(r.h[k].encode("latin-1")).hexdigest()) for k in HASHED if k in r.h)
        if m := re.search(r"Credential=([^/]+)/", r.h.get("authorization", "")):
            e["key"] = m.group(1)
        self.log.append(e)
        t = time.monotonic()
        try:
            return await self.serve(r, reader, writer, active, e)
        except (Broken, OSError, asyncio.IncompleteReadError) as x:
            e["error"] = f"{type(x).__name__}: {x}"
            raise
        finally:
            e["seconds"] = round(time.monotonic() - t, 3)

    async def serve(self, r, reader, writer, active, e):
        main = next((x.d for x in active if x.d["do"] in ("status", "refuse", "drop_reply", "repeat", "cut", "cut_upload")), {})
        do = main.get("do")
        extra = {k: next((x.d for x in active if x.d["do"] == k), {}) for k in ("throttle", "corrupt")}
        stalls = [x.d for x in active if x.d["do"] == "stall"]
        rate = extra["throttle"].get("bytes_per_second")
        keep = r.h.get("connection", "").lower() != "close"

        async def stall(where):
            for d in stalls:
                if d.get("where", "request") == where:
                    await asyncio.sleep(d.get("seconds", 1))

        if do == "refuse":
            close(writer, main.get("rst", False))
            return False
        await stall("request")
        continues = r.h.get("expect", "").lower() == "100-continue"
        if continues and not (do == "status" and not main.get("read_body", True)):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        incoming = body_of(reader, r.h)

        if do == "status":
            if main.get("read_body", True):
                async for piece in incoming:
                    e["received"] += len(piece)
            else:
                keep = False
            status, code = main.get("status", 503), main.get("code", "SlowDown")
            xml = (f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>'
                   f'{main.get("message", "injected by s3-proxy")}</Message><Resource>{r.path}</Resource>'
                   f"<RequestId>proxy{e['n']}</RequestId></Error>").encode()
            xml = main["body"].encode() if "body" in main else xml
            heads = [("Content-Type", "application/xml"), ("Content-Length", len(xml)),
                     ("Connection", "keep-alive" if keep else "close"), ("x-amz-request-id", f"proxy{e['n']}")]
            if "retry_after" in main:
                heads.append(("Retry-After", main["retry_after"]))
            await stall("reply")
            writer.write(encode(f"HTTP/1.1 {status} {code}", heads) + (b"" if r.method == "HEAD" else xml))
            await writer.drain()
            e["status"] = status
            return keep

        headers = r.without("connection", "expect", "keep-alive", "proxy-connection")
        strips = [x.d for x in active if x.d["do"] == "strip"]
        start = r.start
        if strips:
            names = [n.lower() for d in strips
                     for n in d.get("headers", [] if "parameters" in d else ["if-none-match", "if-match"])]
            parameters = {n for d in strips for n in d.get("parameters", [])}
            headers, query, e["strip"] = strip(r, headers, names, parameters, self.keys)
            if query != r.query:
                start = f"{r.method} {r.path}?{query} {r.start.rsplit(' ', 1)[1]}"
        chunked = "transfer-encoding" in r.h
        head = encode(start, [*headers, ("Connection", "close")])
        memory = None
        if do == "repeat":
            memory = b"".join([p async for p in incoming])
            e["received"] = len(memory)

        for last in ([False, True] if do == "repeat" else [True]):
            up_r, up_w = await asyncio.open_connection(self.host, self.port, limit=1 << 20, ssl=self.tls)
            pump = None
            try:
                up_w.write(head)

                async def send():
                    """The request's body to the store; once the store stops listening, to nowhere."""
                    deaf = False
                    if memory is not None:
                        if memory:
                            up_w.write(frame(memory, chunked))
                    else:
                        async for piece in incoming:
                            if do == "cut_upload":
                                piece = piece[:main.get("after", 0) - e["received"]]
                            e["received"] += len(piece)
                            if rate:
                                await asyncio.sleep(len(piece) / rate)
                            try:
                                if not deaf and piece:
                                    up_w.write(frame(piece, chunked))
                                    await up_w.drain()
                            except OSError:
                                deaf = True
                            if do == "cut_upload" and e["received"] >= main.get("after", 0):
                                raise Broken("cut_upload")
                    if chunked and not deaf:
                        up_w.write(b"0\r\n\r\n")
                    if not deaf:
                        await up_w.drain()

                pump = asyncio.create_task(send())
                if do == "cut_upload":
                    await asyncio.gather(pump, return_exceptions=True)
                    close(writer, main.get("rst", False))
                    return False
                reply = await self.reply_head(up_r, pump)
                e["status"] = int(reply.start.split(" ")[1])
                has_body = r.method != "HEAD" and e["status"] not in (204, 304)
                body = body_of(up_r, reply.h, has_body, until_close=True)
                if do == "drop_reply" or not last:
                    async for _ in body:
                        pass
                    await pump
                    if last:
                        close(writer, main.get("rst", False))
                        return False
                    continue
                await stall("reply")
                sized = "content-length" in reply.h or not has_body
                out = reply.without("connection", "transfer-encoding", "keep-alive")
                if not sized:
                    out.append(("Transfer-Encoding", "chunked"))
                out.append(("Connection", "keep-alive" if keep else "close"))
                writer.write(encode(reply.start, out))
                await writer.drain()
                at = extra["corrupt"].get("at", 0) if extra["corrupt"] else -1
                stops = sorted((d.get("after", 0), d.get("seconds", 1)) for d in stalls if d.get("where") == "body")
                cut = main.get("after", 0) if do == "cut" else None
                if cut == 0:
                    close(writer, main.get("rst", False))
                    return False
                async for piece in body:
                    while piece:
                        # Split where a rule acts, so that the bytes before it have gone out.
                        ends = [x - e["sent"] for x in (*(s[0] for s in stops[:1]), *([cut] if cut is not None else []))]
                        if rate:
                            ends.append(max(1, int(rate / 20)))
                        here = min([len(piece), *(x for x in ends if x > 0)])
                        now, piece = piece[:here], piece[here:]
                        while stops and stops[0][0] <= e["sent"]:
                            await asyncio.sleep(stops.pop(0)[1])
                        if e["sent"] <= at < e["sent"] + len(now):
                            i = at - e["sent"]
                            now = now[:i] + bytes([now[i] ^ 1]) + now[i + 1:]
                        writer.write(frame(now, not sized))
                        await writer.drain()
                        e["sent"] += len(now)
                        if rate:
                            await asyncio.sleep(len(now) / rate)
                        if cut is not None and e["sent"] >= cut:
                            close(writer, main.get("rst", False))
                            return False
                if not sized:
                    writer.write(b"0\r\n\r\n")
                await writer.drain()
                await pump
            finally:
                if pump and not pump.done():
                    pump.cancel()
                if pump:
                    await asyncio.gather(pump, return_exceptions=True)
                close(up_w)
        return keep

    @staticmethod
    async def reply_head(up_r, pump):
        """The store's reply; interim 1xx ones are skipped. A client that breaks off ends the wait."""
        while True:
            got = asyncio.create_task(read_head(up_r))
            try:
                while not got.done():
                    await asyncio.wait([got] if pump.done() else [got, pump], return_when=asyncio.FIRST_COMPLETED)
                    if pump.done() and not got.done() and pump.exception():
                        raise pump.exception()
            finally:
                if not got.done():
                    got.cancel()
                    await asyncio.gather(got, return_exceptions=True)
            head = got.result()
            if head is None:
                raise Broken("the store closed without a reply")
            if not head.start.split(" ")[1].startswith("1"):
                return head

    async def admin(self, reader, writer):
        try:
            r = await read_head(reader)
            if r is None:
                return
            method, path, _ = r.start.split(" ", 2)
            body = b"".join([p async for p in body_of(reader, r.h)])
            status, doc = 200, {}
            try:
                if path == "/rules":
                    self.rules.refresh()
                    if method == "PUT":
                        self.rules.set(json.loads(body))
                    elif method == "POST":
                        self.rules.rules.append(Rule(json.loads(body)))
                    elif method == "DELETE":
                        self.rules.set([])
                    doc = self.rules.dump()
                elif path == "/log":
                    doc = list(self.log)
                    if method == "DELETE":
                        self.log.clear()
                elif path == "/stats":
                    doc = dict(collections.Counter(f"{x['method']} {x['status']}" for x in self.log))
                else:
                    status, doc = 404, {"error": "GET/PUT/POST/DELETE /rules, GET/DELETE /log, GET /stats"}
            except (ValueError, KeyError, TypeError, re.error) as x:
                status, doc = 400, {"error": str(x)}
            out = json.dumps(doc, indent=1).encode() + b"\n"
            writer.write(encode(f"HTTP/1.1 {status} x", [("Content-Type", "application/json"),
                                                         ("Content-Length", len(out)), ("Connection", "close")]) + out)
            await writer.drain()
        except (Broken, OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            close(writer)


def background(d):
    """Leave the terminal: the caller returns when the child has written its facts."""
    os.makedirs(d, exist_ok=True)
    d = os.path.realpath(d)
    r, w = os.pipe()
    if os.fork():
        os.close(w)
        text = os.fdopen(r).read()
        sys.stdout.write(text)
        sys.stdout.flush()
        os._exit(0 if text else 1)
    os.close(r)
    os.setsid()
    os.chdir(d)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0), os.dup2(log, 1), os.dup2(log, 2)
    return w


async def run(a, keys, ready):
    rules = Rules(a.rules)
    if rules.error:
        sys.exit(1)
    p, tls = Proxy(a.upstream, a.ca, rules, keys), None
    if a.cert:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(a.cert, a.cert_key)
    main = await asyncio.start_server(p.client, "127.0.0.1", a.port, limit=1 << 20, backlog=512, ssl=tls)
    admin = await asyncio.start_server(p.admin, "127.0.0.1", a.admin_port, limit=1 << 20)
    port = [s.sockets[0].getsockname()[1] for s in (main, admin)]
    text = f"S3_PROXY_ENDPOINT={'https' if tls else 'http'}://127.0.0.1:{port[0]}\nS3_PROXY_ADMIN=http://127.0.0.1:{port[1]}\n" \
           f"S3_PROXY_PID={os.getpid()}\n"
    if a.dir:
        for name, content in (("pid", f"{os.getpid()}\n"), ("env", text)):
            with open(name, "w") as f:
                f.write(content)
        os.write(ready, text.encode())
        os.close(ready)
    else:
        print(text, end="", flush=True)
    stop = asyncio.Event()
    for s in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(s, stop.set)
    await stop.wait()
    os._exit(0)  # open connections break off, like those of a store that dies


def main():
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        sys.exit()
    ap = argparse.ArgumentParser(usage="see --help", add_help=False)
    for o in ("--env", "--upstream", "--rules", "--dir", "--ca", "--cert", "--cert-key"):
        ap.add_argument(o)
    ap.add_argument("--key", action="append", default=[])
    ap.add_argument("--port", type=int, default=0)
    ap.add_argument("--admin-port", type=int, default=0)
    a = ap.parse_args()
    keys = dict(k.split(":", 1) for k in a.key)
    if a.env:
        env = dict(line.strip().split("=", 1) for line in open(a.env) if "=" in line)
        a.upstream, a.ca = a.upstream or env["S3_ENDPOINT"], a.ca or env.get("S3_CA_FILE")
        keys.update((env[k], env[k.replace("ACCESS", "SECRET")]) for k in env if k.endswith("ACCESS_KEY"))
    if not a.upstream:
        ap.error("--env or --upstream is needed")
    a.rules, a.ca, a.cert, a.cert_key = (x and os.path.abspath(x) for x in (a.rules, a.ca, a.cert, a.cert_key))
    ready = background(a.dir) if a.dir else None
    asyncio.run(run(a, keys, ready))


if __name__ == "__main__":
    main()
