"""How a process has ended, as Ray has it."""

import logging

logger = logging.getLogger(__name__)

_TIMEOUT = 5
"""Seconds that the server of Ray's dashboard may take for its answer."""


def lacked_memory(worker: str) -> bool:
    """Whether Ray's memory monitor has ended a process, because its node was short of memory.

    The server of Ray's dashboard says so; where there is none, nobody knows, and a death counts as a crash.

    Args:
        worker: Ray's id of the process.
    """
    import ray
    from ray.util.state import get_worker
    from ray.util.state.exception import RayStateApiException

    try:
        state = get_worker(worker, address=ray.get_runtime_context().gcs_address, timeout=_TIMEOUT)
    except (RayStateApiException, ConnectionError, ValueError, RuntimeError) as error:
        logger.warning("why a process has ended can't be asked, so it counts as a crash: %s", error)
        return False
    return state is not None and state.exit_type == "NODE_OUT_OF_MEMORY"
