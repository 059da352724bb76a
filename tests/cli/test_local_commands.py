from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.terminal import run
from triggerhub.cli import app

GOOD = """
apiVersion: triggerhub.dev/v1alpha1
kind: Function
metadata: {name: handle}
spec: {url: "http://127.0.0.1:1/"}
"""


async def test_good_manifests_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    ran = await run("validate", "-f", str(tmp_path))
    assert (ran.code, ran.out) == (0, "0 triggers, 1 function: no faults\n")


async def test_each_fault_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("url", "ulr") + "---\nkind: Nothing\n")
    ran = await run("validate", "-f", str(tmp_path))
    assert ran.code == 1
    *faults, summary = ran.out.splitlines()
    assert len(faults) >= 2
    assert all(re.match(r".*a\.yaml:\d+: ", fault) for fault in faults)
    assert re.match(rf"0 triggers, 0 functions: {len(faults)} faults", summary)


async def test_faults_are_json_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.replace("url", "ulr"))
    ran = await run("validate", "-f", str(tmp_path), "-o", "json")
    assert ran.code == 1
    assert ran.json["faults"][0]["line"] > 0


SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: kafka}
stringData: {password: hunter2}
data: {user: Ym9i}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kafka}
data: {ca.crt: hunter2}
"""


async def test_secrets_are_counted_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD + "---" + SECRET)
    ran = await run("validate", "-f", str(tmp_path))
    assert (ran.code, ran.out) == (
        0, "0 triggers, 1 function, 1 Secret, 1 ConfigMap: no faults\n"
    )  # fmt: skip
    for wrong in (
        SECRET.replace("user: Ym9i", "user: hunter2"),
        SECRET.replace("hunter2", "[hunter2]"),
    ):
        (tmp_path / "a.yaml").write_text(wrong)
        for form in ("table", "json", "yaml"):
            ran = await run("validate", "-f", str(tmp_path), "-o", form)
            assert ran.code == 1
            assert "Secret default/kafka" in ran.out
            assert "hunter2" not in ran.out + ran.err


@pytest.mark.parametrize("command", ["validate", "run"])
async def test_a_path_that_is_not_there_is_one_sentence(tmp_path: Path, command: str) -> None:
    more = ("--data", str(tmp_path / "d"), "--admin", "127.0.0.1:0") if command == "run" else ()
    ran = await run(command, "-f", str(tmp_path / "none"), *more)
    assert ran.code == 1
    assert "none" in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


async def test_without_manifests_there_is_nothing_to_validate() -> None:
    ran = await run("validate")
    assert ran.code == 2
    assert ran.err.startswith("triggerhub: validate needs -f")
    assert ran.err.count("\n") == 1


async def test_a_folder_and_a_cluster_at_once_is_wrong_usage(tmp_path: Path) -> None:
    ran = await run("run", "-f", str(tmp_path), "--namespace", "shop")
    assert ran.code == 2
    assert "expected one of them" in ran.err


async def test_a_hub_that_must_not_be_open_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    ran = await run(
        "run", "-f", str(tmp_path / "m"), "--data", str(tmp_path / "d"), "--admin", "0.0.0.0:0"
    )
    assert ran.code == 1
    assert "--admin-token-file" in ran.err
    assert "Traceback" not in ran.err


async def test_an_address_that_is_none_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    ran = await run(
        "run", "-f", str(tmp_path / "m"), "--data", str(tmp_path / "d"),
        "--admin", "127.0.0.1:0", "--listen", "nonsense",
    )  # fmt: skip
    assert ran.code == 1
    assert "--listen: found 'nonsense', expected host:port" in ran.err


async def test_connectors_show_kind_and_version() -> None:
    ran = await run("connectors", "-o", "json")
    assert ran.code == 0
    assert {kind["kind"] for kind in ran.json} >= {"CronTrigger", "HTTPTrigger", "KafkaTrigger"}
    assert "CronTrigger" in (await run("connectors")).out


async def test_the_version_is_printed() -> None:
    from triggerhub import __version__

    assert (await run("--version")).out == f"triggerhub {__version__}\n"


@pytest.mark.parametrize(
    "command",
    ["run", "validate", "connectors", "bindings", "emit", "why", "dlq list", "dlq show",
     "dlq redrive", "dlq purge"],
)  # fmt: skip
def test_help_has_examples(command: str) -> None:
    # In this process: asking for help changes nothing.
    ran = CliRunner().invoke(app, [*command.split(), "--help"])
    assert ran.exit_code == 0
    assert ran.stdout.count(f"triggerhub {command}") >= 2


async def test_a_wrong_option_is_wrong_usage() -> None:
    ran = await run("bindings", "--colour")
    assert ran.code == 2
    assert "--colour" in ran.err


async def test_help_imports_nothing_heavy() -> None:
    import asyncio

    heavy = ("asyncio", "pydantic", "rich", "starlette", "uvicorn", "yaml", "structlog")
    code = (
        "import sys; from triggerhub.cli import app\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "[]"
