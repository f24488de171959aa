"""The HTTP API. The only home of FastAPI, Starlette and uvicorn."""
