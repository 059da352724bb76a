"""`triggerhub validate`, `triggerhub connectors`, `triggerhub crds`: no hub is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from triggerhub.cli.failure import Failure
from triggerhub.cli.output import Form, FormOption, document, plain, plural, table, yaml_text

Paths = Annotated[
    list[Path] | None,
    typer.Option("--filename", "-f", metavar="PATH", help="A folder or file; may be repeated."),
]


def validate(filename: Paths = None, output: FormOption = Form.TABLE) -> None:
    """Every fault of the manifests, with file and line; exit code 1 if there is any.

    \b
    Examples:
      triggerhub validate -f manifests/
      triggerhub validate -f orders.yaml -f bills.yaml -o json
    """
    from triggerhub.control.plugins import installed_kinds
    from triggerhub.control.resources import CONFIG_MAP, SECRET
    from triggerhub.control.sources.files import FolderSource

    if not filename:
        raise Failure("validate needs -f: a folder or file of manifests", 2)
    try:
        snapshot = FolderSource(filename, installed_kinds()).load()
    except OSError as error:
        raise Failure(str(error)) from None
    triggers, functions = len(snapshot.triggers), len(snapshot.functions)
    secrets, maps = (
        sum(key.kind == kind for key in snapshot.values) for kind in (SECRET, CONFIG_MAP)
    )
    if output is not Form.TABLE:
        counts = {"triggers": triggers, "functions": functions}
        counts |= {"secrets": secrets, "configMaps": maps}
        document({**counts, "faults": [fault.as_dict() for fault in snapshot.faults]}, output)
    else:
        for fault in snapshot.faults:
            print(plain(fault))
        found = plural(len(snapshot.faults), "fault") if snapshot.faults else "no faults"
        counted = [plural(triggers, "trigger"), plural(functions, "function")]
        counted += [plural(secrets, "Secret")] if secrets else []
        counted += [plural(maps, "ConfigMap")] if maps else []
        print(f"{', '.join(counted)}: {found}")
    if snapshot.faults:
        raise typer.Exit(1)


def connectors(output: FormOption = Form.TABLE) -> None:
    """What is installed: kind, version, and what an uninstalled extra needs.

    \b
    Examples:
      triggerhub connectors
      triggerhub connectors -o yaml
    """
    from triggerhub.control.plugins import installed_kinds

    found: list[dict[str, Any]] = [
        {
            "kind": kind.kind,
            "distribution": kind.distribution,
            "version": kind.version,
            "module": kind.module,
            "usable": not kind.missing,
            "missing": kind.missing,
            "shadowed": list(kind.shadowed),
        }
        for kind in installed_kinds().values()
    ]
    if output is not Form.TABLE:
        document(found, output)
    elif not found:
        print("no connectors are installed; try: pip install 'triggerhub[all]'")
    else:
        table(("KIND", "FROM", "VERSION", "STATE"), [_row(kind) for kind in found])


def crds(
    kind: Annotated[
        list[str] | None,
        typer.Argument(metavar="KIND", help="Default: every kind that is usable here."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", "-d", help="Write a file a kind into this folder instead."),
    ] = None,
    output: FormOption = Form.YAML,
) -> None:
    """The CustomResourceDefinitions of the kinds, from the models that are installed here.

    \b
    Examples:
      triggerhub crds | kubectl apply -f -
      triggerhub crds KafkaTrigger
      triggerhub crds -d crds/
    """
    from triggerhub.control.crds import crd
    from triggerhub.control.faults import nearest
    from triggerhub.control.plugins import installed_kinds
    from triggerhub.control.resources import FUNCTION

    kinds = installed_kinds()
    known = [FUNCTION, *kinds]
    found = []
    for name in kind or known:
        if name not in known:
            raise Failure(f"no kind {name!r} is installed here ({nearest(name, known)})")
        try:
            found.append(crd(name, kinds))
        except ValueError as error:
            if kind:
                raise Failure(str(error)) from None
            print(f"triggerhub: left out: {error}", file=sys.stderr)
    if directory is not None:
        _write(found, directory)
    elif output is Form.JSON:
        document({"apiVersion": "v1", "kind": "List", "items": found}, output)
    else:
        for definition in found:
            print("---")
            document(definition, Form.YAML)


def _write(definitions: list[dict[str, Any]], directory: Path) -> None:
    """As the files of the kinds, each named like its plural."""
    try:
        for definition in definitions:
            name = definition["spec"]["names"]["plural"]
            (directory / f"{name}.yaml").write_text(yaml_text(definition))
    except OSError as error:
        raise Failure(str(error)) from None


def _row(kind: dict[str, Any]) -> tuple[str, ...]:
    state = kind["missing"] or "installed"
    if kind["shadowed"]:
        state += f"; not used, of the same kind: {', '.join(kind['shadowed'])}"
    return kind["kind"], kind["distribution"], kind["version"], state
