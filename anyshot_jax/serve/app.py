"""The app behind the page: a few addresses that take and give JSON, forms and images."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.report.page import style
from anyshot_jax.serve.guard import Guard
from anyshot_jax.serve.session import Limits, Served, Upload
from anyshot_jax.types import InputError

FILES = {  # all that is served from the package
    '/': ('page.html', 'text/html'),
    '/page.css': ('page.css', 'text/css'),
    '/page.js': ('page.js', 'text/javascript'),
    '/parts.js': ('parts.js', 'text/javascript'),
}


def create_app(
    classifier: AnyShotClassifier,
    *,
    port: int,
    save_to: Path | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The app for one model.

    GET / the page; /state the model as JSON; /thumbnails/DIGEST a support image as PNG.
    POST, as multipart forms: /classes (name, description, images) adds to a class, new or not;
    /remove (name); /predict (images); /save. They give the new state, or the predictions.
    What can't be done gives {"error": what to do} with 400, 403 (`guard.Guard`), 404, 405 or 413.

    Args:
      classifier: fitted, or new (then the first class fits it). The app changes it.
      port: that the server is asked at; requests to any other are refused.
      save_to: the only file that is ever written; None: none is.
      limits: of one request.
    """
    limits = limits or Limits()
    served = Served(classifier, save_to, limits)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def file_of(name: str, kind: str) -> Callable[[], Response]:
        text = resources.files('anyshot_jax.serve').joinpath(name).read_text('utf-8')
        if name == 'page.css':
            text = style() + text
        return lambda: Response(text, media_type=kind, headers={'cache-control': 'no-cache'})

    for address, (name, kind) in FILES.items():
        app.add_api_route(address, file_of(name, kind), methods=['GET'])

    @app.get('/state')
    def state() -> Any:
        return _json(served.state())

    @app.get('/thumbnails/{digest}')
    def thumbnail(digest: str) -> Response:
        found = served.thumbnail(digest)
        if found is None:
            raise HTTPException(404, 'the model has no such support image: load the page again')
        # The address is the content's digest, so that it never changes.
        forever = {'cache-control': 'private, max-age=31536000, immutable'}
        return Response(found, media_type='image/png', headers=forever)

    @app.post('/classes')
    async def classes(request: Request) -> Any:
        fields, uploads = await _form(request, limits)
        name, description = fields.get('name', ''), fields.get('description', '')
        return _json(await run_in_threadpool(served.add, name, description, uploads))

    @app.post('/remove')
    async def remove(request: Request) -> Any:
        fields, _ = await _form(request, limits)
        return _json(await run_in_threadpool(served.remove, fields.get('name', '')))

    @app.post('/predict')
    async def predict(request: Request) -> Any:
        _, uploads = await _form(request, limits)
        if not uploads:
            raise InputError('no image came: send files as "images"')
        return _json(await run_in_threadpool(served.predict, uploads))

    @app.post('/save')
    def save() -> Any:
        return _json(served.save())

    @app.exception_handler(InputError)
    async def refused(request: Request, e: InputError) -> Response:
        return _json({'error': str(e)}, 400)

    @app.exception_handler(HTTPException)
    async def unanswered(request: Request, e: HTTPException) -> Response:
        return _json({'error': str(e.detail)}, e.status_code, e.headers)

    @app.exception_handler(Exception)  # the server's log has the rest
    async def failed(request: Request, e: Exception) -> Response:
        return _json({'error': 'a bug in the server: its terminal says more'}, 500)

    app.add_middleware(Guard, port=port, max_bytes=limits.bytes, seconds=limits.seconds)
    return app


async def _form(request: Request, limits: Limits) -> tuple[dict[str, str], list[Upload]]:
    """The text fields by name, and the files sent as "images", of a multipart form."""
    if not request.headers.get('content-type', '').startswith('multipart/form-data'):
        raise HTTPException(415, 'send a form as multipart/form-data')
    # Starlette cuts the files' number off by an error; a text is longer than its characters.
    most = 4 * limits.description
    form = request.form(max_files=limits.images, max_fields=8, max_part_size=most)
    async with form as found:
        fields: dict[str, str] = {}
        uploads = []
        for key, value in found.multi_items():
            if isinstance(value, UploadFile):
                if key != 'images':
                    raise InputError(f'a file came as {key[:50]!r}: send files as "images"')
                name = (value.filename or 'image')[-limits.name :]
                uploads.append(Upload(name, await value.read()))
            elif key in fields:
                raise InputError(f'{key[:50]!r} came twice')
            else:
                fields[key] = value
        return fields, uploads


def _json(content: Any, status: int = 200, headers: Any = None) -> JSONResponse:
    headers = {'cache-control': 'no-store', **(headers or {})}
    return JSONResponse(content, status, headers)
