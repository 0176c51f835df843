"""Records that do not change, and whose every fault is told in one line."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
)

from lhcq.errors import BadInput


class Frozen(BaseModel):
    """An immutable record that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def checked(cls, /, **values: Any) -> Self:
        """Build it, or raise `BadInput` with every fault in one line."""
        try:
            return cls(**values)
        except ValidationError as error:
            # What a class says of several of its values is a sentence that needs no more.
            of = f"{cls.__name__}: " if any(fault["loc"] for fault in error.errors()) else ""
            raise BadInput(f"{of}{explain_faults(error)}") from error


class Kept(Frozen):
    """A record of what came of something, which a later lhcq may add to: what is not known of it is left out.

    What decides a result refuses that, as every `Frozen` does. To mean something else by a field raises
    `storage.FORMAT`.
    """

    model_config = ConfigDict(extra="ignore")


def only_unknown(error: BaseException | None) -> bool:
    """Whether nothing is wrong with a record but fields that are not known, as a later lhcq's may have."""
    return isinstance(error, ValidationError) and all(
        fault["type"] == "extra_forbidden" for fault in error.errors()
    )


def explain_faults(error: ValidationError, words: Mapping[str, str] | None = None) -> str:
    """Every fault in one line; `words` is what fields are called there, where that is not their name."""
    faults = []
    for fault in error.errors():
        first, *inner = fault["loc"] or [""]
        named = [(words or {}).get(str(first), first), *inner] if first else []
        faults.append(explain_fault({**fault, "loc": named}))
    return "; ".join(faults).rstrip(".") + "."


def explain_fault(fault: Mapping[str, Any]) -> str:
    """What is wrong with a value, by pydantic's description of it. The value is not told: it may be a secret."""
    where, said = ".".join(map(str, fault["loc"])), str(fault["msg"]).removeprefix("Value error, ")
    if not where:
        return said
    if fault["type"] == "missing":
        return f"{where} is missing"
    if fault["type"] == "extra_forbidden":
        return f"{where} is no value that there is"
    wanted = said.removeprefix("Input ")
    return f"{where} {wanted}" if wanted != said else f"{where}: {said}"


def of_several_kinds(fault: str) -> WrapValidator:
    """For a value of one kind or another: one `fault`, where pydantic tells what each kind lacks in turn."""

    def validate(value: Any, validated: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validated(value)
        except ValidationError:
            raise ValueError(fault) from None

    return WrapValidator(validate)


class Grown(Frozen):
    """A record that has fields which those of an earlier lhcq had not."""

    LATER: ClassVar[Mapping[str, Any]] = {}
    """These, with what is meant where they are absent. They are not written at that value, so that what asks for
    nothing new has the bytes, and the identity, that it always had."""

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        later = self.LATER
        return {name: value for name, value in fields.items() if name not in later or value != later[name]}
