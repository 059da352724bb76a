"""Where the API server is, and what proves who asks."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from kubernetes_asyncio.client.configuration import Configuration
from kubernetes_asyncio.config import ConfigException
from structlog.testing import capture_logs

from triggerhub.cluster import access as module
from triggerhub.cluster.access import Access

SERVER = {"server": "http://127.0.0.1:1"}


def kubeconfig(folder: Path, user: Any = None, **changes: Any) -> Path:
    """One with two contexts, ``here`` and ``there``; the first is the current one."""
    body = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": SERVER}],
        "users": [{"name": "u", "user": user or {"token": "secret"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u"}},
            {"name": "there", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
        ],
        **changes,
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(json.dumps({name: value for name, value in body.items() if value is not None}))
    return path


@pytest.mark.parametrize(
    ("context", "namespace"), [(None, "default"), ("here", "default"), ("there", "shop")]
)
async def test_a_context_has_its_namespace(
    tmp_path: Path, context: str | None, namespace: str
) -> None:
    access = await Access.find(kubeconfig(tmp_path), context)
    assert (access.url, access.namespace) == ("http://127.0.0.1:1", namespace)
    assert await access.authorization() == "Bearer secret"


async def test_a_context_can_be_named_where_none_is_current(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, **{"current-context": None})
    assert (await Access.find(path, "there")).namespace == "shop"


async def test_a_kubeconfig_is_found_as_kubectl_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(OSError, match=r"no -f was given, .* nor a kubeconfig at .*/\.kube/config"):
        await Access.find(None, None)
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path).rename(tmp_path / ".kube" / "config")
    assert (await Access.find(None, None)).url == "http://127.0.0.1:1"
    (tmp_path / "other").mkdir()
    other = kubeconfig(tmp_path / "other", **{"current-context": "there"})
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{other}")
    assert (await Access.find(None, None)).namespace == "shop"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "text",
        "{",
        "a: [",
        "{}",
        '{"clusters": []}',
        '{"current-context": "x", "contexts": [], "clusters": [], "users": []}',
        '{"current-context": "x", "contexts": [{"name": "x"}], "clusters": [], "users": []}',
        (
            '{"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "none"}}],'
            ' "clusters": [], "users": []}'
        ),
    ],
)
async def test_a_kubeconfig_that_is_wrong_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(OSError, match="cannot be used: ") as told:
        await Access.find(path, None)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)


async def test_what_is_named_and_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="there is no kubeconfig at /none"):
        await Access.find(Path("/none"), None)
    with pytest.raises(OSError, match="elsewhere"):
        await Access.find(kubeconfig(tmp_path), "elsewhere")
    secure = {"server": "https://127.0.0.1:1", "certificate-authority": "/none"}
    path = kubeconfig(tmp_path, clusters=[{"name": "c", "cluster": secure}])
    with pytest.raises(OSError, match="/none"):
        await Access.find(path, None)


async def test_a_token_file_that_rotates_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.0)
    token = tmp_path / "token"
    token.write_text("one")
    access = await Access.find(kubeconfig(tmp_path, {"tokenFile": str(token)}), None)
    assert await access.authorization() == "Bearer one"
    token.write_text("two")
    assert await access.authorization() == "Bearer two"
    token.unlink()
    with capture_logs() as logs:
        assert await access.authorization() == "Bearer two"
    assert [entry["event"] for entry in logs] == ["credentials.failed"]


def plugin(folder: Path, **status: str) -> dict[str, Any]:
    """A user whose token a program brings: the number of its runs."""
    script = folder / "plugin"
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    script.write_text(
        f"#!{sys.executable}\n"
        "import json, pathlib, sys\n"
        f"runs = pathlib.Path({str(folder / 'runs')!r})\n"
        "n = int(runs.read_text()) + 1 if runs.exists() else 1\n"
        "runs.write_text(str(n))\n"
        f"status = {{'token': f't{{n}}', **{status!r}}}\n"
        f"print(json.dumps({answer!r} | {{'status': status}}))\n"
        "sys.exit(pathlib.Path(runs.parent / 'fail').exists())\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": answer["apiVersion"], "command": str(script)}}


async def test_a_plugin_runs_again_when_its_token_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.0)
    user = plugin(tmp_path, expirationTimestamp="2020-01-31T12:00:00Z")
    access = await Access.find(kubeconfig(tmp_path, user), None)
    assert await access.authorization() == "Bearer t2"
    assert await access.authorization() == "Bearer t3"


async def test_a_plugin_whose_token_has_no_end_runs_again_when_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.0)
    access = await Access.find(kubeconfig(tmp_path, plugin(tmp_path)), None)
    assert await access.authorization() == "Bearer t1"
    assert await access.authorization() == "Bearer t1"
    access.doubt()
    assert await access.authorization() == "Bearer t2"
    assert await access.authorization() == "Bearer t2"


async def test_a_plugin_that_fails_is_one_sentence_at_start_and_a_line_later(
    tmp_path: Path,
) -> None:
    path = kubeconfig(tmp_path, plugin(tmp_path))
    access = await Access.find(path, None)
    (tmp_path / "fail").touch()
    with pytest.raises(OSError, match="process returned 1"):
        await Access.find(path, None)
    access.doubt()
    with capture_logs() as logs:
        assert await access.authorization() == "Bearer t1"
    assert [entry["event"] for entry in logs] == ["credentials.failed"]


async def test_certificates_that_rotate_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AGAIN", 0.0)
    authority = tmp_path / "ca.crt"
    trustme.CA().cert_pem.write_to_path(str(authority))
    secure = {"server": "https://127.0.0.1:1", "certificate-authority": str(authority)}
    path = kubeconfig(tmp_path, clusters=[{"name": "c", "cluster": secure}])
    access = await Access.find(path, None)
    before = access.tls
    await access.authorization()
    assert access.tls is before
    fresh = tmp_path / "fresh"
    trustme.CA().cert_pem.write_to_path(str(fresh))
    fresh.rename(authority)
    await access.authorization()
    assert access.tls.get_ca_certs() != before.get_ca_certs()


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"http_proxy": "http://p:1"}, "http://p:1"),
        ({"http_proxy": "http://p:1", "no_proxy": "127.0.0.1"}, None),
        ({"https_proxy": "http://p:1"}, None),
    ],
)
async def test_a_proxy_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], proxy: str | None
) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (await Access.find(kubeconfig(tmp_path), None)).proxy == proxy


async def test_a_token_that_cannot_be_read_just_now_is_still_the_one_before() -> None:
    def hook(configuration: Configuration) -> None:
        raise ConfigException("Token file exists but empty.")

    configuration = Configuration(host="http://127.0.0.1:1")
    configuration.api_key["BearerToken"] = "Bearer one"
    access = Access(configuration, "hub", None, None)
    configuration.refresh_api_key_hook = hook
    assert await access.authorization() == "Bearer one"
