"""The image of `deploy/Dockerfile`, made without a container daemon and without a registry.

The Dockerfile's own steps are carried out in copies of a base file system, by chroot, so this needs
Linux and root. The result is an archive as `docker load` and `ctr images import` take it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.dockerfile import Stage, pairs, stages, words

ROOT = Path(__file__).parents[1]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHARED = ("/etc/resolv.conf", "/etc/hosts")


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


def build(base: Path, name: str, archive: Path, work: Path) -> None:
    """Write the image to ``archive``. ``base`` is a file system with Python 3.11 or newer, and
    stands for the Dockerfile's BASE; ``work`` an empty folder."""
    made: dict[str, Root] = {}
    for stage in stages(ROOT / "deploy" / "Dockerfile", {"BASE": "base"}):
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
    kept = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")}  # fmt: skip
    for source in sources:
        assert stage or source in kept, f".dockerignore keeps {source} from the build"
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
    env = root.env | {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
    shared = [path for path in (*_SHARED, *env.values()) if path[:1] == "/" and Path(path).exists()]
    mounts = ["mount --bind /dev dev", "mount -t proc proc proc"]
    for path in shared:
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
        cwd=root.path, env=env | {"STEP": command, "HOME": "/root"},
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
    base, name, archive = sys.argv[1:]
    work = Path(f"{archive}.work")
    work.mkdir()
    build(Path(base), name, Path(archive).absolute(), work.absolute())
    work.rmdir()
