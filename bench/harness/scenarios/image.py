"""S11: a container image of 1 GiB, pulled by a real client (skopeo), and its layers by the load generator, which is faster than any client.

S11t is the same with TLS towards clients, S11w with the registry 40 ms away.
"""
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path

from layout import DATA, GIB, MIB, PORTS, WORK, expand
from peer import Peer
from scenarios import scenario
from scenarios.context import Ctx, drain, errors

LAYERS, LAYER_BYTES = 4, 256 * MIB
INDEX = "application/vnd.oci.image.index.v1+json"
COLUMNS = ("cold_s=skopeo cold s, warm_s=skopeo warm s, hot_gb_s=hot GB/s, hot_cpu_s_per_gib=CPU s/GiB, "
           "hot_origin_requests=origin requests hot, peak_rss_mib=peak RSS MiB")
NAME = "bench/big"
LAYOUT = DATA / "image-1g"


@scenario("S11", "container image of 1 GiB in 4 layers: skopeo, cold and warm; then its layers warm, 4 connections", key="hot_gb_s", more=True,
          seconds=60, columns=COLUMNS)
def s11(ctx: Ctx) -> dict:
    ctx.origins.start_registry()
    return _layers(ctx)


@scenario("S11t", "the same with TLS towards clients", key="hot_gb_s", more=True, seconds=60, columns=COLUMNS)
def s11t(ctx: Ctx) -> dict:
    ctx.origins.start_registry_tls()
    with _form(ctx, "tls") as formed:
        return _layers(formed)


@scenario("S11w", "the whole pull by tag (index, manifest, configuration, 4 layers, 4 connections) with the registry 40 ms away: cold, warm, "
          "and warm up to the configuration, before any layer", key="warm_s", more=False, seconds=40,
          columns="cold_s=cold s, warm_s=warm s, warm_head_ms=warm up to the configuration ms, warm_origin_requests=origin blobs warm")
def s11w(ctx: Ctx) -> dict:
    ctx.origins.start_registry_wan()
    layers = _image()
    _push()
    first, second, config = _tag()
    with _form(ctx, "wan") as formed:
        drain()

        def pull() -> tuple[float, float]:
            """Seconds until the configuration has come, and in all. Each step needs what the one before has said."""
            head = sum(formed.lg("registry", [path], "--header", f"Accept: {INDEX}, */*")["wall_s"] for path in (first, second, config))
            whole = formed.lg("registry", [path for path, _ in layers], "--once", "--conns", LAYERS, "--discard")
            if whole["errors"]:
                raise RuntimeError(f"{whole['errors']}")
            return head, head + whole["wall_s"]

        cold = pull()[1]
        checked = formed.lg("registry", layers, "--once", "--conns", LAYERS, "--verify")
        ctx.origins.registry_mark()
        pulls = sorted((pull() for _ in range(5)), key=lambda times: times[1])
        time.sleep(0.2)
        head, warm = pulls[len(pulls) // 2]
        return {"cold_s": round(cold, 3), "warm_s": round(warm, 3), "warm_head_ms": round(head * 1e3, 1), "errors": errors(checked),
                "warm_origin_requests": ctx.origins.registry_requests()}


@contextmanager
def _form(ctx: Ctx, form: str):
    """The same peer in another form, on an empty cache, in the place of this one."""
    ctx.peer.stop()
    peer = Peer(ctx.peer.name, ctx.peer.machine, form)
    try:
        peer.start()
        yield Ctx(peer, ctx.origins, ctx.secs, ctx.light)
    finally:
        peer.stop()


def _layers(ctx: Ctx) -> dict:
    layers = _image()
    _push()
    drain()
    cold = _pull(ctx)
    time.sleep(1)
    warm = min(_pull(ctx) for _ in range(2))
    paths = [path for path, _ in layers]
    checked = ctx.lg("registry", layers, "--once", "--conns", 4, "--verify")
    ctx.origins.registry_mark()
    r = ctx.measure(paths, "--requests", 16, "--conns", 4, "--discard", origin="registry")
    time.sleep(0.2)
    return {"cold_s": round(cold, 2), "warm_s": round(warm, 2), "errors": errors(checked), "hot_gb_s": round(r["gb_s"], 3),
            "hot_cpu_s_per_gib": round(r["server_cpu_s"] / max(r["body_bytes"] / GIB, 1e-9), 3),
            "hot_origin_requests": ctx.origins.registry_requests(), "peak_rss_mib": r["mem"]["peak"], "raw": r}


def _pull(ctx: Ctx) -> float:
    """Seconds of a pull by skopeo through the peer, into an empty folder."""
    host = expand(ctx.peer.t["image"], ctx.peer.values())
    into = WORK / "pulled"
    shutil.rmtree(into, ignore_errors=True)
    begin = time.monotonic()
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{host}/{NAME}:1", f"dir:{into}"],
                   check=True, stdin=subprocess.DEVNULL, preexec_fn=ctx.peer.machine.as_client)
    took = time.monotonic() - begin
    shutil.rmtree(into)
    return took


