"""The files that the origins serve, the container image of the registry origin, and a certificate. Made once, kept."""
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

from layout import DATA, GIB, KIB, MIB

# class: (size, count). Incompressible. Names end in _1.0_amd64.deb so that apt-cacher-ng takes them for packages.
CLASSES = {
    "tiny": (200, 1),
    "s1k": (KIB, 2000),
    "s100k": (100 * KIB, 500),
    "m10": (10 * MIB, 20),
    "m64": (64 * MIB, 1),
    "m100": (100 * MIB, 1),
    "g1": (GIB, 1),
}
LAYERS, LAYER_BYTES = 6, 34 * MIB


def name(cls: str, i: int) -> str:
    return f"pool/{cls}/f{i:05d}_1.0_amd64.deb"


def make() -> None:
    for cls, (size, count) in CLASSES.items():
        for i in range(count):
            _random_file(DATA / "www" / name(cls, i), size)
    _image(DATA / "image")
    _certificate(DATA / "tls")


def _random_file(path: Path, size: int) -> None:
    if path.exists() and path.stat().st_size == size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as f:
        for at in range(0, size, 16 * MIB):
            f.write(os.urandom(min(16 * MIB, size - at)))


def _image(out: Path) -> None:
    """An OCI layout of LAYERS gzip layers, each with one incompressible file."""
    if (out / "index.json").exists():
        return
    blobs = out / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(data: bytes, **more) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": "sha256:" + digest, "size": len(data), **more}

    layers, contents = [], []
    for i in range(LAYERS):
        tar = _layer(i)
        contents.append("sha256:" + hashlib.sha256(tar).hexdigest())
        layers.append(put(gzip.compress(tar, 1, mtime=0), mediaType="application/vnd.oci.image.layer.v1.tar+gzip"))
    settings = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/nothing"]},
                "rootfs": {"type": "layers", "diff_ids": contents}}
    config = put(json.dumps(settings).encode(), mediaType="application/vnd.oci.image.config.v1+json")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}
    entry = put(json.dumps(manifest).encode(), mediaType=kind, annotations={"org.opencontainers.image.ref.name": "1"})
    (out / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (out / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _layer(i: int) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        entry = tarfile.TarInfo(f"layer{i}.bin")
        entry.size, entry.mode = LAYER_BYTES, 0o644
        tar.addfile(entry, io.BytesIO(os.urandom(LAYER_BYTES)))
    return raw.getvalue()


def blobs() -> list[tuple[str, str]]:
    """(path at a registry, file) of the image's layers."""
    folder = DATA / "image/blobs/sha256"
    index = json.loads((DATA / "image/index.json").read_text())
    manifest = json.loads((folder / index["manifests"][0]["digest"][7:]).read_text())
    return [(f"/v2/bench/img/blobs/{l['digest']}", str(folder / l["digest"][7:])) for l in manifest["layers"]]


def _certificate(out: Path) -> None:
    """An authority (ca.pem), and a certificate (cert.pem, key.pem) for the name bench.test: P-256, as most servers have."""
    if (out / "cert.pem").exists():
        return
    out.mkdir(parents=True, exist_ok=True)

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=out, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "3650", "-subj", "/CN=bench authority")
    openssl("req", *key, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=bench.test")
    (out / "names").write_text("subjectAltName=DNS:bench.test,DNS:fast.test,DNS:chaos.test,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "names",
            "-days", "3650", "-out", "cert.pem")
    for file in out.glob("*.pem"):
        file.chmod(0o644)
