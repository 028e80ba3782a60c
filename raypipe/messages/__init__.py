"""What the command says of an error, whatever its type: one message with a way out, and an exit code.

Classes of libraries are known by their names and modules, so that none is imported for it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from raypipe.messages.chains import Chain, chain_of, noted, raised_by_raypipe, text_of, words_of
from raypipe.messages.cluster import of_ray
from raypipe.messages.codes import FAILED, INTERRUPTED, SURROUNDINGS, WRONG_INPUT, Found
from raypipe.messages.content import of_content
from raypipe.messages.storage import of_absence, of_credentials, of_denial, of_network, of_storage
from raypipe.messages.system import of_files, of_memory

_PLACES = (FileNotFoundError, NotADirectoryError, IsADirectoryError)

_BYTES = re.compile(r"\bb'(?:[^'\\\n]|\\.)*'?|\bb\"(?:[^\"\\\n]|\\.)*\"?")
"""Bytes as Python writes them, such as those of an image in a table's cell."""

_LONGEST = 950
"""Characters of a message."""


@dataclass(frozen=True)
class Message:
    """What is said of an error."""

    text: str
    """At most 1,000 characters; it ends with a way out."""
    exit_code: int


def message_of(error: BaseException) -> Message:
    """What the command says of an error, and the code that it ends with."""
    chain = chain_of(error)
    text, exit_code = next((found for rule in _RULES if (found := rule(chain)) is not None), _own_fault(chain))
    return Message(_bounded(_BYTES.sub(_shown, text.rstrip())), exit_code)


def _interrupted(chain: Chain) -> Found:
    if isinstance(chain[0], KeyboardInterrupt):
        return "interrupted; the same command goes on", INTERRUPTED
    return None


def _of_usage(chain: Chain) -> Found:
    """Options, arguments and commands that there are not, in the words of the command line's library."""
    error = chain[0]
    if not any(each.__name__ == "UsageError" for each in type(error).__mro__):
        return None
    said = error.format_message()  # type: ignore[attr-defined]
    command = getattr(getattr(error, "ctx", None), "command_path", None) or "raypipe"
    said = said.rstrip(".")
    return f"{said}{'' if said.endswith('?') else '.'} `{command} --help` lists what there is", WRONG_INPUT


def _said_already(chain: Chain) -> Found:
    """Errors of raypipe's own, which say what is wrong and what to do."""
    error = chain[0]
    own_class = type(error).__module__.startswith("raypipe.")
    plain = type(error) in (ValueError, RuntimeError, *_PLACES) and raised_by_raypipe(error)
    of_storage = isinstance(error, _PLACES) and (error.errno is not None or noted(error) is not None)
    if not (own_class or plain) or of_storage or not text_of(error).strip():
        return None
    if isinstance(error, ValueError | FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return text_of(error), WRONG_INPUT
    otherwise = SURROUNDINGS if isinstance(error, OSError) else FAILED
    return text_of(error), getattr(error, "exit_code", otherwise)


def _own_fault(chain: Chain) -> tuple[str, int]:
    said = f"{type(chain[0]).__name__}: {words_of(chain[0])}"
    text = f"raypipe failed in a way that it doesn't know ({said}). This is a fault of raypipe's own:"
    return f"{text} `raypipe --debug …` shows where it lies; please report it", FAILED


_RULES: tuple[Callable[[Chain], Found], ...] = (
    *(
        _interrupted,
        _of_usage,
        _said_already,
        of_memory,
        of_ray,
        of_credentials,
        of_denial,
        of_absence,
        of_network,
        of_files,
    ),
    *(of_content, of_storage),
)
"""From what is known best to what is known least; the first that has something to say is heard."""


def _shown(found: re.Match[str]) -> str:
    return "bytes" if "\\x" in found[0] else found[0]


def _bounded(text: str) -> str:
    """The text; of many lines the first and the last, of a long one its beginning and its end, where the way out is."""
    if len(text) <= _LONGEST:
        return text
    *lines, last = text.splitlines()
    kept = [
        line for number, line in enumerate(lines) if len("\n".join(lines[: number + 1])) + len(last) < _LONGEST - 50
    ]
    if kept:
        return "\n".join([*kept, f"… and {(left := len(lines) - len(kept))} more line{'' if left == 1 else 's'}", last])
    return f"{text[: _LONGEST - 250]} […] {text[-240:]}"