def _push() -> None:
    """Into the origin registry, where it is not there yet."""
    address = f"127.0.0.1:{PORTS['registry']}"
    if (DATA / "registry/docker/registry/v2/repositories" / NAME / "_manifests/tags/1").exists():
        return
    subprocess.run(["skopeo", "copy", "-q", "--preserve-digests", "--insecure-policy", "--dest-tls-verify=false", f"oci:{LAYOUT}:1", f"docker://{address}/{NAME}:1"],
                   check=True, stdin=subprocess.DEVNULL)


def _tag() -> tuple[str, str, str]:
    """Paths at a registry of an index for two architectures by its tag, of the manifest in it, and of the configuration. Both
    architectures have the one image: what counts is who is asked for what."""
    index = json.loads((LAYOUT / "index.json").read_text())
    entry = index["manifests"][0]
    manifest = json.loads((LAYOUT / "blobs/sha256" / entry["digest"][7:]).read_text())
    of = {key: entry[key] for key in ("mediaType", "digest", "size")}
    both = [{**of, "platform": {"architecture": name, "os": "linux"}} for name in ("amd64", "arm64")]
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": both})
    path = f"/v2/{NAME}/manifests/both"
    connection = http.client.HTTPConnection("127.0.0.1", PORTS["registry"], timeout=30)
    try:
        connection.request("PUT", path, body, {"Content-Type": INDEX})
        response = connection.getresponse()
        if response.status != 201:
            raise RuntimeError(f"the index was not taken: {response.status} {response.read()[:200]}")
    finally:
        connection.close()
    return path, f"/v2/{NAME}/manifests/{entry['digest']}", f"/v2/{NAME}/blobs/{manifest['config']['digest']}"


def _image() -> list[tuple[str, str]]:
    """(path at a registry, file) of the layers; made once."""
    blobs = LAYOUT / "blobs/sha256"
    if not (LAYOUT / "index.json").exists():
        blobs.mkdir(parents=True, exist_ok=True)
        _make(blobs)
    index = json.loads((LAYOUT / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    return [(f"/v2/{NAME}/blobs/{layer['digest']}", str(blobs / layer["digest"][7:])) for layer in manifest["layers"]]


def _make(blobs: Path) -> None:
    def put(data: bytes, **more) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": "sha256:" + digest, "size": len(data), **more}

    layers = [_layer(blobs, nth) for nth in range(LAYERS)]
    settings = {"architecture": "amd64", "os": "linux", "config": {},
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}
    config = put(json.dumps(settings).encode(), mediaType="application/vnd.oci.image.config.v1+json")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}
    entry = put(json.dumps(manifest).encode(), mediaType=kind, annotations={"org.opencontainers.image.ref.name": "1"})
    (LAYOUT / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (LAYOUT / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _layer(blobs: Path, nth: int) -> dict:
    """An archive with one incompressible file; not compressed, so that it is named by what is in it."""
    content, archive = blobs / "content", blobs / "archive"
    with open(content, "wb") as file:
        for _ in range(0, LAYER_BYTES, 16 * MIB):
            file.write(os.urandom(16 * MIB))
    with tarfile.open(archive, "w") as tar:
        tar.add(content, f"layer{nth}.bin")
    content.unlink()
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    archive.rename(blobs / digest)
    return {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + digest, "size": (blobs / digest).stat().st_size}
