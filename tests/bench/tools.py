"""The contestants: walden, pg_basebackup, pgBackRest. Each with a repository that is made anew when asked."""
import copy
import itertools
import json
import os
import pathlib
import re
import shutil

from process import check, measured
from servers import PORT
from stores import BUCKET

STANZA = "bench"
# Each repository in the bucket has a folder of its own, and is never used again.
FOLDERS = (f"/repository-{number}" for number in itertools.count(1))


def size_of(path):
    """Bytes of all files below `path`, and how many they are."""
    total = count = 0
    for directory, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(directory, name)).st_size
            count += 1
    return total, count


def write_private(path, text):
    """A file that may hold a secret."""
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")


def make_directories(tool):
    """What a tool works with, its repository empty."""
    shutil.rmtree(tool.repository, ignore_errors=True)
    tool.folder = next(FOLDERS)
    for each in (tool.repository, tool.work / "log", tool.work / "spool", tool.work / "lock"):
        each.mkdir(parents=True, exist_ok=True)


class Walden:
    """2 workers, zstd 1, AES-256-GCM with a generated key, all of it durable when a command returns."""

    name = "walden"

    def __init__(self, program, work, sockets, *, repository=None, place=None, cipher=True, options=()):
        """The repository is a directory, or, with `place`, in the bucket that is reached by that way."""
        self.program, self.work, self.cipher = str(program), pathlib.Path(work), cipher
        self.work.mkdir(parents=True, exist_ok=True)
        self.repository = pathlib.Path(repository) if repository else self.work / "repository"
        self.place, self.folder = place, None
        self.sockets, self.options = sockets, list(options)
        self.config = self.work / "walden.conf"
        # Nothing of the caller's settings may be heard; the rest of the environment is the same for everyone.
        self.env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.version = check([self.program, "version"], env=self.env).split("\n")[0].strip()
        self.data = None

    def fresh(self, server):
        """An empty repository with a stanza for `server`, which runs."""
        make_directories(self)
        key = self.key()
        if not key.exists():
            key.touch(0o600)
            key.write_text(check([self.program, "key-generate"], env=self.env), encoding="utf-8")
        self.data = server.data
        self._configure()
        check([*self._base(), "stanza-create"], env=self.env)

    def key(self):
        return self.work / "key"

    def by(self, place, name):
        """The same repository, reached by another way."""
        other = copy.copy(self)
        other.place, other.config = place, self.work / f"{name}.conf"
        other._configure()
        return other

    def _configure(self):
        where = f"repo1-path={self.repository}\n"
        if self.place:
            server = self.place.server
            where = (f"repo1-type=s3\nrepo1-path={self.folder}\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-region=us-east-1\n"
                     f"repo1-s3-endpoint=https://127.0.0.1:{self.place.port}\nrepo1-s3-uri-style=path\n"
                     f"repo1-s3-key={server.key}\nrepo1-s3-key-secret={server.secret}\nrepo1-storage-ca-file={server.ca}\n")
        cipher = f"repo1-cipher-type=aes-256-gcm\nrepo1-cipher-pass-file={self.key()}\n" if self.cipher else ""
        write_private(
            self.config,
            f"[global]\n{where}{cipher}compress-level=1\nprocess-max=2\n"
            f"lock-path={self.work}/lock\nlog-path={self.work}/log\nspool-path={self.work}/spool\nlog-level-file=off\n\n"
            f"[{STANZA}]\npg1-path={self.data}\npg1-socket-path={self.sockets}\npg1-port={PORT}\npg1-user=walden\n")

    def _base(self):
        return [self.program, f"--config={self.config}", f"--stanza={STANZA}"]

    def archive_command(self):
        return " ".join([*self._base(), 'archive-push "%p"'])

    def push_arguments(self, segment):
        return [*self._base(), "archive-push", str(segment)]

    def get_arguments(self, name, target):
        return [*self._base(), "archive-get", name, str(target)]

    def backup(self, *more, threads=False):
        run = measured([*self._base(), "backup", "--type=full", "--start-fast", "--output=json", "--progress=none",
                        "--log-level-console=detail", *self.options, *more],
                       env=self.env, keep_out=True, threads=threads)
        # "waiting for WAL 0000… in repo1: 0.204 s"
        waits = [re.match(r"waiting for WAL .*: ([0-9.]+) s$", line) for _, line in run.lines]
        run.waited = sum(float(each[1]) for each in waits if each)
        run.phases = [each.groups() for each in (re.match(r"(\w.*): ([0-9.]+) s$", line) for _, line in run.lines) if each]
        run.stored = json.loads(run.out)["stored_bytes"]
        return run

    def restore(self, into):
        into.mkdir(0o700)
        return measured([*self._base(), "restore", f"--pg1-path={into}", "--type=default", "--archive-mode=off",
                         "--progress=none", "--log-level-console=detail"], env=self.env)

    def plan(self, into, *more):
        """What a restore would do."""
        return measured([*self._base(), "restore", f"--pg1-path={into}", "--dry-run", "--progress=none", *more], env=self.env)

    def info(self):
        return measured([*self._base(), "info"], env=self.env)


