"""Which messages a worker takes from its queues: those that lhcq could have written, and no others.

Celery itself survives an unknown task and a pickle. It does not survive each malformed envelope: some end the worker,
some stop it from reading on. So what lies in a queue is checked here first, and refused in one line. A message that
was refused is put aside (`tasks.broker.refused`); if it stood for a unit of work, the reconciler publishes that anew.
"""

import base64
import functools
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from lhcq.config import check_name
from lhcq.errors import BadInput
from lhcq.frozen import Frozen

LARGEST_BODY = 64 * 1024
"""Characters. The body of a chord's part, the largest there is, has about 1,500."""
_LARGEST_INTEGER = 2**31

_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
_Word = Annotated[str, StringConstraints(max_length=4096)]


class _Received(Frozen):
    """A part of a message; what it has beside these fields is Celery's, and harmless."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Headers(_Received):
    task: _Word
    id: _Id
    root_id: _Id | None = None
    parent_id: _Id | None = None
    group: _Id | None = None
    group_index: Annotated[int, Field(ge=0)] | None = None
    retries: Literal[0] = 0
    # lhcq delays nothing and limits no time, and a compressed body may be a bomb.
    eta: None = None
    expires: None = None
    timelimit: list[None] | None = None
    compression: None = None
    shadow: None = None
    argsrepr: _Word = ""
    kwargsrepr: _Word = ""
    origin: _Word = ""


class _DeliveryInfo(_Received):
    exchange: _Word
    routing_key: _Word


class _Properties(_Received):
    delivery_tag: _Id
    delivery_info: _DeliveryInfo
    body_encoding: Literal["base64"]
    correlation_id: _Id
    reply_to: _Id | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 0


class _Envelope(_Received):
    headers: _Headers
    properties: _Properties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    body: Annotated[str, StringConstraints(max_length=LARGEST_BODY)]


class _Call(_Received):
    """What the end of a chord asks for."""

    task: _Word
    args: list[Any]
    kwargs: Annotated[dict[str, Any], Field(max_length=0)]
    subtask_type: None = None


class _Embed(_Received):
    """What is to follow a task: nothing, or the end of its chord."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: _Call | None = None


def refusal(message: Any, tasks: Mapping[str, Any]) -> str | None:
    """Why a worker with these `tasks`, by name, must not take `message`; None where it may.

    `message` is the parsed envelope as it lay in the queue.
    """
    try:
        envelope = _Envelope.model_validate(message)
        arguments, keywords, embed = _unpack(envelope.body)
        follows = _Embed.model_validate(embed)
        call = _Call.model_validate({"task": envelope.headers.task, "args": arguments, "kwargs": keywords})
        for wanted in (call, follows.chord):
            if wanted is not None:
                _check_call(wanted, tasks)
    except ValidationError as error:
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'the message'}: {fault['msg']}"
    except BadInput as error:
        return str(error)
    return None


def _unpack(body: str) -> tuple[Any, Any, Any]:
    try:
        arguments, keywords, embed = json.loads(base64.b64decode(body, validate=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInput(f"its body is not JSON of three parts ({type(error).__name__}).") from error
    return arguments, keywords, embed


def _check_call(call: _Call, tasks: Mapping[str, Any]) -> None:
    """Raise `BadInput` unless `call` names a task of lhcq with arguments of the kinds that it takes."""
    task = tasks.get(call.task)
    if task is None or call.task.startswith("celery."):  # Celery's own can run others, and for ever
        raise BadInput(f"there is no task {call.task[:80]!r}.")
    parameters = _parameters_of(task.run)
    if len(call.args) != len(parameters):
        raise BadInput(f"{call.task} takes {len(parameters)} arguments, not {len(call.args)}.")
    for parameter, value in zip(parameters, call.args, strict=True):
        _CHECKS[parameter.annotation](parameter.name, value)


@functools.lru_cache(maxsize=256)
def _parameters_of(run: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(run).parameters.values())


def _check_text(parameter: str, value: Any) -> None:
    if not isinstance(value, str):
        raise BadInput(f"{parameter} has to be a name.")
    check_name(value[:1000], what="job")


def _check_integer(parameter: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < _LARGEST_INTEGER:
        raise BadInput(f"{parameter} has to be an integer, not negative.")


_CHECKS: dict[Any, Callable[[str, Any], None]] = {str: _check_text, int: _check_integer}
"""By annotation: what a task of lhcq may take. A message carries names and numbers, never data."""
