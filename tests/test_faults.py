import errno
import socket
from typing import Any

import pytest
import torch

from raypipe.faults import Blame, blame, is_denied, sentence


class ClientError(Exception):
    """As botocore raises it; s3fs makes Python's errors of it."""

    def __init__(self, code: str, status: int | None = None) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def named(name: str, *bases: type, text: str = "text", module: str = "elsewhere", **values: object) -> Exception:
    made: Any = type(name, bases or (Exception,), {"__module__": module, **values})(text)
    assert isinstance(made, Exception)
    return made


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("cannot identify image file"), "row"),
        (FileNotFoundError("gone"), "row"),
        (PermissionError(errno.EACCES, "a local file's mode"), "row"),
        (RuntimeError("a defect that this image shows"), "row"),
        (MemoryError(), "row"),
        (KeyError("x"), "row"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "row"),
        (RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"), "row"),
        (ConnectionResetError("peer"), "storage"),
        (TimeoutError(), "storage"),
        (OSError(errno.EBUSY, "SlowDown"), "storage"),
        (named("ReadTimeoutError"), "storage"),
        (named("EndpointConnectionError"), "storage"),
        (named("ConnectTimeout", named("ConnectionError").__class__), "storage"),
        (named("ServerDisconnectedError"), "storage"),
        (named("ClientPayloadError"), "storage"),
        (named("HttpError", module="gcsfs.retry", code=503), "storage"),
        (named("HttpError", module="gcsfs.retry", code=401), "node"),
        (named("HttpResponseError", module="azure.core.exceptions", status_code=429), "storage"),
        (named("ServiceRequestError", module="azure.core.exceptions"), "storage"),
        (named("ResponseParserError", module="botocore.parsers"), "storage"),
        (RuntimeError("Session is closed"), "storage"),
        (RuntimeError("can't start new thread"), "node"),
        (named("ClientConnectorCertificateError", ValueError, module="aiohttp"), "node"),
        (caused(OSError(errno.EINVAL, "key is disabled"), ClientError("KMS.DisabledException", 400)), "node"),
        (caused(FileNotFoundError("gone"), ClientError("NoSuchKey", 404)), "row"),
        (caused(OSError(errno.EINVAL, "too short"), ClientError("InvalidRange", 416)), "row"),
        (caused(OSError(errno.EBUSY, "slow"), ClientError("SlowDown", 503)), "storage"),
        (caused(OSError(errno.EIO, "an answer without a name"), ClientError("InternalError", 500)), "storage"),
        (caused(PermissionError("expired"), ClientError("ExpiredToken")), "node"),
        (caused(PermissionError("skewed"), ClientError("RequestTimeTooSkewed")), "node"),
        (caused(PermissionError("keys"), ClientError("InvalidAccessKeyId")), "node"),
        (caused(PermissionError("keys"), ClientError("SignatureDoesNotMatch")), "node"),
        (caused(PermissionError("denied"), ClientError("AccessDenied")), "node"),
        (ClientError("InvalidToken"), "node"),
        (named("NoCredentialsError"), "node"),
        (named("CredentialRetrievalError"), "node"),
        (named("RefreshError"), "node"),
        (socket.gaierror(-3, "Temporary failure in name resolution"), "node"),
        (caused(ConnectionError("can't connect"), socket.gaierror(-2, "Name or service not known")), "node"),
        (OSError(errno.ENOSPC, "No space left on device"), "node"),
        (OSError(errno.EIO, "Input/output error"), "node"),
        (OSError(errno.ESTALE, "Stale file handle"), "node"),
        (OSError(errno.ENOTCONN, "Transport endpoint is not connected"), "node"),
        (BrokenPipeError(errno.ESHUTDOWN, "Cannot send after transport endpoint shutdown"), "storage"),
        (OSError(errno.EROFS, "Read-only file system"), "node"),
        (ModuleNotFoundError("pydensecrf"), "node"),
        (RuntimeError("CUDA error: device-side assert triggered"), "device"),
        (RuntimeError("No CUDA GPUs are available"), "device"),
        (RuntimeError("CUDA error: out of memory"), "device"),
        (RuntimeError("Unexpected error from cudaGetDeviceCount(). Error 802"), "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), "device"),
        (named("AcceleratorError", RuntimeError, text="CUDA error: an illegal memory access"), "device"),
        (caused(ValueError("while computing"), RuntimeError("CUDA error: unspecified launch failure")), "device"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{type(value).__name__}: {value}"[:50],
)
def test_whose_fault_an_error_is(error: Exception, expected: Blame) -> None:
    assert blame(error) == expected


def test_what_is_hidden_from_a_reader_is_no_cause() -> None:
    error = ValueError("bad row")
    error.__context__, error.__suppress_context__ = socket.gaierror(-2, "unknown"), True
    assert blame(error) == "row"
    error.__suppress_context__ = False
    assert blame(error) == "node"


def test_chains_that_are_circles_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert blame(first) == "row"


@pytest.mark.parametrize(("code", "denied"), [("AccessDenied", True), ("403", True), ("ExpiredToken", False)])
def test_denied_is_what_may_be_one_objects_fault(code: str, *, denied: bool) -> None:
    assert is_denied(caused(PermissionError("no"), ClientError(code))) is denied


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("ValueError: labels are null", "labels are null"),
        ("OSError: disk: full", "disk: full"),
        ("FileNotFoundError: [Errno 2] No such file: 'a'", "No such file: 'a'"),
        ("UnknownLabel: unknown label 'a'", "unknown label 'a'"),
        ("ImageError: ", "ImageError: "),
        ("JPEG: cut off", "JPEG: cut off"),
        ("Reason: it failed", "Reason: it failed"),
        ("it failed: ValueError: x", "it failed: ValueError: x"),
    ],
)
def test_a_reason_without_its_error(reason: str, said: str) -> None:
    assert sentence(reason) == said
