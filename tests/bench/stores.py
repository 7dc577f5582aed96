"""The S3 server that repositories are in, its longer wire, and what it can do by itself."""
import base64
import encodings.idna  # noqa: F401  looking up a name wants it, and later, as another user, it may be out of reach
import hashlib
import hmac
import http.client
import importlib.util
import json
import os
import re
import ssl
import subprocess
import threading
import time
import urllib.request
from urllib.parse import urlsplit

from process import Failed

BUCKET = "walden"


def _module(path):
    """A script whose name is no module's."""
    spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", path.stem), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Place:
    """A way to the server: directly, by the longer wire, or by the proxy that counts."""

    def __init__(self, server, port):
        self.server, self.port = server, port


class Server(Place):
    """SeaweedFS with TLS, as a child of this process: it ends with it, however it ends.

    Started before this process becomes an ordinary user, because the scripts may be closed to that one.
    """

    def __init__(self, scripts, work, copies):
        self.directory = work / "s3"
        self.process = subprocess.Popen([scripts / "start-s3", "--tls", "--attached", "--bucket", BUCKET, self.directory],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = dict(line.rstrip("\n").split("=", 1) for line in self.process.stdout if "=" in line)
        if "S3_PID" not in self.facts:
            raise Failed("the S3 server did not start: tests/env/prepare fetches it")
        super().__init__(self, urlsplit(self.facts["S3_ENDPOINT"]).port)
        self.ca, self.key, self.secret = (self.facts[f"S3_{name}"] for name in ("CA_FILE", "ACCESS_KEY", "SECRET_KEY"))
        self._requests = _module(scripts / "s3-request.py")
        self._scripts = {}
        for name in ("tcp-delay.py", "s3-proxy.py"):
            self._scripts[name] = copies / name
            self._scripts[name].write_bytes((scripts / name).read_bytes())
            os.chmod(self._scripts[name], 0o644)
        self._children, self._wires, self._proxy, self._admin = [], {}, None, None

    def close(self):
        for child in self._children:
            child.terminate()
            child.wait()
        self.process.stdin.close()
        self.process.wait()

    def _start(self, script, *arguments, lines):
        """One of the scripts, in the foreground: what it says in its first lines."""
        # The caller's own interpreter may be closed to this user.
        child = subprocess.Popen(["python3", self._scripts[script], *arguments], env={"PATH": "/usr/bin:/bin"},
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self._children.append(child)
        said = dict(child.stdout.readline().rstrip("\n").partition("=")[::2] for _ in range(lines))
        if child.poll() is not None or "" in said:
            raise Failed(f"{script} did not start")
        return said

    def delayed(self, milliseconds):
        """The way by a wire on which a request takes so much longer."""
        if milliseconds not in self._wires:
            said = self._start("tcp-delay.py", f"127.0.0.1:{self.port}", str(milliseconds / 2), lines=1)
            self._wires[milliseconds] = Place(self, int(said["DELAY_PORT"]))
        return self._wires[milliseconds]

    def counted(self):
        """The way by the proxy that counts requests; itself slow, so never what is timed."""
        if self._proxy is None:
            said = self._start("s3-proxy.py", "--env", self.directory / "env", "--cert", self.directory / "server.crt",
                               "--cert-key", self.directory / "server.key", lines=3)
            self._admin = said["S3_PROXY_ADMIN"]
            self._proxy = Place(self, urlsplit(said["S3_PROXY_ENDPOINT"]).port)
        return self._proxy

    def requests(self):
        """What the counting proxy has seen since it was last asked: kind of request -> how many."""
        with urllib.request.urlopen(f"{self._admin}/log", timeout=60) as reply:
            log = json.load(reply)
        urllib.request.urlopen(urllib.request.Request(f"{self._admin}/log", method="DELETE"), timeout=60).close()
        kinds = {}
        for entry in log:
            kind = "LIST" if "list-type" in entry["query"] else entry["method"]
            kinds[kind] = kinds.get(kind, 0) + 1
        return kinds

    def stored_below(self, prefix):
        """Bytes of the objects there, and how many they are."""
        client = self._requests.Client(self.facts)
        total = count = 0
        for page in client.pages(BUCKET, {"list-type": "2", "prefix": prefix}):
            for node in page.findall("Contents"):
                total += int(node.findtext("Size"))
                count += 1
        return total, count

    def put_rate(self, place, *, workers=4, objects=24, size=16 << 20):
        """Bytes a second that the server takes of plain PUTs, `workers` at a time."""
        # What cannot be compressed; hashed once. Signed anew each time, for its name.
        body = os.urandom(size)
        number = iter(range(objects))
        lock, troubles = threading.Lock(), []
        context = ssl.create_default_context(cafile=self.ca)
        run = base64.b32encode(os.urandom(5)).decode().lower()

        def work():
            line = http.client.HTTPSConnection("127.0.0.1", place.port, context=context, timeout=120)
            try:
                while True:
                    with lock:
                        at = next(number, None)
                    if at is None:
                        return
                    path = f"/{BUCKET}/plain/{run}-{at}"
                    line.request("PUT", path, body=body, headers=self._signed("PUT", path, f"127.0.0.1:{place.port}"))
                    reply = line.getresponse()
                    said = reply.read()
                    if reply.status != 200:
                        raise Failed(f"PUT {path}: {reply.status} {said[:200]!r}")
            except (Failed, OSError, http.client.HTTPException) as trouble:
                troubles.append(trouble)
            finally:
                line.close()

        threads = [threading.Thread(target=work) for _ in range(workers)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - begun
        if troubles:
            raise Failed(f"plain PUTs: {troubles[0]}")
        client = self._requests.Client(self.facts)
        for at in range(objects):
            client.need("DELETE", f"/{BUCKET}/plain/{run}-{at}")
        return objects * size / wall

    def _signed(self, method, path, host):
        """Headers with a signature that leaves the body out, as TLS allows: hashing it would be measured too."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{stamp[:8]}/{self.facts['S3_REGION']}/s3/aws4_request"
        headers = {"host": host, "x-amz-content-sha256": "UNSIGNED-PAYLOAD", "x-amz-date": stamp}
        canonical = "\n".join([method, path, "", *(f"{name}:{headers[name]}" for name in sorted(headers)), "",
                               ";".join(sorted(headers)), "UNSIGNED-PAYLOAD"])
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, "
                                    f"SignedHeaders={';'.join(sorted(headers))}, Signature={key.hex()}")
        return headers
