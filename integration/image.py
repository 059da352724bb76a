"""The image of `deploy/Dockerfile`: by docker where there is one, else without a container daemon
and without a registry.

In the second case the Dockerfile's own steps are carried out in copies of a base file system, by
chroot, so this needs Linux and root. The result is an archive as `docker load` and
`ctr images import` take it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.dockerfile import Stage, pairs, stages, words
from integration.servers import cache, cached, unavailable

ROOT = Path(__file__).parents[1]
NAME = "triggerhub:local"
"""As the overlay `local` names it."""
_DOCKERFILE = ROOT / "deploy" / "Dockerfile"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The way to packages that this machine has: mounted while a step runs, and never part of an image.
_WAYS = (
    "/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/pip.conf",
    str(Path.home() / ".config/pip/pip.conf"), str(Path.home() / ".pip/pip.conf"),
)  # fmt: skip


@dataclass(slots=True)
class Root:
    """A file system in the making, and what the image says of it."""

    path: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": _PATH})
    config: dict[str, Any] = field(default_factory=dict)
    here: str = "/"

    def inside(self, place: str) -> Path:
        """A path of the image, as one of this machine."""
        return self.path / os.path.join(self.here, place).lstrip("/")


def image() -> Path:
    """The archive. In the user's cache folder, and there anew when what goes into it is another:
    the Dockerfile, what it copies, and IMAGE_BASE, a folder with a file system that stands for its
    BASE; without that, docker builds on its own default. Skips where neither can be."""
    base = os.environ.get("IMAGE_BASE")
    name = f"image-{_digest(base)}"
    folder = cached(name, lambda made: _fill(made, base))
    for other in cache().glob("image-*"):
        if other.name != name:  # each is some 250 MB
            shutil.rmtree(other, ignore_errors=True)
    return folder / "triggerhub.tar"


def _digest(base: str | None) -> str:
    """Of all that goes into the image."""
    parts = [f"{base} {os.stat(base).st_mtime_ns}" if base else "docker"]
    own = (_DOCKERFILE, ROOT / ".dockerignore", Path(__file__), ROOT / "integration/dockerfile.py")
    for path in (*own, *_context()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        parts.append(f"{path.relative_to(ROOT)} {digest}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _context() -> Iterator[Path]:
    """The files that a build gets to see."""
    for kept in sorted(_kept()):
        top = ROOT / kept
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def _kept() -> set[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return {line[1:].rstrip("/") for line in lines if line.startswith("!")}


def _fill(folder: Path, base: str | None) -> None:
    archive = folder / "triggerhub.tar"
    if base is not None:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            unavailable("an image from IMAGE_BASE is made by chroot: that needs Linux and root")
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            build(Path(base), NAME, archive, Path(work))
        return
    if shutil.which("docker") is None or not _docker("version"):
        unavailable("no image: that needs docker, or IMAGE_BASE (see integration/image.py)")
    for command in (
        ("build", "--quiet", "--file", str(_DOCKERFILE), "--tag", NAME, str(ROOT)),
        ("save", "--output", str(archive), NAME),
    ):
        assert _docker(*command), f"docker {command[0]} failed"


def _docker(*arguments: str) -> bool:
    done = subprocess.run(
        ["docker", *arguments], stdout=subprocess.DEVNULL, timeout=900, check=False
    )
    return done.returncode == 0


def build(base: Path, name: str, archive: Path, work: Path) -> None:
    """Write the image to ``archive``. ``base`` is a file system with Python 3.11 or newer, and
    stands for the Dockerfile's BASE; ``work`` an empty folder."""
    made: dict[str, Root] = {}
    for stage in stages(_DOCKERFILE, {"BASE": "base"}):
        root = Root(work / stage.name)
        assert stage.base == "base", f"a stage is built on {stage.base}, expected BASE"
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root.path)], check=True)
        _carry_out(stage, root, made)
        made[stage.name] = root
    pack(root, name, archive)
    for root in made.values():
        shutil.rmtree(root.path)


def _carry_out(stage: Stage, root: Root, made: dict[str, Root]) -> None:
    for step in stage.steps:
        match step.name:
            case "RUN":
                _run(step.text, root)
            case "COPY":
                _copy(step.text.split(), root, made)
            case "ENV":
                root.env |= pairs(step.text)
            case "WORKDIR":
                root.here = step.text
                root.inside("").mkdir(parents=True, exist_ok=True)
                root.config["WorkingDir"] = step.text
            case "USER":
                root.config["User"] = step.text
            case "ENTRYPOINT" | "CMD":
                root.config[step.name.capitalize()] = words(step.text)
            case "LABEL":
                root.config.setdefault("Labels", {}).update(pairs(step.text))
            case "EXPOSE":
                root.config["ExposedPorts"] = {f"{port}/tcp": {} for port in step.text.split()}


def _copy(arguments: list[str], root: Root, made: dict[str, Root]) -> None:
    options = [a for a in arguments if a.startswith("--")]
    *sources, target = (a for a in arguments if not a.startswith("--"))
    stage = next((o.removeprefix("--from=") for o in options if o.startswith("--from=")), None)
    for source in sources:
        assert stage or source in _kept(), f".dockerignore keeps {source} from the build"
        found = made[stage].inside(source) if stage else ROOT / source
        into = root.inside(target)
        if found.is_dir():
            ignored = None if stage else shutil.ignore_patterns("__pycache__")
            shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            into = into / found.name if target.endswith("/") else into
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, into)


def _run(command: str, root: Root) -> None:
    """In a mount namespace of its own, with this machine's network and way to packages."""
    ways = {
        k: v for k, v in os.environ.items() if k.startswith("PIP_") or k.lower().endswith("_proxy")
    }
    places = dict.fromkeys([*_WAYS, *(value for value in ways.values() if value[:1] == "/")])
    mounts = ["mount --bind /dev dev", "mount -t proc proc proc"]
    for path in filter(os.path.exists, places):
        place = root.path / path.lstrip("/")
        if Path(path).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        mounts.append(f"mount --bind {path} {path.lstrip('/')}")
    script = " && ".join([*mounts, f'exec chroot . /bin/sh -c "cd {root.here}; $STEP"'])
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script],
        cwd=root.path, env=ways | root.env | {"STEP": command, "HOME": str(Path.home())},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"RUN {command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def pack(root: Root, name: str, archive: Path) -> None:
    """One layer, a configuration, a manifest (docker-archive)."""
    layer = archive.with_suffix(".layer")
    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as tar:
        for entry in sorted(os.listdir(root.path)):
            tar.add(root.path / entry, arcname=entry)
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = root.config | {"Env": [f"{key}={value}" for key, value in root.env.items()]}
    about = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }).encode()  # fmt: skip
    file_name = f"{hashlib.sha256(about).hexdigest()}.json"
    inner = f"{digest}/layer.tar"
    manifest = [{"Config": file_name, "RepoTags": [name], "Layers": [inner]}]
    with tarfile.open(archive, "w") as tar:
        for entry, content in (
            (file_name, about),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.add(layer, arcname=inner)
    layer.unlink()


if __name__ == "__main__":
    print(image())