class PgBasebackup:
    """zstd 1 in the client with 2 workers; a tar file and a manifest with CRC-32C, synced at the end."""

    name = "pg_basebackup"

    def __init__(self, programs, work, sockets):
        self.program, self.work, self.sockets = pathlib.Path(programs) / "pg_basebackup", pathlib.Path(work), sockets
        self.work.mkdir(parents=True, exist_ok=True)
        self.env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.version = check([self.program, "--version"]).split()[-1]

    def backup(self, *more, to="directory", compress="client-zstd:level=1,workers=2"):
        target = self.work / "backup"
        shutil.rmtree(target, ignore_errors=True)
        where = ["-D", "-"] if to == "/dev/null" else ["-D", target]
        run = measured([self.program, *where, "-Ft", f"--compress={compress}", "-X", "none", "-c", "fast",
                        "-h", self.sockets, "-p", str(PORT), "-U", "walden", "-w", *more],
                       env=self.env, discard_out=to == "/dev/null")
        run.waited = 0.0
        run.stored = size_of(target)[0]
        shutil.rmtree(target, ignore_errors=True)
        return run


class PgBackRest:
    """2 processes, zst 1, bundles and block map, no cipher; synced, page checksums validated, SHA-1 of every file."""

    name = "pgBackRest"

    def __init__(self, program, work, sockets, *, place=None):
        self.program, self.work, self.sockets = str(program), pathlib.Path(work), sockets
        self.work.mkdir(parents=True, exist_ok=True)
        self.repository, self.config = self.work / "repository", self.work / "pgbackrest.conf"
        self.place, self.folder = place, None
        self.env = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.version = check([self.program, "version"], env=self.env).split()[-1]

    def fresh(self, server):
        make_directories(self)
        where = f"repo1-path={self.repository}\n"
        if self.place:
            # It looks for names in a certificate, not for addresses.
            store = self.place.server
            where = (f"repo1-type=s3\nrepo1-path={self.folder}\nrepo1-s3-bucket={BUCKET}\nrepo1-s3-region=us-east-1\n"
                     f"repo1-s3-endpoint=localhost\nrepo1-storage-port={self.place.port}\nrepo1-s3-uri-style=path\n"
                     f"repo1-s3-key={store.key}\nrepo1-s3-key-secret={store.secret}\nrepo1-storage-ca-file={store.ca}\n")
        write_private(
            self.config,
            f"[global]\n{where}repo1-bundle=y\nrepo1-block=y\nrepo1-retention-full=9\n"
            f"compress-type=zst\ncompress-level=1\nprocess-max=2\nstart-fast=y\n"
            f"lock-path={self.work}/lock\nlog-path={self.work}/log\nspool-path={self.work}/spool\nlog-level-file=off\n"
            f"log-level-console=info\n\n"
            f"[{STANZA}]\npg1-path={server.data}\npg1-socket-path={self.sockets}\npg1-port={PORT}\npg1-user=postgres\n")
        check([*self._base(), "stanza-create"], env=self.env)

    def _base(self):
        return [self.program, f"--config={self.config}", f"--stanza={STANZA}"]

    def archive_command(self):
        return " ".join([*self._base(), '--log-level-console=warn archive-push "%p"'])

    def push_arguments(self, segment):
        return [*self._base(), "--log-level-console=warn", "archive-push", str(segment)]

    def get_arguments(self, name, target):
        return [*self._base(), "--log-level-console=warn", "archive-get", name, str(target)]

    def backup(self):
        run = measured([*self._base(), "--log-level-console=detail", "--type=full", "backup"], env=self.env)
        # It says what it waits for when it begins to; the wait lasts until it says something else.
        run.waited = 0.0
        for (at, line), (then, _) in zip(run.lines, run.lines[1:]):
            if "check archive for" in line:
                run.waited += then - at
        run.stored = size_of(self.repository / "backup")[0]
        return run

    def restore(self, into):
        into.mkdir(0o700)
        return measured([*self._base(), f"--pg1-path={into}", "--type=default", "--archive-mode=off", "restore"], env=self.env)

    def info(self):
        return measured([*self._base(), "info"], env=self.env)
