"""What is said of storage that refuses, is away, or doesn't have what is asked for."""

import os
import re

from raypipe.faults import ACCOUNT_CODES, DENIED_CODES, answer_code
from raypipe.messages.chains import Chain, path_of, scheme_of, status_of, text_of, words_of
from raypipe.messages.codes import AGAIN, SURROUNDINGS, WRONG_INPUT, Found
from raypipe.messages.nearest import nearest_name

PACKAGES = (
    *("botocore", "aiobotocore", "s3fs", "gcsfs", "google.", "azure.", "adlfs", "aiohttp", "fsspec", "httpx"),
    "huggingface_hub",
)
"""Libraries of storage."""

_NO_CREDENTIALS = re.compile(
    r"\w*Credential\w*|NoAuthTokenError|(LocalToken|Token|SSO|UnauthorizedSSO|Login|Refresh)\w*|UnknownTokenProviderError"
    r"|ProfileNotFound|ClientAuthenticationError|MetadataRetrievalError|GatedRepoError|OIDCError|DeviceCodeError"
)
_CERTIFICATE = re.compile(r"Certificate|SSL|TLS|Fingerprint")
_BUSY = re.compile(r"Overloaded|SlowDown|Throttl|CapacityNotAvailable")
_UNREACHABLE = re.compile(
    r"gaierror|Endpoint(Connection)?Error|Connect|Timeout|ServerDisconnected|ClientOSError|ClientPayload|Proxy"
    r"|IncompleteRead|ResponseStreaming|HTTPClientError|TransportError|TooManyRedirects"
)
_NO_REGION = re.compile(r"(No|Invalid|Unknown)RegionError|ServiceNotInRegionError")


def of_credentials(chain: Chain) -> Found:
    """Credentials that are missing, wrong or out of date."""
    for error in chain:
        code, name = answer_code(error), type(error).__name__
        if code == "RequestTimeTooSkewed":
            return f"the store refuses {_place(chain)}: this machine's clock is wrong. Set it (NTP)", SURROUNDINGS
        if code in ACCOUNT_CODES or status_of(error) == 401:
            said = f"the store refuses the credentials for {_place(chain)} ({words_of(error)})"
            return f"{said}. {_how_to_sign_in(chain)}", SURROUNDINGS
        if _NO_CREDENTIALS.fullmatch(name):
            return f"no credentials for {_place(chain)} ({words_of(error)}). {_how_to_sign_in(chain)}", SURROUNDINGS
    return None


def of_denial(chain: Chain) -> Found:
    """Rights that the credentials lack."""
    for error in chain:
        refused = answer_code(error) in DENIED_CODES or status_of(error) in (403, 407)
        if refused or (isinstance(error, PermissionError) and error.errno is None):
            said = f"the store refuses access to {_place(chain)} ({words_of(error)})"
            return f"{said}: whoever asks needs rights there. {_how_to_sign_in(chain)}", SURROUNDINGS
    return None


def of_absence(chain: Chain) -> Found:
    """Files and buckets that aren't there."""
    if any(answer_code(error) == "NoSuchBucket" or "bucket does not exist" in text_of(error) for error in chain):
        return f"there is no such bucket: {_place(chain)}. Make it, or mend its name", WRONG_INPUT
    error = chain[0]
    if isinstance(error, FileNotFoundError) or status_of(error) in (404, 410):
        named = path_of(chain)
        said = f"there is no file or folder {named}{nearest_name(named)}" if named else words_of(error)
        return f"{said}. Mend the path, or make what it names", WRONG_INPUT
    return None


def of_network(chain: Chain) -> Found:
    """Stores that can't be reached, or that answer with something else than what was asked for."""
    for error in chain:
        name, status, said = type(error).__name__, status_of(error), words_of(error)
        if _CERTIFICATE.search(name):
            text = f"the certificate for {_place(chain)} isn't trusted ({said}). Set the machine's clock, or name the"
            return f"{text} certificates that it trusts (AWS_CA_BUNDLE, SSL_CERT_FILE)", SURROUNDINGS
        if _NO_REGION.fullmatch(name) or status in (301, 307):
            text = f"the bucket of {_place(chain)} is in another region, or none is named ({said})"
            return f"{text}. Set AWS_DEFAULT_REGION", SURROUNDINGS
        if _BUSY.search(name) or (status is not None and (status >= 500 or status in (408, 425, 429))):
            return f"the store of {_place(chain)} is busy or broken ({said}). Wait. {AGAIN}", SURROUNDINGS
        if status is not None and 400 <= status < 500:
            text = f"the store can't answer what it was asked for {_place(chain)} ({said})"
            return f"{text}. Look at the URI and at AWS_ENDPOINT_URL", SURROUNDINGS
        if isinstance(error, ConnectionError | TimeoutError) or _UNREACHABLE.search(name):
            return f"{_place(chain)} can't be reached ({said}). {_how_to_reach(chain)}. {AGAIN}", SURROUNDINGS
    return None


def of_storage(chain: Chain) -> Found:
    """What else a library of storage raises."""
    for error in chain:
        if any(each.__module__.startswith(PACKAGES) for each in type(error).__mro__):
            text = f"the storage of {_place(chain)} can't be used ({type(error).__name__}: {words_of(error)})"
            return f"{text}. Look at the URI, at AWS_* in the environment and at ~/.aws. {AGAIN}", SURROUNDINGS
    return None


def _place(chain: Chain) -> str:
    return path_of(chain) or "the files"


def _how_to_sign_in(chain: Chain) -> str:
    match scheme_of(chain):
        case "gs" | "gcs":
            return "Set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"
        case "az" | "abfs" | "abfss" | "adl":
            return "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
        case "hf":
            return "Set HF_TOKEN, or run `hf auth login`"
        case "http" | "https":
            return "Web servers are asked without credentials: copy the file to a place that may be read"
    return (
        "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, and AWS_ENDPOINT_URL for another store than "
        "AWS's; a public bucket is read with FSSPEC_S3_ANON=true"
    )


def _how_to_reach(chain: Chain) -> str:
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and scheme_of(chain) in ("s3", "s3a", None):
        return f"Look at the network, and whether AWS_ENDPOINT_URL={endpoint[:100]} is right"
    return "Look at the network, at proxies, and at the host's name"
