"""What an error is the fault of: the row, the storage, the node that computes, or its device."""

import errno
import re
from collections.abc import Iterator
from typing import Literal

Blame = Literal["row", "storage", "node", "device"]
"""row: it is quarantined. storage: it passes by itself, so the same is tried again. node: another node is tried.
device: what was computed on it is lost with the process, which is replaced."""

ROW_ERRORS = (ValueError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""What is wrong with a row, unless a cause says otherwise."""

_TRANSIENT = r"(OSError|Connection\w*|Timeout\w*|Client\w*Error|ServerDisconnected\w*)"
"""Names of errors that pass by themselves: storage is away or busy for a while."""

_NODE_NUMBERS = {
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENFILE", "EIO", "ENODEV", "ENXIO"),
        *("ESTALE", "ENOTCONN", "EREMOTEIO"),
    )
    if hasattr(errno, name)  # macOS lacks one
}
"""A full, worn or vanished disk; too many open files; a mount whose server or process is gone."""

ACCOUNT_CODES = {
    *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "RequestExpired"),
    *("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch"),
    *("AuthorizationHeaderMalformed", "RequestTimeTooSkewed", "AuthFailure", "IncompleteSignature"),
    *("InvalidIdentityToken", "InvalidTokenId", "AccountProblem", "NotSignedUp", "InvalidSecurity"),
}
"""What S3 says of a machine's credentials and clock."""

DENIED_CODES = {"AccessDenied", "AllAccessDisabled", "403", "Forbidden"}
"""What S3 says of one object, or of all that a machine asks for."""

_NODE_NAMES = re.compile(
    r"(\w*Credential\w*Error|UnauthorizedSSOTokenError|SSOTokenLoadError|TokenRetrievalError|ProfileNotFound"
    r"|RefreshError|ClientAuthenticationError|DefaultCredentialsError|MetadataRetrievalError|NoRegionError"
    r"|gaierror|ClientConnectorDNSError|ClientConnectorCertificateError|SSLCertVerificationError)"
)
"""Names of errors of authentication (botocore, google-auth, azure-core), of name resolution, and of certificates, for
which a wrong clock takes none to be valid."""

_STORAGE_PACKAGES = (
    "botocore",
    "aiobotocore",
    "s3fs",
    "gcsfs",
    "google",
    "azure",
    "adlfs",
    "aiohttp",
    "urllib3",
    "requests",
)
"""What nobody knows here of these is storage's fault, never a row's."""

_OF_OBJECT = (404, 416)
"""HTTP codes of an object that isn't there, or that is shorter than what is asked for."""

_PASSING = (408, 409, 412, 425, 429)
"""HTTP codes from 400 to 499 that pass by themselves."""

_DEVICE_TEXTS = re.compile(
    r"CUDA error|CUDA driver|cuDNN error|CUDNN_STATUS|CUBLAS_STATUS|CUSOLVER_STATUS|CUFFT_|NCCL error|HIP error"
    r"|No CUDA GPUs are available|[Nn][Oo] NVIDIA driver|NVIDIA driver on your system|cudaGetDeviceCount"
    r"|CUDA unknown error|not compiled with CUDA|device-side assert"
)

_NO_MEMORY = ("CUDA out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")


def blame(error: BaseException) -> Blame:
    """What an error, with what it was raised from, is the fault of."""
    chain = list(causes(error))
    if any(is_of_device(each) for each in chain):
        return "device"
    answered = any(answer_status(each) is not None for each in chain)
    if any(_is_of_node(each, answered=answered) for each in chain):
        return "node"
    statuses = {answer_status(each) for each in chain}
    if isinstance(error, ROW_ERRORS) or statuses & set(_OF_OBJECT):
        return "row"
    if statuses != {None}:
        return "storage"
    names = [each.__name__ for each in type(error).__mro__]
    if isinstance(error, OSError) or any(re.search(_TRANSIENT, name) for name in names):
        return "storage"
    if type(error).__module__.split(".")[0] in _STORAGE_PACKAGES or str(error) == "Session is closed":
        return "storage"
    return "row"


def is_denied(error: BaseException) -> bool:
    """Whether a store has refused an object, for a reason that may lie in the object or in whoever asks."""
    return any(answer_code(each) in DENIED_CODES or answer_status(each) == 403 for each in causes(error))


def in_words(error: BaseException) -> str:
    """An error's name and text."""
    return f"{type(error).__name__}: {error}"


def sentence(reason: str) -> str:
    """A reason of `in_words` without the error's name and number, which are programmers' words."""
    return re.sub(r"^(?=\w*[a-z])(?=[A-Z]\w*[A-Z])\w+: (?:\[Errno \d+\] )?(?=\S)", "", reason)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    found: BaseException | None = error
    for _ in range(10):  # chains may be circles
        if found is None:
            return
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def is_of_device(error: BaseException) -> bool:
    """Whether a GPU has failed, other than by a full memory."""
    if not isinstance(error, RuntimeError) or any(text in str(error) for text in _NO_MEMORY):
        return False
    return type(error).__name__ == "AcceleratorError" or bool(_DEVICE_TEXTS.search(str(error)))


def _is_of_node(error: BaseException, *, answered: bool) -> bool:
    if isinstance(error, ImportError) or _NODE_NAMES.fullmatch(type(error).__name__):
        return True
    # s3fs makes EIO of every answer that it has no name for.
    if isinstance(error, OSError) and error.errno in _NODE_NUMBERS and not answered:
        return True
    if answer_code(error) in ACCOUNT_CODES | DENIED_CODES or "can't start new thread" in str(error):
        return True
    # What is refused here may be answered elsewhere, but for what isn't there; whose fault it is shows there.
    status = answer_status(error)
    return status is not None and 400 <= status < 500 and status not in (*_OF_OBJECT, *_PASSING)


def answer_code(error: BaseException) -> str | None:
    """The code of an answer of S3, as botocore's ClientError has it."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    code = response.get("Error", {}).get("Code")
    return None if code is None else str(code)


def answer_status(error: BaseException) -> int | None:
    """The HTTP status of a store's answer: of S3 as botocore has it, of Google's as gcsfs, of Azure's as azure-core."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif type(error).__module__.split(".")[0] in ("gcsfs", "google"):
        found = getattr(error, "code", None)
    elif type(error).__module__.split(".")[0] == "azure":
        found = getattr(error, "status_code", None)
    else:
        return None
    return int(found) if isinstance(found, int) else None
