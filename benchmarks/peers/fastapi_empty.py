"""The floor: a FastAPI GET that does nothing. Run by uvicorn or granian."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def root() -> dict[str, bool]:
    """Answers at once."""
    return {"ok": True}
