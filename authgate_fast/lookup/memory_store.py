"""PLACEHOLDER"""

import asyncio


class MemoryStore:
    def __init__(self) -> None:
        self.on_change = []
        self.on_gap = []

    async def run(self) -> None:
        await asyncio.Event().wait()

    def status(self) -> dict[str, object]:
        return {"type": "memory"}
