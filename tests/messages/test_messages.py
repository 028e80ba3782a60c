"""Every error that storage, Ray's start, config and importers can raise is one message with a way out."""

import errno
import importlib
import inspect
import os
import pkgutil
import re
import string
import types
from collections.abc import Iterator
from typing import Any

import aiohttp
import botocore.exceptions
import fsspec.exceptions
import huggingface_hub.errors
import pyarrow as pa
import pytest
import ray.exceptions
import yaml
from ray.exceptions import RayTaskError

import raypipe
from raypipe.config import ConfigError
from raypipe.messages import message_of
from raypipe.messages.chains import note
from raypipe.outputs.lease import FolderInUse, LeaseLost
from raypipe.streams.budget import BudgetExceeded

VERBS = "Set|Look|Mend|Make|Name|Free|Raise|Give|Wait|Run|Delete|Save|Shorten|Lower|copy|run|look|give"
WAY_OUT = re.compile(rf"\b({VERBS})\b|goes on|--debug")
IMAGE = b"\xff\xd8\xff\xe0\x00\x10JFIF" * 1000


def classes_of(module: types.ModuleType) -> Iterator[type[BaseException]]:
    for found in vars(module).values():
        if inspect.isclass(found) and issubclass(found, Exception) and not issubclass(found, Warning):
            yield found


def made(kind: type[BaseException], text: str) -> BaseException:
    """An error of a class, however it wants to be made."""
    fields = {name: text for _, name, _, _ in string.Formatter().parse(getattr(kind, "fmt", "")) if name}
    answer = {"Error": {"Code": "InternalError", "Message": text}, "ResponseMetadata": {"HTTPStatusCode": 500}}
    for arguments, named in (((text,), {}), ((), fields), ((answer, "GetObject"), {}), ((text, None), {}), ((), {})):
        try:
            error = kind(*arguments, **named)
            str(error)
        except Exception:  # noqa: BLE001, S112 - each class wants other arguments
            continue
        return error
    return kind.__new__(kind, text)


def check(error: BaseException) -> str:
    """That an error is said as it should be; its text."""
    message = message_of(error)
    assert 10 < len(message.text) < 1000
    assert "Traceback" not in message.text
    assert "\\x" not in message.text
    assert message.text.isprintable()
    assert WAY_OUT.search(message.text), message.text
    assert message.exit_code in (1, 2, 3, 130)
    return message.text


LIBRARIES = [
    kind
    for module in (botocore.exceptions, aiohttp, fsspec.exceptions, ray.exceptions, pa, huggingface_hub.errors, yaml)
    for kind in classes_of(module)
]


@pytest.mark.parametrize("kind", LIBRARIES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_every_class_of_the_libraries(kind: type[BaseException]) -> None:
    for text in ("it went wrong", f"bad {IMAGE!r}", "Traceback (most recent call last):\n  File 1\n" * 99 + "E: it"):
        error = made(kind, text)
        note(error, "s3://bucket/a.jpg")
        assert "raypipe's own" not in check(error)


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda number: errno.errorcode[number])
def test_every_error_number(number: int) -> None:
    said = check(OSError(number, os.strerror(number), "/data/a.jpg"))
    assert "raypipe's own" not in said
    assert "/data/a.jpg" in said or "files" in said or "memory" in said


@pytest.mark.parametrize("kind", [kind for kind in OSError.__subclasses__() if kind.__module__ == "builtins"])
def test_every_operating_system_error_without_a_number(kind: type[OSError]) -> None:
    assert "raypipe's own" not in check(kind("it went wrong"))


def own_classes() -> list[type[Exception]]:
    found = set()
    for module in pkgutil.walk_packages(raypipe.__path__, "raypipe."):
        names = vars(importlib.import_module(module.name)).values()
        found |= {each for each in names if inspect.isclass(each) and issubclass(each, Exception)}
    return sorted((each for each in found if each.__module__.startswith("raypipe.")), key=lambda each: each.__name__)


def test_every_class_of_raypipes_own_says_its_own_text() -> None:
    classes = own_classes()
    assert BudgetExceeded in classes
    for kind in classes:
        message = message_of(kind("3 of 4 are wrong: mend them"))
        assert message.text == "3 of 4 are wrong: mend them"
        around = issubclass(kind, OSError) or kind in (FolderInUse, LeaseLost)
        assert message.exit_code == (2 if issubclass(kind, ValueError) else 3 if around else 1)


