#!/usr/bin/env python3
"""Makes packages.trace.xz: what a fleet of Debian machines asks a package cache for. Run on a machine with apt and its lists.

    python3 bench/traces/make.py

Real: every package of the distribution with its size, and for each role the closure of packages that apt would install on an empty
machine, base system included. Ours: when. Thirty days; each day a number of installations, their roles chosen by Zipf's law; on
day 15 a point release, which replaces every fourth package, and upgrades the machines installed so far; on days 8, 16 and 24 somebody mirrors the
whole distribution.

The file, xz of lines of text: `object SIZE` (numbered from 0), `role NAME OBJECT…`, then by days `day`, `install ROLE` (by number), `scan`,
`replace OBJECT` (a new version: a new object of the same size), `upgrade ROLE`. What happens on one day happens at once, interleaved.
"""
import lzma
import random
import subprocess
from pathlib import Path

OUT = Path(__file__).with_name("packages.trace.xz")
DAYS, SCANS, RELEASE = 30, (8, 16, 24), 15
INSTALLS = (8, 16)  # a day, from … to
SEED = 20
BASE = ("base-files bash coreutils dpkg apt systemd systemd-sysv udev linux-image-amd64 openssh-server ca-certificates curl gnupg "
        "iproute2 less locales rsyslog sudo vim-tiny").split()
ROLES = {
    "web": "nginx certbot", "python": "python3-venv python3-pip python3-dev build-essential", "database": "postgresql",
    "java": "openjdk-17-jdk-headless maven", "container": "docker.io", "node": "nodejs npm", "php": "apache2 php php-mysql",
    "mysql": "mariadb-server", "cache": "redis-server memcached", "monitor": "prometheus prometheus-node-exporter",
    "ci": "git build-essential cmake ninja-build ccache", "mail": "postfix dovecot-imapd", "desktop": "xfce4 firefox-esr",
    "office": "libreoffice", "science": "python3-scipy python3-pandas jupyter-notebook", "ruby": "ruby-full rails",
    "go": "golang", "rust": "cargo rustc", "virtual": "qemu-system-x86 libvirt-daemon-system", "gnome": "gnome-core",
    "video": "ffmpeg obs-studio", "print": "cups printer-driver-all", "maps": "qgis", "tex": "texlive-latex-extra",
}


def lines_of(*argv: str) -> list[str]:
    return subprocess.run(argv, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout.splitlines()


def distribution() -> dict[str, int]:
    """Every file of the distribution with its size."""
    sizes, name, size = {}, None, None
    for line in [*lines_of("apt-cache", "dumpavail"), ""]:
        key, _, value = line.partition(": ")
        if key == "Filename":
            name = value.rsplit("/", 1)[-1]
        elif key == "Size":
            size = int(value)
        elif not line and name:
            sizes[name], name = size, None
    return sizes


def closure(packages: list[str]) -> dict[str, int]:
    """What apt downloads for them on an empty machine."""
    argv = ["apt-get", "install", "--print-uris", "-y", "-qq", "-o", "Dir::State::status=/dev/null", "-o", "Debug::NoLocking=1"]
    fields = [line.split() for line in lines_of(*argv, *packages) if line.startswith("'")]
    return {uri.strip("'").rsplit("/", 1)[-1].replace("%2b", "+").replace("%7e", "~"): int(size) for uri, _, size, *_ in fields}


def main() -> None:
    rng = random.Random(SEED)
    roles = {name: closure(BASE + packages.split()) for name, packages in ROLES.items()}
    sizes = distribution()
    for files in roles.values():
        sizes |= files
    number = {name: i for i, name in enumerate(sorted(sizes))}
    out = [f"object {sizes[name]}" for name in number]
    out += [f"role {role} " + " ".join(str(number[file]) for file in files) for role, files in roles.items()]
    weights = [1 / (rank + 1) for rank in range(len(roles))]
    installed: list[int] = []
    for day in range(1, DAYS + 1):
        out.append("day")
        if day == RELEASE:
            out += [f"replace {i}" for i in sorted(rng.sample(range(len(number)), len(number) // 4))]
            out += [f"upgrade {role}" for role in installed]
        today = rng.choices(range(len(roles)), weights, k=rng.randint(*INSTALLS))
        out += [f"install {role}" for role in today]
        installed += today
        if day in SCANS:
            out.append("scan")
    OUT.write_bytes(lzma.compress("\n".join(out).encode() + b"\n", preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(number)} objects, {sum(sizes.values()) / 1e9:.1f} GB; {len(installed)} installations; {OUT.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
