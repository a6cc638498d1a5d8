"""The app behind the page: a few addresses that take and give JSON, forms and images."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.data.readers.folder_tree import SYSTEM_FILES, SYSTEM_FOLDERS
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.report.page import style
from anyshot_jax.serve import classes, defects, teaching
from anyshot_jax.serve.guard import Guard
from anyshot_jax.serve.session import Session
from anyshot_jax.serve.uploads import Limits, Seen, Upload, line
from anyshot_jax.types import InputError

SCRIPTS = (
    'page', 'classes', 'answers', 'defects', 'verdicts', 'queries', 'drops', 'images', 'csv',
    'sending', 'work', 'parts',
)  # fmt: skip
FILES = {  # all that is served from the package
    '/': ('page.html', 'text/html'),
    '/page.css': ('page.css', 'text/css'),
    **{f'/{name}.js': (f'{name}.js', 'text/javascript') for name in SCRIPTS},
}
READS = {'suffixes': SUFFIXES, 'system': sorted(SYSTEM_FILES | SYSTEM_FOLDERS)}


def create_app(
    classifier: AnyShotClassifier,
    *,
    port: int,
    detector: AnomalyDetector | None = None,
    save_to: Path | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The app for one model of classes, and one of defects.

    GET / the page; /state and /defects the models as JSON; /thumbnails/DIGEST a support image as
    PNG, /defects/images/DIGEST one of the detector's as JPEG. POST, as multipart forms:
    /classes (name, description, images) adds to a class, new or not; /remove (name); /forget (name,
    image) one example; /predict (images); /save. /defects/normal (images), /defects/forget (image)
    one of them; /defects/types (name, images), /defects/remove (name of a type), /defects/clear,
    /defects/judge (images), /defects/save. They give the new state, or the predictions.
    What can't be done gives {"error": what to do} with 400, 403 (`guard.Guard`), 404, 405 or 413.

    Args:
      classifier: fitted, or new (then the first class fits it); it stays as it is.
      port: that the server is asked at; requests to any other are refused.
      detector: fitted, or new. If it is given, it is what the page begins with and saves.
      save_to: the only file that is ever written; None: none is.
      limits: of one request.
    """
    limits = limits or Limits()
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def file_of(name: str, kind: str) -> Callable[[], Response]:
        text = resources.files('anyshot_jax.serve').joinpath(name).read_text('utf-8')
        if name == 'page.css':
            text = style() + text
        return lambda: Response(text, media_type=kind, headers={'cache-control': 'no-cache'})

    for address, (name, kind) in FILES.items():
        app.add_api_route(address, file_of(name, kind), methods=['GET'])
    first = 'classes' if detector is None else 'defects'
    _classes(app, classifier, save_to if first == 'classes' else None, limits, first)
    _defects(app, detector or AnomalyDetector(), save_to if first == 'defects' else None, limits)

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


def _classes(
    app: FastAPI, classifier: Any, save_to: Path | None, limits: Limits, first: str
) -> None:
    """The addresses of the classifier."""
    sight = classes.sight(classifier)
    view = lambda model: {
        **classes.state(model, sight.cells is not None),
        'limits': limits._asdict(),
        'reads': READS,
        'first': first,
    }
    session = Session(classes.taught(classifier), save_to, view, classes.save)

    def add(name: str, description: str, uploads: list[Upload]) -> dict[str, Any]:
        name, text = teaching.checked(name, description, uploads, limits)
        squares, seen = classes.squares_of(classifier, sight.side, uploads, limits)
        make = lambda m: teaching.added(m, name, text, uploads, squares, limits)
        return {**session.change(make), 'odd': _odd(seen)}

    def predict(uploads: list[Upload]) -> list[dict[str, Any]]:
        session.ask(classes.check)
        squares, seen = classes.squares_of(classifier, sight.side, uploads, limits)
        found = session.ask(lambda m: classes.answers(m, sight, uploads, squares))
        return [{**answer, 'odd': one.odd} for answer, one in zip(found, seen, strict=True)]

    @app.get('/state')
    def state() -> Any:
        return _json(session.state())

    @app.get('/thumbnails/{digest}')
    def thumbnail(digest: str) -> Response:
        return _image(classes.thumbnail(session.model, digest), 'png')

    @app.post('/classes')
    async def to_class(request: Request) -> Any:
        fields, uploads = await _form(request, limits)
        name, description = fields.get('name', ''), fields.get('description', '')
        return _json(await run_in_threadpool(add, name, description, uploads))

    @app.post('/remove')
    async def remove(request: Request) -> Any:
        fields, _ = await _form(request, limits)
        make = lambda m: teaching.without(m, fields.get('name', ''))
        return _json(await run_in_threadpool(session.change, make))

    @app.post('/forget')
    async def forget(request: Request) -> Any:
        fields, _ = await _form(request, limits)
        name, image = fields.get('name', ''), fields.get('image', '')
        make = lambda m: teaching.without_example(m, name, image)
        return _json(await run_in_threadpool(session.change, make))

    @app.post('/predict')
    async def answer(request: Request) -> Any:
        return _json(await run_in_threadpool(predict, await _images(request, limits)))

    @app.post('/save')
    def save() -> Any:
        return _json(session.save())