def response(code: str, status: int) -> Exception:
    answer = {"Error": {"Code": code, "Message": f"it says {code}"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(answer, "GetObject")


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def of_module(module: str, name: str, **fields: Any) -> Exception:
    """An error of a library that may not be installed."""
    kind = type(name, (Exception,), {"__module__": module})
    error: Exception = kind(f"{name} says so")
    for field, value in fields.items():
        setattr(error, field, value)
    return error


ABOUT = "s3://bucket/a.jpg"


@pytest.mark.parametrize(
    ("error", "uri", "code", "said"),
    [
        (
            botocore.exceptions.NoCredentialsError(),
            ABOUT,
            3,
            f"^no credentials for {ABOUT} .*AWS_ACCESS_KEY_ID.*ANON=true",
        ),
        (
            raised_from(PermissionError("Forbidden"), response("InvalidAccessKeyId", 403)),
            ABOUT,
            3,
            "refuses the credentials",
        ),
        (raised_from(PermissionError("Denied"), response("AccessDenied", 403)), ABOUT, 3, f"refuses access to {ABOUT}"),
        (
            raised_from(PermissionError("x"), response("RequestTimeTooSkewed", 403)),
            ABOUT,
            3,
            "this machine's clock is wrong",
        ),
        (response("ExpiredToken", 400), ABOUT, 3, "refuses the credentials for"),
        (raised_from(FileNotFoundError("x"), response("NoSuchKey", 404)), ABOUT, 2, f"no file or folder {ABOUT}"),
        (raised_from(FileNotFoundError("x"), response("NoSuchBucket", 404)), ABOUT, 2, f"no such bucket: {ABOUT}"),
        (response("SlowDown", 503), ABOUT, 3, "busy or broken .*Wait"),
        (
            raised_from(OSError(5, "x"), response("PermanentRedirect", 301)),
            ABOUT,
            3,
            "another region.*AWS_DEFAULT_REGION",
        ),
        (botocore.exceptions.NoRegionError(), ABOUT, 3, "AWS_DEFAULT_REGION"),
        (
            botocore.exceptions.EndpointConnectionError(endpoint_url="http://127.0.0.1:9"),
            ABOUT,
            3,
            f"^{ABOUT} can't be reached .Could not connect.*AWS_ENDPOINT_URL=http://127.0.0.1:9 is right",
        ),
        (botocore.exceptions.ProfileNotFound(profile="x"), ABOUT, 3, "no credentials.*profile .x. could not be found"),
        (
            PermissionError("the server answers 403 Forbidden"),
            "https://host/a.jpg",
            3,
            "refuses access.*Web servers are asked",
        ),
        (aiohttp.ServerDisconnectedError(), "https://host/a.jpg", 3, "https://host/a.jpg can't be reached"),
        (TimeoutError(), "https://host/a.jpg", 3, "can't be reached"),
        (
            of_module("google.auth.exceptions", "DefaultCredentialsError"),
            "gs://b/a",
            3,
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        (of_module("google.auth.exceptions", "RefreshError"), "gs://b/a", 3, "GOOGLE_APPLICATION_CREDENTIALS"),
        (of_module("google.auth.exceptions", "TransportError"), "gs://b/a", 3, "gs://b/a can't be reached"),
        (of_module("gcsfs.retry", "HttpError", code=403), "gs://b/a", 3, "refuses access"),
        (of_module("gcsfs.retry", "HttpError", code=503), "gs://b/a", 3, "busy or broken"),
        (of_module("azure.core.exceptions", "ClientAuthenticationError"), "az://c/a", 3, "AZURE_STORAGE_ACCOUNT_NAME"),
        (
            of_module("azure.core.exceptions", "ResourceNotFoundError", status_code=404),
            "abfs://c/a",
            2,
            "no file or folder",
        ),
        (of_module("azure.core.exceptions", "ServiceRequestTimeoutError"), "az://c/a", 3, "can't be reached"),
        (of_module("huggingface_hub.errors", "GatedRepoError"), "hf://datasets/a/b/c", 3, "HF_TOKEN"),
        (of_module("somewhere", "NoCredentialsError"), "zip://a::gs://b/c.zip", 3, "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_storage_that_refuses_or_is_away(
    error: BaseException, uri: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    note(error, uri)
    message = message_of(error)
    assert re.search(said, check(error)), message.text
    assert message.exit_code == code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (IsADirectoryError(21, "Is a directory", "/data/m"), 2, "^/data/m is a folder, needed is a file"),
        (NotADirectoryError(20, "Not a directory", "/data/f"), 2, "^/data/f is a file, needed is a folder"),
        (FileNotFoundError(2, "No such file", "/data/x"), 2, "no file or folder /data/x"),
        (PermissionError(13, "Permission denied", "/root/x"), 3, "^no rights to /root/x"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/x"),
            3,
            "no space is left on the disk of /data/x.*TMPDIR",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 3, "no space is left"),
        (OSError(errno.EMFILE, "Too many open files", "/data/x"), 3, "ulimit"),
        (OSError(errno.EIO, "Input/output error", "/data/x"), 3, "/data/x can't be used .Input/output error"),
        (MemoryError(), 3, "out of memory"),
        (ray.exceptions.OutOfMemoryError("killed"), 3, "out of memory .killed"),
        (of_module("torch", "OutOfMemoryError"), 3, "out of memory"),
        (RuntimeError("CUDA error: device-side assert"), 3, "the GPU fails"),
        (ray.exceptions.ActorDiedError(), 3, "has died"),
        (ray.exceptions.GetTimeoutError("slow"), 3, "Ray doesn't answer"),
        (pa.ArrowInvalid("no magic bytes"), 2, "can't be read .no magic bytes"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "Save it as UTF-8"),
        (ModuleNotFoundError("No module named 'gcsfs'", name="gcsfs"), 3, "pip install gcsfs"),
        (KeyboardInterrupt(), 130, r"^interrupted; the same command goes on$"),
        (ConfigError("seed: got 'x'\nwalk: got 'y'. Mend them"), 2, "^seed: got 'x'\nwalk: got 'y'. Mend them"),
        (BudgetExceeded("9 of 9 rows are in quarantine: mend them"), 1, "^9 of 9 rows"),
    ],
)
def test_disks_memory_ray_and_files(error: BaseException, code: int, said: str) -> None:
    message = message_of(error)
    assert re.search(said, message.text), message.text
    assert message.exit_code == code


def test_what_a_task_of_ray_has_raised_is_what_is_said() -> None:
    for cause in (
        PermissionError(13, "Permission denied", "/root/x"),
        BudgetExceeded("9 of 9 rows are in quarantine: mend them"),
        ValueError("a row has no id: give it one"),
    ):
        note(cause, "/root/x")
        wrapped = RayTaskError("f", "Traceback (most recent call last):\n  File", cause)
        assert message_of(wrapped) == message_of(wrapped.as_instanceof_cause()) == message_of(cause)
        outer = raised_from(RayTaskError("g", "Traceback", wrapped), wrapped)
        assert message_of(outer) == message_of(cause)


def test_a_fault_of_our_own_is_named_as_such() -> None:
    def fail() -> None:
        _ = {}["key"]  # type: ignore[var-annotated]

    for error in (
        KeyError("key"),
        AssertionError(),
        ZeroDivisionError("division by zero"),
        TypeError("no"),
        IndexError(),
    ):
        message = message_of(error)
        assert message.exit_code == 1
        assert re.search(r"a fault of raypipe's own: `raypipe --debug …` shows where", message.text)
    with pytest.raises(KeyError) as raised:
        fail()
    assert "KeyError: 'key'" in check(raised.value)


def test_a_librarys_value_error_isnt_taken_for_ours() -> None:
    with pytest.raises(ValueError, match="invalid literal") as raised:
        int("x")
    assert "raypipe's own" in message_of(raised.value).text, "this test isn't raypipe"
    with pytest.raises(ValueError, match="can't be opened") as raised:
        raypipe_opens("foo://bucket/a")
    assert message_of(raised.value).exit_code == 2
    assert message_of(raised.value).text.startswith("foo:// can't be opened")


def raypipe_opens(uri: str) -> None:
    from raypipe.storage import filesystem

    filesystem(uri)


@pytest.mark.parametrize(
    "content", [IMAGE, b"\x89PNG\r\n\x1a\n\x00\x00'\"" * 400, b"GIF89a\x80\x02\xe0\x01\xf7\x00\x00" * 9]
)
def test_bytes_of_an_image_are_never_printed(content: bytes) -> None:
    said = message_of(
        ConfigError(f"row 3: 'image' is {{'bytes': {content!r}, 'path': 'a.jpg'}}. Name another column")
    ).text
    assert "\\x" not in said
    assert said.startswith("row 3: 'image' is {'bytes': bytes")
    assert said.endswith("Name another column")


def test_of_many_lines_the_first_and_the_last_are_kept() -> None:
    lines = [f"option.{number}: got 'x'. Mend it" for number in range(100)]
    said = message_of(ConfigError("\n".join(lines))).text.splitlines()
    assert len("\n".join(said)) < 1000
    assert said[:20] == lines[:20]
    assert said[-2:] == [f"… and {101 - len(said)} more lines", lines[-1]]
    said = message_of(ConfigError("\n".join([lines[0], "y" * 5000, lines[1]]))).text.splitlines()
    assert said == [lines[0], "… and 1 more line", lines[1]]


def test_a_long_text_keeps_its_beginning_and_its_way_out() -> None:
    said = message_of(ConfigError(f"seed: got {'x' * 5000}. Mend it")).text
    assert len(said) < 1000
    assert said.startswith("seed: got xxx")
    assert said.endswith("Mend it")
