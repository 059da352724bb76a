"""Regular expressions on topic names, of RE2.

An API server reads its rules with RE2 too, so both check alike; and RE2's time is linear in the
name, so that no manifest can hold up the hub, as one could with the backtracking of ``re``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import re2
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from triggerhub.fields import VALIDATIONS, WHAT, expected

_WHAT = "a regular expression of RE2"
_QUIET = re2.Options()
_QUIET.log_errors = False


@lru_cache(256)
def compiled(pattern: str) -> re2.Pattern:
    """A regular expression of RE2. Raises re2.error."""
    return re2.compile(pattern, _QUIET)


@dataclass(frozen=True)
class Pattern:
    """Annotation of a ``str``: a regular expression that RE2 takes, as an API server does."""

    longest: int

    def check(self, value: str) -> str:
        """The text. Raises PydanticCustomError, a ValueError."""
        if not 1 <= len(value) <= self.longest:
            raise expected(f"a regular expression of 1 to {self.longest} characters")
        try:
            compiled(value)
        except re2.error as error:
            said = error.args[0]
            why = said.decode(errors="replace") if isinstance(said, bytes) else said
            raise expected(f"{_WHAT} ({why})") from None
        return value

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        # Of a pattern that cannot be compiled, matches() is an error, and that is a refusal.
        rule = {"rule": "''.matches(self) ? true : true", "message": f"expected {_WHAT}"}
        return {
            **handler(schema),
            "minLength": 1,
            "maxLength": self.longest,
            WHAT: _WHAT,
            VALIDATIONS: [rule],
        }
