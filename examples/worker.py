"""A worker without a web framework: takes jobs out of a collection until there are none. Needs sluice-mongodb alone."""

import asyncio
import os
from datetime import UTC, datetime

from sluice import Options, Sluice, statistics

OPTIONS = Options(
    url=os.environ.get("MONGODB_URL", "mongodb://localhost:27017"),
    database="shop",
    driver="motor" if os.environ.get("MONGODB_DRIVER") == "motor" else "pymongo",
    max_pool_size=4,
)


async def take_jobs(sluice: Sluice) -> int:
    """How many this one has done."""
    done = 0
    jobs = sluice.collection("jobs")
    while job := await jobs.find_one_and_update({"taken": None}, {"$set": {"taken": datetime.now(UTC)}}):
        await sluice.writer("results").insert({"job": job["_id"], "square": job["number"] ** 2})  # in batches
        done += 1
    return done


async def main() -> None:
    async with Sluice(OPTIONS) as sluice:
        # 4 have a connection, the others wait in line: as many as `wait_queue_multiple` times 4 may.
        done = await asyncio.gather(*(take_jobs(sluice) for _ in range(16)))
        pool = statistics.summarize([sluice.snapshot()]).pool
    print(f"{sum(done)} jobs, {pool.use_time.count} uses of {pool.total_created} connections in all runs")


if __name__ == "__main__":
    asyncio.run(main())
