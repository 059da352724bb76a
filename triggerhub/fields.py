"""What a field must hold, said once: a model checks it, and so does an API server.

The two halves of a check stand beside each other: Python's, and what becomes part of the model's
JSON schema and so of the CustomResourceDefinition. Both must let the same pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

EXPECTED = "expected"
"""Type of a ``PydanticCustomError`` whose message is a noun phrase after "expected"."""
WHAT = "x-expected"
"""In a JSON schema: that noun phrase."""
VALIDATIONS = "x-kubernetes-validations"

PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
"""Pattern of a port's number, from 1."""
_GROUP = "[0-9A-Fa-f]{1,4}"
_FORMS = (
    f"({_GROUP}:){{7}}{_GROUP}",
    f"({_GROUP}:){{1,7}}:",
    *(f"({_GROUP}:){{1,{7 - after}}}(:{_GROUP}){{1,{after}}}" for after in range(1, 7)),
    f":(:{_GROUP}){{1,7}}",
    "::",
)
IPV6 = f"({'|'.join(_FORMS)})"
"""Pattern of an IPv6 address (RFC 4291, section 2.2, forms 1 and 2)."""
_LABELS = "[A-Za-z0-9._-]+"
HOST = rf"({_LABELS}|\[{IPV6}\])"
"""Pattern of a name, an IPv4 address, or an IPv6 address in brackets."""
ZONED_HOST = rf"({_LABELS}|\[{IPV6}(%{_LABELS})?\])"
"""The same, also with the zone of an IPv6 address (RFC 4007, section 11)."""

_RESERVED = frozenset(
    ("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function",
     "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while")
)  # fmt: skip


def expected(what: str) -> PydanticCustomError:
    """An error that says only what was expected; what was found is told beside it."""
    return PydanticCustomError(EXPECTED, "expected {what}", {"what": what})


@dataclass(frozen=True)
class Text:
    """Annotation of a ``str``: the form that it must have."""

    pattern: str
    """Of the whole text, without anchors. Python's ``re`` and RE2 must read it alike: no
    look-around, no back reference; ``[0-9]``, not ``\\d``, which Python takes for more."""
    what: str
    """Noun phrase: what is expected."""
    longest: int
    """Characters (code points) at most: without a bound an API server refuses rules as too dear."""
    never: str = ""
    """A pattern that must be found nowhere in the text."""
    readable: bool = True
    """False: an API server says ``what`` instead of showing a pattern that nobody can read. Not for
    a text that may be of another type instead: it has no rules for that."""

    def fits(self, value: str) -> bool:
        return (
            len(value) <= self.longest
            and self._form.fullmatch(value) is not None
            and (self._never is None or self._never.search(value) is None)
        )

    def check(self, value: str) -> str:
        """The text. Raises PydanticCustomError, a ValueError, for one of another form."""
        if not self.fits(value):
            raise expected(self.wanted(value))
        return value

    def read(self, value: str) -> str:
        """The text, which stands elsewhere than in a manifest. Raises ValueError, which says what
        was found, too."""
        if not self.fits(value):
            raise ValueError(f"found {value!r}, expected {self.wanted(value)}")
        return value

    def wanted(self, value: str) -> str:
        """What was expected instead of this text."""
        return self.what if len(value) <= self.longest else f"at most {self.longest} characters"

    def schema(self) -> dict[str, Any]:
        """JSON schema of the text."""
        made: dict[str, Any] = {"type": "string", "maxLength": self.longest, WHAT: self.what}
        rules = []
        if self.readable:
            made["pattern"] = self.anchored
        else:
            rules.append(f"self.matches({cel_text(self.anchored)})")
        if self.never:
            rules.append(f"!self.matches({cel_text(self.never)})")
        if rules:
            said = f"expected {self.what}"
            made[VALIDATIONS] = [{"rule": rule, "message": said} for rule in rules]
        return made

    @property
    def anchored(self) -> str:
        """The pattern as JSON schema wants it."""
        return f"^({self.pattern})$" if "|" in self.pattern else f"^{self.pattern}$"

    @cached_property
    def _form(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    @cached_property
    def _never(self) -> re.Pattern[str] | None:
        return re.compile(self.never) if self.never else None

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), **self.schema()}


