"""What is counted while serving, as Prometheus reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
SEVERAL = "PROMETHEUS_MULTIPROC_DIR"  # where processes that serve together count


class Counts:
    """Requests by route and status, how long they took, the batches, and what waits."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vpt_requests", "Requests", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "vpt_request_seconds",
            "Until answered",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.answers = Counter("vpt_answers", "Answers", ("task",), registry=self.registry)
        self.batches = Histogram(
            "vpt_batch_inputs", "Inputs in a batch", buckets=SIZES, registry=self.registry
        )
        self.waiting = Gauge(
            "vpt_waiting", "Requests that wait", registry=self.registry, multiprocess_mode="livesum"
        )

    async def __call__(
        self, request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        """Count a request; one that no route takes is counted as such, whatever it asked for."""
        started, status = time.monotonic(), 500
        try:
            response = await answer(request)
            status = response.status_code
            return response
        finally:
            route = getattr(request.scope.get("route"), "path", "none")
            self.requests.labels(route, status).inc()
            self.seconds.labels(route).observe(time.monotonic() - started)

    def page(self) -> Response:
        """All of it, of every process that serves."""
        registry = self.registry
        if SEVERAL in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
