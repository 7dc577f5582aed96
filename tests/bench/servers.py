"""The PostgreSQL servers that are backed up and restored, and what is in them."""
import os
import pathlib
import signal
import subprocess
import time

from process import Failed, check

PORT = 5432

CONFIGURATION = """
listen_addresses = ''
port = %d
max_connections = 20
max_wal_senders = 4
shared_buffers = 256MB
maintenance_work_mem = 256MB
# Nothing but what is measured should write: no timed checkpoint, no vacuum in between.
checkpoint_timeout = 1h
max_wal_size = 16GB
autovacuum = off
# How fast the data is made is not measured.
fsync = off
synchronous_commit = off
log_line_prefix = '%%m [%%p] '
"""

MIXED = """
create extension pgcrypto;
create table events(id bigint, happened timestamptz, body jsonb);
insert into events
  select i, timestamptz '2026-01-01' + i * interval '1 second',
    jsonb_build_object('customer', hashint8(i) % 50000, 'kind', (array['view','cart','pay','leave'])[1 + i % 4],
      'tags', jsonb_build_array('t' || i % 97, 't' || i % 89, 't' || (i / 7) % 1009),
      'address', jsonb_build_object('city', 'city ' || hashint8(i * 7) % 3000, 'street', 'street ' || hashint8(i * 13) % 90000),
      'note', repeat(md5((i % 5000)::text) || ' ', 3))
  from generate_series(1, :events) i;
create index on events using gin (body);
create index on events using gin (body jsonb_path_ops);
create index on events (happened);
create table pictures(id bigint primary key, picture bytea);
alter table pictures alter column picture set storage external;
insert into pictures
  select i, (select string_agg(gen_random_bytes(1000), '') from generate_series(1, 16 + 0 * i))
  from generate_series(1, :pictures) i;
"""

SMALL_FILES = """
do $$
begin
  for i in 1..:tables loop
    execute format('create table small_%s(id int, note text)', i);
    execute format('insert into small_%s values (%s, ''a small table'')', i, i);
    if i % 100 = 0 then commit; end if;
  end loop;
end $$;
"""


class Server:
    """A server as a child of this process, reached through a socket in a private directory."""

    def __init__(self, programs, data, sockets):
        self.programs, self.data, self.sockets = pathlib.Path(programs), pathlib.Path(data), pathlib.Path(sockets)
        self.log = self.data.with_name(self.data.name + ".log")
        self.process = None

    def start(self, **settings):
        """Starts it and waits until it takes connections."""
        self.spawn(**settings)
        end = time.monotonic() + 300
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failed(f"a server did not start, see {self.log}:\n{self.log_text()[-2000:]}")
            time.sleep(0.01)

    def spawn(self, **settings):
        options = [f"-c{name}={value}" for name, value in settings.items()]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, "-k", self.sockets, *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _is_ready(self):
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
        except (OSError, IndexError):
            return False

    def stop(self, how=signal.SIGINT):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(60)
        self.process = None

    def log_text(self):
        try:
            return self.log.read_text(errors="replace")
        except OSError:
            return ""

    def sql(self, text):
        return check([self.programs / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p", str(PORT),
                      "-U", "postgres", "-d", "postgres", "-c", text]).strip()

    def script(self, text):
        done = subprocess.run([self.programs / "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-p",
                               str(PORT), "-U", "postgres", "-d", "postgres"], input=text, text=True,
                              capture_output=True, check=False)
        if done.returncode != 0:
            raise Failed(done.stderr)

    def pgbench(self, *arguments):
        return check([self.programs / "pgbench", "-h", self.sockets, "-p", str(PORT), "-U", "postgres", *arguments,
                      "postgres"])

    def reaped_cpu(self):
        """CPU seconds of the server's processes that have ended, WAL senders among them."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def bytes(self):
        return int(self.sql("select sum(size) from pg_database, pg_database_size(oid) size"))

    def segment(self):
        return self.sql("select pg_walfile_name(pg_current_wal_lsn())")


def initialise(server):
    """A new, empty cluster with checksums."""
    check([server.programs / "initdb", "-D", server.data, "-U", "postgres", "-A", "trust", "--no-sync", "--no-locale",
           "-E", "UTF8", "--data-checksums"])
    with open(server.data / "postgresql.conf", "a", encoding="utf-8") as file:
        file.write(CONFIGURATION % PORT)


def fill_mixed(server, scale):
    """pgbench, jsonb with GIN indexes, incompressible TOAST: about 27 MB for each unit of scale."""
    server.pgbench("-i", "-q", "-s", str(scale))
    server.script(MIXED.replace(":events", str(scale * 6000)).replace(":pictures", str(scale * 350)))
    server.sql("vacuum analyze")
    server.sql("checkpoint")


def fill_small(server, tables):
    server.script(SMALL_FILES.replace(":tables", str(tables)))
    server.sql("checkpoint")


def fill_large(server, megabytes):
    """One file of so many MB, half of which can be compressed. It is no relation, whose pages the server would check."""
    with open(server.data / "large.file", "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 19))
            file.write(bytes(1 << 19))


def fill_files(server, count):
    """So many small files, named as relations are: a server sends whatever lies there."""
    folder = server.data / "base" / server.sql("select oid from pg_database where datname = 'postgres'")
    for number in range(count):
        (folder / str(1_000_000 + number)).write_bytes(b"")
    # A page of zeros is a good page.
    for number in range(0, count, 10):
        (folder / str(1_000_000 + number)).write_bytes(bytes(8192))


def fill_tiny(server, _):
    server.sql("create table orders as select generate_series(1, 1000) n")


def generate_segments(server, count, into):
    """Lets pgbench write `count` segments and copies them to `into`; their names. The server runs."""
    server.sql("select pg_switch_wal()")
    into.mkdir()
    first = server.segment()
    number = lambda name: int(name[8:16], 16) * 256 + int(name[16:], 16)
    while number(server.segment()) <= number(first) + count:
        server.pgbench("-n", "-c", "2", "-j", "1", "-T", "3")
    names = []
    for each in range(number(first) + 1, number(first) + 1 + count):
        name = f"{first[:8]}{each // 256:08X}{each % 256:08X}"
        (into / name).write_bytes((server.data / "pg_wal" / name).read_bytes())
        names.append(name)
    return names
