"""What `uvicorn main:app` and `gunicorn main:app` run."""

from app.main import serve

app = serve()
