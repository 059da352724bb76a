from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from triggerhub.connector import Installation
from triggerhub.control.plugins import Kind, installed_kinds

GOOD = """
from pydantic import BaseModel
class Source(BaseModel):
    topic: str
class Connector:
    kind = {kind!r}
    source = Source
    def __init__(self, installation):
        self.installation = installation
"""


class Shelf:
    """A folder on the import path into which distributions are put."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, kind: str, target: str, **modules: str) -> None:
        info = self.folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[triggerhub.connectors]\n{kind} = {target}\n")
        for module, text in modules.items():
            (self.folder / f"{module}.py").write_text(text)

    def kinds(self) -> dict[str, Kind]:
        return installed_kinds([str(self.folder)])


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Shelf(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("shelf_"):
            del sys.modules[name]


def test_what_no_dead_letters_can_lie_in_breaks_its_kind(shelf: Shelf) -> None:
    text = GOOD.format(kind="ATrigger") + "    dead_letter = Source\n"
    shelf.put("acme", "ATrigger", "shelf_wrong:Connector", shelf_wrong=text)
    kind = shelf.kinds()["ATrigger"]
    assert "expected a kind of LetterPlaces" in kind.missing
    assert kind.places is None


def test_a_kind_is_imported_only_when_it_is_used(shelf: Shelf) -> None:
    shelf.put("acme", "ATrigger", "shelf_lazy:Connector", shelf_lazy=GOOD.format(kind="ATrigger"))
    kind = shelf.kinds()["ATrigger"]
    assert "shelf_lazy" not in sys.modules
    assert (kind.distribution, kind.version, kind.extra) == ("acme", "1.0", "")
    assert kind.source is not None
    assert list(kind.source.model_fields) == ["topic"]
    assert "shelf_lazy" in sys.modules
    assert kind.missing == ""
    assert kind.factory is not None
    assert kind.factory(Installation()).kind == "ATrigger"


def test_a_missing_dependency_says_what_to_install(shelf: Shelf) -> None:
    shelf.put(
        "acme", "BTrigger", "shelf_needs:Connector [queue]", shelf_needs="import no_such_client"
    )
    kind = shelf.kinds()["BTrigger"]
    assert kind.source is None
    assert kind.factory is None
    assert kind.missing == "BTrigger needs: pip install 'acme[queue]'"


def test_a_missing_dependency_without_an_extra_is_named(shelf: Shelf) -> None:
    shelf.put("acme", "BTrigger", "shelf_bare:Connector", shelf_bare="import no_such_client")
    assert "no_such_client" in shelf.kinds()["BTrigger"].missing


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1/0", "ZeroDivisionError"),
        ("class Connector: pass", "pydantic model"),
        ("Connector = 3", "something to call"),
        (GOOD.format(kind="OtherTrigger"), "OtherTrigger"),
        ("def Connecter(): pass", "Connector"),
    ],
)
def test_a_broken_plugin_harms_only_its_kind(shelf: Shelf, text: str, said: str) -> None:
    shelf.put("acme", "CTrigger", "shelf_broken:Connector", shelf_broken=text)
    shelf.put("good", "DTrigger", "shelf_fine:Connector", shelf_fine=GOOD.format(kind="DTrigger"))
    kinds = shelf.kinds()
    assert kinds["CTrigger"].source is None
    assert kinds["CTrigger"].missing.startswith("CTrigger (acme 1.0) cannot be loaded: ")
    assert said in kinds["CTrigger"].missing
    assert kinds["DTrigger"].source is not None


def test_of_two_plugins_with_one_kind_the_first_by_name_is_used(shelf: Shelf) -> None:
    shelf.put("zeta", "ETrigger", "shelf_zeta:Connector", shelf_zeta="1/0")
    shelf.put(
        "alpha", "ETrigger", "shelf_alpha:Connector", shelf_alpha=GOOD.format(kind="ETrigger")
    )
    kind = shelf.kinds()["ETrigger"]
    assert kind.distribution == "alpha"
    assert kind.shadowed == ("zeta 1.0",)
    assert kind.source is not None
