"""An HTTP proxy that spoils a share of the requests to an object store, as networks and busy stores do.

python tests/servers/faulty_proxy.py --port 9001 --upstream http://127.0.0.1:9000 --rate 0.05 --seed 0

Faults: 500, 503 SlowDown, a connection reset before or after the store has seen the request, a slow answer, a body that
ends too early. GET /-/counts tells how often each happened, how many requests met no store, how many whole objects
whose key holds `/images/` were read, and the bytes that were read. GET /-/requests counts all requests by their kind.
--latency waits before each.

--keys KEY and --clock refuse what S3 refuses and moto doesn't: requests with another access key, and those whose date
is more than 15 minutes off. GET /-/refused counts them by address and code.
"""

import argparse
import asyncio
import collections
import random
import re
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import aiohttp
from aiohttp import web

FAULTS = ("error 500", "slow down", "reset before", "reset after", "slow answer", "truncated")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-encoding"}
SLOW_SECONDS = 2.0
MOST_SKEW = timedelta(minutes=15)
KEY = re.compile(r"Credential=([^/,\s]+)/")
"""The access key in the header that signs a request."""


def error(status: int, code: str) -> web.Response:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    return web.Response(status=status, text=body, content_type="application/xml")


def refusal(headers: Mapping[str, str], *, key: str | None, clock: bool, now: datetime) -> str | None:
    """Code of the error with which S3 refuses a request; None where it doesn't.

    Args:
        headers: of the request.
        key: the only access key that is known; None knows all.
        clock: whether the request's date is checked.
        now: the server's time.
    """
    if key is not None:
        found = KEY.search(headers.get("Authorization", ""))
        if found is None:
            return "AccessDenied"
        if found[1] != key:
            return "InvalidAccessKeyId"
    if clock:
        text = headers.get("x-amz-date")
        if text is None:
            return "AccessDenied"
        date = datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(now - date) > MOST_SKEW:
            return "RequestTimeTooSkewed"
    return None


class Proxy:
    def __init__(
        self,
        upstream: str,
        *,
        rate: float,
        seed: int,
        latency: float = 0.0,
        key: str | None = None,
        clock: bool = False,
    ) -> None:
        self.upstream = upstream
        self.key, self.clock = key, clock
        self.refused: collections.Counter[str] = collections.Counter()
        self.rate = rate
        self.latency = latency
        self.random = random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.requests: collections.Counter[str] = collections.Counter()
        self.session: aiohttp.ClientSession

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        now = datetime.now(UTC)
        if code := refusal(request.headers, key=self.key, clock=self.clock, now=now):
            self.refused[f"{request.remote} {code}"] += 1
            return error(403, code)
        fault = self.random.choice(FAULTS) if self.random.random() < self.rate else None
        self.counts[fault or "passed on"] += 1
        self.requests["LIST" if "list-type" in request.query else request.method] += 1
        await asyncio.sleep(self.latency)
        if fault == "error 500":
            return error(500, "InternalError")
        if fault == "slow down":
            return error(503, "SlowDown")
        if fault == "reset before":
            return self.reset(request)
        # The raw path: the signature covers it as it stands.
        url = aiohttp.client.URL(self.upstream + request.raw_path, encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            async with self.session.request(request.method, url, headers=headers, data=body or None) as answer:
                content = await answer.read()
        except aiohttp.ClientError:  # no store there: without the proxy its client would see the same
            self.counts["store away"] += 1
            return self.reset(request)
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        if fault == "reset after":
            return self.reset(request)
        if fault == "slow answer":
            await asyncio.sleep(SLOW_SECONDS)
        if fault == "truncated" and len(content) > 1:
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            await response.write(content[: len(content) // 2])
            return self.reset(request)
        if request.method == "HEAD":
            return web.Response(status=answer.status, headers=kept)
        kept.pop("Content-Length", None)
        self.counts["bytes read"] += len(content)
        if request.method == "GET" and answer.status == 200 and "/images/" in request.path:
            self.counts["images read"] += 1
        return web.Response(status=answer.status, headers=kept, body=content)

    async def tell(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts)

    async def tell_requests(self, _: web.Request) -> web.Response:
        return web.json_response(self.requests)

    async def tell_refused(self, _: web.Request) -> web.Response:
        return web.json_response(self.refused)

    def reset(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def serve(self, host: str, port: int) -> None:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self.session:
            app = web.Application(client_max_size=2**30)
            app.router.add_get("/-/counts", self.tell)
            app.router.add_get("/-/requests", self.tell_requests)
            app.router.add_get("/-/refused", self.tell_refused)
            app.router.add_route("*", "/{path:.*}", self.handle)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, host, port).start()
            stopped = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stopped.set)
            await stopped.wait()
            await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--keys", metavar="KEY")
    parser.add_argument("--clock", action="store_true")
    arguments = parser.parse_args()
    proxy = Proxy(
        arguments.upstream,
        rate=arguments.rate,
        seed=arguments.seed,
        latency=arguments.latency,
        key=arguments.keys,
        clock=arguments.clock,
    )
    asyncio.run(proxy.serve(arguments.host, arguments.port))
