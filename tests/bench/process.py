"""Runs programs and measures them: wall, CPU of the whole tree, peak memory.

Peak memory is VmHWM, read from /proc while the program runs: ru_maxrss of a child begins at the size of the
process that forked it, so nothing smaller than this interpreter could be seen with it.
"""
import os
import re
import resource  # noqa: F401  os.wait4 wants it, and later, as another user, it may be out of reach
import subprocess
import threading
import time


class Failed(Exception):
    """A program that had to succeed did not."""


class Run:
    """What one run of a program took."""

    def __init__(self, wall, cpu, memory_kib, lines, out, threads):
        self.wall = wall                # seconds, process start included
        self.cpu = cpu                  # user and system, of the process and all it waited for
        self.memory_kib = memory_kib    # the sum of every process's own peak
        self.lines = lines              # (seconds since the start, line) of stderr, and of stdout where not kept
        self.out = out                  # stdout, where kept
        self.threads = threads          # thread id -> (name, CPU seconds)


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""                      # it ended meanwhile


def _tree(pid):
    yield pid
    for child in _read(f"/proc/{pid}/task/{pid}/children").split():
        yield from _tree(int(child))


class _Watch(threading.Thread):
    """Looks at a process and its descendants until told to stop."""

    def __init__(self, pid, every, threads):
        super().__init__(daemon=True)
        self.pid, self.every, self.with_threads = pid, every, threads
        self.peaks, self.threads, self.ended = {}, {}, threading.Event()

    def run(self):
        while True:
            for pid in _tree(self.pid):
                found = re.search(rb"VmHWM:\s+(\d+) kB", _read(f"/proc/{pid}/status"))
                if found:
                    self.peaks[pid] = max(self.peaks.get(pid, 0), int(found[1]))
            if self.with_threads:
                self._look_at_threads()
            if self.ended.wait(self.every) if self.every else self.ended.is_set():
                return

    def _look_at_threads(self):
        try:
            tids = os.listdir(f"/proc/{self.pid}/task")
        except OSError:
            return
        for tid in tids:
            spent = _read(f"/proc/{self.pid}/task/{tid}/schedstat").split()
            if spent:
                name = _read(f"/proc/{self.pid}/task/{tid}/comm").decode().strip()
                self.threads[int(tid)] = (name, int(spent[0]) / 1e9)


def measured(argv, *, env=None, cwd=None, keep_out=False, discard_out=False, threads=False, succeed=(0,)):
    """Runs a program of some seconds. Its output lines get the time of their arrival."""
    lines, out = [], []
    begun = time.perf_counter()
    process = subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL if discard_out else subprocess.PIPE)

    def collect(stream, into):
        for line in stream:
            into.append((time.perf_counter() - begun, line.decode(errors="replace").rstrip("\n")))

    readers = [threading.Thread(target=collect, args=(process.stderr, lines))]
    if not discard_out:
        readers.append(threading.Thread(target=collect, args=(process.stdout, out if keep_out else lines)))
    for reader in readers:
        reader.start()
    watch = _Watch(process.pid, 0.02, threads)
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.ended.set()
    for thread in [watch, *readers]:
        thread.join()
    if process.returncode not in succeed:
        said = "\n".join("  " + line for _, line in lines[-15:])
        raise Failed(f"exit {process.returncode}: {' '.join(map(str, argv))}\n{said}")
    return Run(wall, usage.ru_utime + usage.ru_stime, sum(watch.peaks.values()), sorted(lines),
               "\n".join(line for _, line in out), watch.threads)


def brief(argv, *, env, cwd, memory=False):
    """Runs a program of some milliseconds: (wall, CPU, peak memory in KiB where asked for).

    Started with posix_spawn, which costs the same whatever this interpreter's size. With `memory` a busy loop
    looks at it, so that its wall means nothing then.
    """
    begun = time.perf_counter()
    # posix_spawn knows no working directory; the caller's is set for a whole series.
    assert os.getcwd() == os.path.realpath(cwd)
    pid = os.posix_spawn(argv[0], argv, env)
    watch = None
    if memory:
        watch = _Watch(pid, 0, False)
        watch.start()
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - begun
    peak = 0
    if watch:
        watch.ended.set()
        watch.join()
        peak = sum(watch.peaks.values())
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise Failed(f"exit {code}: {' '.join(argv)}")
    return wall, usage.ru_utime + usage.ru_stime, peak


def check(argv, **more):
    """Runs a program that is not measured; its stdout."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **more)
    if done.returncode != 0:
        raise Failed(f"exit {done.returncode}: {' '.join(map(str, argv))}\n{done.stdout}{done.stderr}")
    return done.stdout