def _defects(app: FastAPI, detector: AnomalyDetector, save_to: Path | None, limits: Limits) -> None:
    """The addresses of the detector; its encoder is loaded when it is first asked for."""
    session = Session(defects.known(detector), save_to, defects.state, defects.save)

    def change(uploads: list[Upload], make: Callable[[Any, list[Seen]], Any]) -> dict[str, Any]:
        seen = defects.read(uploads, limits)
        return {**session.change(lambda m: make(m, seen)), 'odd': _odd(seen)}

    def verdicts(uploads: list[Upload]) -> list[dict[str, Any]]:
        session.ask(defects.check)
        seen = defects.read(uploads, limits)
        found = session.ask(lambda m: defects.verdicts(m, seen))
        return [{**said, 'odd': one.odd} for said, one in zip(found, seen, strict=True)]

    @app.get('/defects')
    def state() -> Any:
        return _json(session.state())

    @app.get('/defects/images/{digest}')
    def image(digest: str) -> Response:
        return _image(session.model.images.get(digest), 'jpeg')

    @app.post('/defects/normal')
    async def normal(request: Request) -> Any:
        make = lambda m, seen: defects.with_normal(m, seen, limits)
        return _json(await run_in_threadpool(change, await _images(request, limits), make))

    @app.post('/defects/types')
    async def to_type(request: Request) -> Any:
        fields, uploads = await _form(request, limits)
        make = lambda m, seen: defects.with_type(m, fields.get('name', ''), seen, limits)
        return _json(await run_in_threadpool(change, _some(uploads), make))

    @app.post('/defects/remove')
    async def remove(request: Request) -> Any:
        fields, _ = await _form(request, limits)
        make = lambda m: defects.without_type(m, fields.get('name', ''))
        return _json(await run_in_threadpool(session.change, make))

    @app.post('/defects/forget')
    async def forget(request: Request) -> Any:
        fields, _ = await _form(request, limits)
        make = lambda m: defects.without_normal(m, fields.get('image', ''))
        return _json(await run_in_threadpool(session.change, make))

    @app.post('/defects/clear')
    def clear() -> Any:
        return _json(session.change(defects.emptied))

    @app.post('/defects/judge')
    async def judge(request: Request) -> Any:
        return _json(await run_in_threadpool(verdicts, await _images(request, limits)))

    @app.post('/defects/save')
    def save() -> Any:
        return _json(session.save())


def _odd(seen: list[Seen]) -> list[list[str]]:
    """(what is worth a word, the file's name) of a request's images."""
    return [[kind, one.name] for one in seen for kind in one.odd]


def _image(found: bytes | None, kind: str) -> Response:
    if found is None:
        raise HTTPException(404, 'the model has no such image: load the page again')
    # The address is the content's digest, so that it never changes.
    forever = {'cache-control': 'private, max-age=31536000, immutable'}
    return Response(found, media_type=f'image/{kind}', headers=forever)


async def _images(request: Request, limits: Limits) -> list[Upload]:
    return _some((await _form(request, limits))[1])


def _some(uploads: list[Upload]) -> list[Upload]:
    if not uploads:
        raise InputError('no image came: send files as "images"')
    return uploads


async def _form(request: Request, limits: Limits) -> tuple[dict[str, str], list[Upload]]:
    """The text fields by name, and the files sent as "images", of a multipart form."""
    kind, options = parse_options_header(request.headers.get('content-type', ''))
    if kind != b'multipart/form-data' or options.get(b'charset', b'utf-8').lower() != b'utf-8':
        raise HTTPException(415, 'send a form as multipart/form-data, its texts as UTF-8')
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
                name = line((value.filename or '')[-limits.name :], '', limits.name, empty=True)
                uploads.append(Upload(name or 'image', await value.read()))
            elif key in fields:
                raise InputError(f'{key[:50]!r} came twice')
            else:
                fields[key] = value
        return fields, uploads


def _json(content: Any, status: int = 200, headers: Any = None) -> JSONResponse:
    headers = {'cache-control': 'no-store', **(headers or {})}
    return JSONResponse(content, status, headers)
