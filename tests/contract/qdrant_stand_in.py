"""A stand-in for a Qdrant server: parses what the client sends with the client's own models, lets its in-memory mode answer."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from qdrant_client import AsyncQdrantClient, models

Sent = tuple[str, str, dict[str, str], Any]  # method, path inside the collection, parameters, body
Fault = Callable[[httpx.Request], httpx.Response | Exception | None]


class StandIn:
    """Answers HTTP requests from an in-memory oracle. `fault` may answer instead; `late` faults come after the work is done."""

    def __init__(self) -> None:
        self.oracle = AsyncQdrantClient(":memory:")
        self.sent: list[Sent] = []
        self.version = "1.20.0"
        self.fault: Fault | None = None
        self.late: Fault | None = None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        collection, path = split(request.url.path)
        body = json.loads(request.content) if request.content else None
        self.sent.append((request.method, path, dict(request.url.params), body))
        if (answer := _faulty(self.fault, request)) is not None:
            return answer
        result = await self._answer(request.method, collection, path, body)
        return _faulty(self.late, request) or result

    async def _answer(self, method: str, collection: str, path: str, body: Any) -> httpx.Response:
        if path == "/":
            return httpx.Response(200, json={"title": "qdrant", "version": self.version})
        result = await self._work[method + " " + path](self, collection, body)
        return httpx.Response(200, json={"result": plain(result), "status": "ok", "time": 0})

    async def _exists(self, name: str, _: Any) -> Any:
        return {"exists": await self.oracle.collection_exists(name)}

    async def _create(self, name: str, body: Any) -> Any:
        asked = models.CreateCollection.model_validate(body)
        vectors: Any = asked.vectors
        return await self.oracle.create_collection(
            name, vectors_config=vectors, sparse_vectors_config=asked.sparse_vectors, metadata=asked.metadata
        )

    async def _info(self, name: str, _: Any) -> Any:
        return await self.oracle.get_collection(name)

    async def _index(self, name: str, body: Any) -> Any:
        models.CreateFieldIndex.model_validate(body)
        return {"operation_id": 1, "status": "completed"}

    async def _upsert(self, name: str, body: Any) -> Any:
        asked = models.PointsList.model_validate(body)
        return await self.oracle.upsert(name, asked.points, update_filter=asked.update_filter, update_mode=asked.update_mode)

    async def _retrieve(self, name: str, body: Any) -> Any:
        asked = models.PointRequest.model_validate(body)
        return await self.oracle.retrieve(name, asked.ids, asked.with_payload or False, asked.with_vector or False)

    async def _set_payload(self, name: str, body: Any) -> Any:
        asked = models.SetPayload.model_validate(body)
        assert asked.filter is not None
        return await self.oracle.set_payload(name, asked.payload, asked.filter)

    async def _delete(self, name: str, body: Any) -> Any:
        return await self.oracle.delete(name, models.FilterSelector.model_validate(body))

    async def _query(self, name: str, body: Any) -> Any:
        return await self.oracle.query_batch_points(name, models.QueryRequestBatch.model_validate(body).searches)

    async def _scroll(self, name: str, body: Any) -> Any:
        asked = models.ScrollRequest.model_validate(body)
        order: Any = asked.order_by
        points, following = await self.oracle.scroll(
            name, asked.filter, limit=asked.limit or 10, order_by=order, offset=asked.offset, with_payload=True
        )
        return {"points": points, "next_page_offset": following}

    async def _count(self, name: str, body: Any) -> Any:
        asked = models.CountRequest.model_validate(body)
        assert asked.exact
        return await self.oracle.count(name, asked.filter)

    async def _facet(self, name: str, body: Any) -> Any:
        asked = models.FacetRequest.model_validate(body)
        assert asked.exact
        return await self.oracle.facet(name, asked.key, asked.filter, limit=asked.limit or 10)

    _work: dict[str, Callable[[Any, str, Any], Awaitable[Any]]] = {  # noqa: RUF012 - a table
        "GET /exists": _exists,
        "PUT ": _create,
        "GET ": _info,
        "PUT /index": _index,
        "PUT /points": _upsert,
        "POST /points": _retrieve,
        "POST /points/payload": _set_payload,
        "POST /points/delete": _delete,
        "POST /points/query/batch": _query,
        "POST /points/scroll": _scroll,
        "POST /points/count": _count,
        "POST /facet": _facet,
    }


def split(path: str) -> tuple[str, str]:
    found = re.fullmatch(r"/collections/([^/]+)(.*)", path)
    return (found[1], found[2]) if found else ("", path)


def _faulty(fault: Fault | None, request: httpx.Request) -> httpx.Response | None:
    answer = fault(request) if fault else None
    if isinstance(answer, Exception):
        raise answer
    return answer


def plain(result: Any) -> Any:
    if isinstance(result, list):
        return [plain(item) for item in result]
    if isinstance(result, dict):
        return {key: plain(value) for key, value in result.items()}
    return json.loads(result.model_dump_json()) if hasattr(result, "model_dump_json") else result
