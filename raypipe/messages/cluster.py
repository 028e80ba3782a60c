"""What is said of Ray, as far as it isn't said where Ray is started."""

import re

from raypipe.messages.chains import Chain, words_of
from raypipe.messages.codes import AGAIN, SURROUNDINGS, Found

_DIED = re.compile(r"Died|Crashed|ActorError|Unavailable|Lost|Freed|ObjectFetch|Reconstruction|PlacementGroupRemoved")
_WAITED = re.compile(r"Timeout|Unschedulable|PendingCalls|RpcError|Cancelled")


def of_ray(chain: Chain) -> Found:
    """Errors of Ray itself."""
    for error in chain:
        if not any(each.__module__.startswith("ray.") for each in type(error).__mro__):
            continue
        name, said = type(error).__name__, words_of(error)
        if "Authentication" in name:
            return f"Ray asks for its token ({said}). Set RAY_AUTH_MODE=token, and the token, here, too", SURROUNDINGS
        if "RuntimeEnv" in name:
            text = f"Ray can't prepare its workers ({said})"
            return f"{text}. Look at --working-dir and at the packages that the job asks for", SURROUNDINGS
        if _DIED.search(name):
            text = f"a process or a node of Ray has died ({said}): mostly for lack of memory, or a node was taken away"
            return f"{text}. {AGAIN}", SURROUNDINGS
        if _WAITED.search(name):
            text = f"Ray doesn't answer, or has no room ({said})"
            return f"{text}. `ray status` shows what the cluster has. {AGAIN}", SURROUNDINGS
        return f"Ray fails ({name}: {said}). {AGAIN}; `raypipe --debug …` shows where", SURROUNDINGS
    return None
