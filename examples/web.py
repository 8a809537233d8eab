"""A web service: `uvicorn web:app`, then http://localhost:8000/docs. Needs fastapi, uvicorn and sluice-mongodb."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pymongo.errors import ExecutionTimeout

from sluice import DeadlineExceeded, Options, PoolError, Sluice, deadline, statistics

OPTIONS = Options(
    url=os.environ.get("MONGODB_URL", "mongodb://localhost:27017"),
    database="shop",
    driver="motor" if os.environ.get("MONGODB_DRIVER") == "motor" else "pymongo",
    max_pool_size=20,
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Sluice(OPTIONS) as app.state.sluice:
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(PoolError)  # a full queue, say: nothing was written
async def busy(request: Request, error: PoolError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "1"})


@app.exception_handler(ExecutionTimeout)
@app.exception_handler(DeadlineExceeded)
async def late(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "this took too long"}, 504)


class Product(BaseModel):
    price: float


@app.put("/products/{name}")
async def put_product(name: str, product: Product, request: Request) -> None:
    new = product.model_dump()
    async with deadline.limit(2):  # seconds, the wait for a connection included
        await request.app.state.sluice.collection("products").replace_one({"_id": name}, new, upsert=True)


@app.get("/products/{name}")
async def get_product(name: str, request: Request) -> Any:
    async with deadline.limit(2):
        product = await request.app.state.sluice.reader("products").get(name)  # reads of one moment travel together
    return product or JSONResponse({"detail": "no such product"}, 404)


@app.get("/pool")
async def pool(request: Request) -> Any:
    return statistics.as_json(statistics.summarize([request.app.state.sluice.snapshot()]).pool)
