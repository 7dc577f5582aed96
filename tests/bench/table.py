"""What was measured, as one table with the aims beside it, and as JSON."""
import os
import pathlib
import platform
import re
import statistics

# Whom most of it is about, and the others, in the order of the columns.
MINE = "walden"
OTHERS = ("pg_basebackup", "pgBackRest")
WIDTH = 36


class Table:
    def __init__(self):
        self.entries = []
        self.mine, self.others = MINE, OTHERS

    def group(self, title, mine=MINE, others=OTHERS):
        """What follows is about `mine`, beside `others`: at most two, which have columns of their own."""
        self.mine, self.others = mine, others
        self.entries.append({"kind": "group", "title": title, "mine": mine, "others": others})

    def note(self, text):
        self.entries.append({"kind": "note", "text": text})

    def row(self, what, unit, runs, aims=(), *, limit=None, ratios=True):
        """`runs`: name -> one value a round. `aims`: name -> the ratio to it that is aimed at. `limit`: of the value."""
        mine, aims = self.mine, dict(aims)
        self.entries.append({
            "kind": "row", "mine": mine, "others": self.others, "what": what, "unit": unit, "runs": runs, "aims": aims, "limit": limit,
            "median": {name: statistics.median(values) for name, values in runs.items()},
            "ratio": {name: statistics.median(a / b for a, b in zip(runs[mine], values) if b)
                      for name, values in runs.items() if ratios and name != mine and all(values)},
        })

    def variants(self, title, rounds, base):
        values = lambda pick: {name: [pick(run) for run in runs] for name, runs in rounds.items()}
        walls, cpus = values(lambda run: run.wall), values(lambda run: run.cpu)
        self.entries.append({
            "kind": "variants", "title": title, "wall": walls, "cpu": cpus,
            "server_cpu": values(lambda run: run.server_cpu), "memory_mib": values(lambda run: run.memory_kib / 1024),
            "stored_mb": values(lambda run: run.stored / 1e6), "base": base})

    def missed(self):
        for entry in self.entries:
            if entry["kind"] == "row":
                mine = entry["median"][entry["mine"]]
                for name, aim in entry["aims"].items():
                    if entry["ratio"][name] > aim:
                        yield f"{entry['what']} is {entry['ratio'][name]:.2f} × {name}, not {aim:g}"
                if entry["limit"] and mine > entry["limit"]:
                    yield f"{entry['what']} is {mine:.1f} {entry['unit']}, not {entry['limit']:g}"

    def text(self, described, rounds):
        lines = ["", described, f"medians of {rounds} alternating rounds; ratios: median of the rounds' own; ! misses the aim"]
        for entry in self.entries:
            lines += getattr(self, "_" + entry["kind"])(entry)
        return "\n".join(lines)

    @staticmethod
    def _group(entry):
        head = f"{entry['mine']:>11}" + "".join(f"{name:>15} {'×':>6} {'aim':<8}" for name in entry["others"])
        return ["", entry["title"], " " * (WIDTH + 2) + head]

    @staticmethod
    def _note(entry):
        return ["  " + entry["text"]]

    def _row(self, entry):
        number = lambda value: f"{value:.2f}" if value < 100 else f"{value:.0f}"
        median = entry["median"][entry["mine"]]
        line = f"  {entry['what'] + ', ' + entry['unit']:<{WIDTH + 2}}{number(median):>9}"
        for name in entry["others"]:
            if name not in entry["median"]:
                line += " " * 31
                continue
            line += f"{number(entry['median'][name]):>15} "
            ratio, aim = entry["ratio"].get(name), entry["aims"].get(name)
            line += f"{ratio:6.2f} " if ratio is not None else " " * 7
            line += f"{('≤ ' + format(aim, 'g') + (' !' if ratio > aim else '')) if aim else '':<8}"
        if entry["limit"]:
            line += f" {entry['mine']} ≤ {entry['limit']:g}{' !' if median > entry['limit'] else ''}"
        lines = [line.rstrip()]
        # Who has no column: the same without an archiver in it, for one.
        for name in entry["median"]:
            if name not in (entry["mine"], *entry["others"]):
                lines.append(f"    {name + ':':<{WIDTH}}{number(entry['median'][name]):>9}")
        return lines

    @staticmethod
    def _variants(entry):
        base = entry["base"]
        head = f"{'wall, s':>9}{'×':>6}{'CPU, s':>9}{'×':>6}{'server':>9}{'MiB':>7}{'MB':>8}"
        lines = ["", entry["title"], f"  {'':<46}{head}"]
        for name, walls in entry["wall"].items():
            ratio = lambda key: statistics.median(a / b for a, b in zip(entry[key][name], entry[key][base]))
            middle = lambda key: statistics.median(entry[key][name])
            lines.append(f"  {name:<46}{statistics.median(walls):9.2f}{ratio('wall'):6.2f}{middle('cpu'):9.2f}"
                         f"{ratio('cpu'):6.2f}{middle('server_cpu'):9.2f}{middle('memory_mib'):7.1f}"
                         f"{middle('stored_mb'):8.1f}")
        return lines

    def as_json(self, described, rounds, seed):
        return {"machine": described, "rounds": rounds, "seed": seed, "missed": list(self.missed()), "measured": self.entries}


def machine(directory, versions, load):
    """One line on where the figures come from."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", info, re.M)
    flags = set((re.search(r"^flags\s*: (.*)$", info, re.M) or [None, ""])[1].split())
    known = {"sha_ni": "SHA-NI", "aes": "AES-NI", "vaes": "VAES", "avx2": "AVX2", "avx512f": "AVX-512"}
    features = [name for flag, name in known.items() if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    best = ("", "?")
    for mount in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, point, kind, *_ = mount.split()
        if str(directory).startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, kind)
    return (f"{os.cpu_count()} × {model[1] if model else platform.machine()} ({', '.join(features)}), "
            f"{memory / 2**30:.0f} GiB, {best[1]}, Linux {platform.release()}; {', '.join(versions)}; load before: {load[0]:.2f}")