def https_url(example: str) -> Text:
    """Form of the URL of another server, with a path and a query or without."""
    form = rf"https://{HOST}(:{PORT})?(/[!$-;=?-Z_a-z~]*)?"
    return Text(form, f"an https URL such as {example}", 2048, readable=False)


_DAY = "(0[1-9]|[12][0-9]|3[01])"
_TIME = Text(
    # RFC 3339, section 5.6; no year 0, no leap second.
    rf"([1-9][0-9]{{3}}|0[1-9][0-9]{{2}}|00[1-9][0-9]|000[1-9])-(0[1-9]|1[0-2])-{_DAY}"
    r"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
    "a time such as 2026-01-31T08:00:00Z",
    48,
)


def parse_time(text: str) -> datetime:
    """An RFC 3339 date-time, section 5.6. Raises ValueError."""
    return datetime.fromisoformat(_TIME.check(text).upper())


def _check_time(text: str) -> str:
    try:
        parse_time(text)
    except ValueError:
        raise expected(_TIME.what) from None
    return text


def _text_of_time(found: object) -> object:
    # An unquoted YAML timestamp arrives as a datetime.
    if isinstance(found, datetime) and found.tzinfo is not None:
        return found.isoformat()
    return found


Time = Annotated[str, BeforeValidator(_text_of_time), _TIME, AfterValidator(_check_time)]
"""A field that holds an RFC 3339 date-time, as text; ``parse_time`` reads it. Its ``Field`` should
say ``json_schema_extra={"format": "date-time"}``."""


@dataclass(frozen=True)
class Rule:
    """What must hold of several fields of a model together."""

    cel: str
    """For an API server, in CEL: ``self`` is the mapping with the names of the wire, its defaults
    filled in."""
    message: str
    """What an API server says where it does not hold: what was expected."""
    wrong: Callable[[Any], str]
    """The same of the model: what is wrong, found and expected; empty where it holds."""
    said: str = ""
    """CEL of a text that is said instead of ``message``: one that says what was found."""


class Checked(BaseModel):
    """A model whose fields must fit together; what must hold is part of its JSON schema."""

    exactly_one: ClassVar[tuple[str, ...]] = ()
    """Names on the wire of which one, and only one, must be given."""
    field_rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def miscounted(cls, given: list[str]) -> str:
        """What is wrong with the choice among ``exactly_one``; empty when one was made."""
        if not cls.exactly_one or len(given) == 1:
            return ""
        found = f"both {' and '.join(given)}" if given else f"none of {', '.join(cls.exactly_one)}"
        return f"found {found}, expected exactly one of {', '.join(cls.exactly_one)}"

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.exactly_one:
            given = [
                field.alias or name
                for name, field in type(self).model_fields.items()
                if (field.alias or name) in self.exactly_one and getattr(self, name) is not None
            ]
            _hold(self.miscounted(given))
        for rule in self.field_rules:
            _hold(rule.wrong(self))
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        made = handler(schema)
        rules = [*([_choice(cls.exactly_one)] if cls.exactly_one else ()),
                 *(written(rule) for rule in cls.field_rules)]  # fmt: skip
        if rules:
            handler.resolve_ref_schema(made)[VALIDATIONS] = rules
        return made


def cel_text(text: str) -> str:
    """A text as a literal of CEL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _hold(wrong: str) -> None:
    if wrong:
        raise PydanticCustomError("choice", "{wrong}", {"wrong": wrong})


def written(rule: Rule) -> dict[str, str]:
    """A rule as an API server has it."""
    said = {"messageExpression": rule.said} if rule.said else {}
    return {"rule": rule.cel, "message": rule.message, **said}


def _choice(names: tuple[str, ...]) -> dict[str, str]:
    given = [f"has(self.{f'__{name}__' if name in _RESERVED else name})" for name in names]
    wanted = f"expected exactly one of {', '.join(names)}"
    rule = f"[{', '.join(given)}].exists_one(given, given)"
    # Put together from what may be given: a join would be too dear for an API server.
    found = [
        f"({has} ? {cel_text(f' {name},')} : '')" for has, name in zip(given, names, strict=True)
    ]
    nothing = cel_text(f" none of {', '.join(names)},")
    none = f"({' || '.join(given)} ? '' : {nothing})"
    said = " + ".join(("'found'", *found, none, cel_text(f" {wanted}")))
    return {"rule": rule, "message": wanted, "messageExpression": said}
