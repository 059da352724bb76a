"""Gets the programs of a Kubernetes API server, built once; run as a module, it does so at once and
says what takes so long."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from integration.golang import go, needs_go
from integration.servers import cache, cached, get_now, say

KUBERNETES = "1.34.4"
_PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")
_OLDEST_KUBECTL = 30
_GO = (
    "Go 1.21 or newer builds the Kubernetes API server, once: install it "
    "(golang-go of Debian 13 or newer; that of Debian 12 is too old)"
)


def kubernetes_programs() -> Path:
    """The folder with kube-apiserver, kube-controller-manager and kubectl."""
    return cached(f"kubernetes-{KUBERNETES}", _fill)


def _fill(folder: Path) -> None:
    """Copies of what is there in the wanted version; the rest is built."""
    for program in _PROGRAMS:
        found = _already(program)
        if found is not None:
            shutil.copy(found, folder / program)
    missing = [program for program in _PROGRAMS if not (folder / program).exists()]
    if missing:
        _compile(folder, missing)


def _already(program: str) -> Path | None:
    """On the PATH, or from a cluster that was built here before."""
    places = (cache() / "cluster" / "bin" / program, Path(shutil.which(program) or ""))
    return next((path for path in places if path.is_file() and _fits(path)), None)


def _fits(path: Path) -> bool:
    asked = ["version", "--client"] if path.name == "kubectl" else ["--version"]
    said = subprocess.run([path, *asked], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"v1\.(\d+)\.\d+", said.stdout)
    if found is None:
        return False
    # kubectl speaks to servers of other versions, too.
    newer = path.name == "kubectl" and int(found[1]) >= _OLDEST_KUBECTL
    return newer or found[0] == f"v{KUBERNETES}"


def _compile(folder: Path, programs: list[str]) -> None:
    needs_go(_GO)
    began = time.monotonic()
    say(
        "kubernetes",
        f"building {', '.join(programs)} {KUBERNETES} from source: once, 6 to 15 minutes",
    )
    work = folder / "build"
    work.mkdir()
    _write_module(work, programs)
    _go(work, "mod", "tidy")
    say("kubernetes", f"sources are here after {time.monotonic() - began:.0f} s; compiling")
    stamp = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.split(".")
    flags = (
        f"-s -w -X {stamp}.gitVersion=v{KUBERNETES}"
        f" -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    )
    targets = [f"k8s.io/kubernetes/cmd/{program}" for program in programs]
    _go(work, "build", f"-ldflags={flags}", "-o", f"{folder}/", *targets)
    shutil.rmtree(work)
    say("kubernetes", f"built in {time.monotonic() - began:.0f} s")


def _write_module(folder: Path, programs: list[str]) -> None:
    """A go.mod from which the programs build. Kubernetes' own points its parts at folders; here
    each is replaced by what was published of it."""
    module = f"k8s.io/kubernetes@v{KUBERNETES}"
    upstream = Path(json.loads(_go(folder, "mod", "download", "-json", module))["GoMod"])
    text = upstream.read_text()
    language = re.search(r"^go \S+", text, re.MULTILINE)
    debug = re.search(r"^godebug .*$|^godebug \([^)]*\)", text, re.MULTILINE)
    parts = sorted(set(re.findall(r"^\s+(k8s\.io/\S+) => \./staging", text, re.MULTILINE)))
    assert language, f"{upstream} names no Go version"
    published = "v0." + KUBERNETES.removeprefix("1.")
    replaced = "".join(f"\t{part} => {part} {published}\n" for part in parts)
    (folder / "go.mod").write_text(
        f"module triggerhub.dev/integration\n\n{language[0]}\n\n{debug[0] if debug else ''}\n\n"
        f"require k8s.io/kubernetes v{KUBERNETES}\n\nreplace (\n{replaced})\n"
    )
    imports = "".join(f'\t_ "k8s.io/kubernetes/cmd/{program}"\n' for program in programs)
    (folder / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n")


def _go(folder: Path, *arguments: str) -> str:
    return go(folder, *arguments, hint=_GO, GOFLAGS="-mod=mod")


if __name__ == "__main__":
    get_now("kubernetes", kubernetes_programs)
