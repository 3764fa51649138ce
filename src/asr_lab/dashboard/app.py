"""The application: which address gives what. Every handler only reads, and runs in a thread of its own."""

import re
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from asr_lab.dashboard import gradients, runs
from asr_lab.dashboard.answers import Answer, Kept, answer
from asr_lab.dashboard.comparison import Comparisons
from asr_lab.dashboard.configs import Configs
from asr_lab.dashboard.experiments import Experiments
from asr_lab.dashboard.metrics import AXES, Metrics, thin
from asr_lab.dashboard.places import AbsentError, Places
from asr_lab.dashboard.security import Guard
from asr_lab.dashboard.sound import Sounds
from asr_lab.dashboard.utterances import ORDERS, Utterances
from asr_lab.errors import AsrLabError, DataError

STATIC = Path(__file__).parent / "static"
MOST_RUNS = 100  # whose curves are asked for at once
MOST_POINTS = 1000  # of one curve
FRESH = {"cache-control": "private, no-cache"}  # may be kept, but is to be asked for again


class Dashboard:
    """What the handlers share: the caches."""

    def __init__(self, outputs: Path, with_audio: bool = True):
        self.places = Places(outputs)
        self.experiments = Experiments(self.places)
        self.metrics = Metrics(self.places)
        self.utterances = Utterances(self.places)
        self.configs = Configs(self.places)
        self.comparisons = Comparisons(self.places, self.utterances, self.configs)
        self.sounds = Sounds(self.places, self.utterances, self.configs) if with_audio else None
        self._kept: Kept[Answer] = Kept(512)

    def listing(self, request: Request) -> Response:
        return respond(request, self.experiments.listing())

    def experiment(self, request: Request) -> Response:
        return respond(request, self.experiments.view(request.path_params["experiment"]))

    def curves(self, request: Request) -> Response:
        """?run=NAME (several) &key=val/wer &axis=step &points=200: a thinned curve of each run that has it."""
        experiment, query = request.path_params["experiment"], request.query_params
        names = list(dict.fromkeys(query.getlist("run")))[:MOST_RUNS]
        key, axis = query.get("key", ""), query.get("axis", "step")
        most = _number(query.get("points"), 10, MOST_POINTS, 200)
        if axis not in AXES:
            raise HTTPException(400, f"axis: choose from {', '.join(AXES)}")
        folders = [self.places.run(experiment, name) for name in names]

        def make() -> Answer:
            found = [thin(*self.metrics.points(f, key, axis), most) for f in folders]
            return answer({n: c for n, c in zip(names, found, strict=True) if c["x"]})

        mark = [self.metrics.mark(f) for f in folders]
        return respond(request, self._kept.get((experiment, tuple(names), key, axis, most), mark, make))

    def keys(self, request: Request) -> Response:
        """?run=NAME (several): what these runs logged."""
        experiment = request.path_params["experiment"]
        names = request.query_params.getlist("run")[:MOST_RUNS]
        found = [self.metrics.keys(self.places.run(experiment, n)) for n in names]
        bad = {n: b for n, (_, b) in zip(names, found, strict=True) if b}
        return respond(request, answer({"keys": sorted({k for keys, _ in found for k in keys}), "bad": bad}))

    def run(self, request: Request) -> Response:
        name, folder = request.path_params["run"], self._folder(request)
        row, swept = self.experiments.cell(request.path_params["experiment"], name)
        shown = runs.page(self.places, folder, row, self.utterances, self.metrics, self.configs)
        return respond(request, answer(shown | {"swept": swept, "audio": self.sounds is not None}))

    def gradients(self, request: Request) -> Response:
        folder = self._folder(request)
        mark = gradients.mark(self.places, folder)
        made = self._kept.get((folder, "gradients"), mark, lambda: answer(gradients.page(self.places, folder)))
        return respond(request, made)

    def hypotheses(self, request: Request) -> Response:
        """?split=test &order=worst &find=WORDS &start=0 &score=wer"""
        folder, query = self._folder(request), request.query_params
        split, order = query.get("split", "test"), query.get("order", "worst")
        find, start = query.get("find", "")[:200], _number(query.get("start"), 0, 10**9, 0)
        score = _score(query.get("score"))
        if order not in ORDERS:
            raise HTTPException(400, f"order: choose from {', '.join(ORDERS)}")

        def make() -> Answer:
            return answer(self.utterances.page(folder, split, order, find, start, score))

        key = (folder, "utterances", split, order, find, start, score)
        return respond(request, self._kept.get(key, self.utterances.mark(folder, split), make))

    def sound(self, request: Request) -> Response:
        """?split=test &id=UTTERANCE: its audio as WAV; see sound.py."""
        if self.sounds is None:
            raise HTTPException(404, "audio is switched off (--no-audio)")
        query = request.query_params
        wave = self.sounds.wave(self._folder(request), query.get("split", "test"), query.get("id", ""))
        return _part(request, wave)

    def compare(self, request: Request) -> Response:
        """?a=EXPERIMENT/RUN &b=EXPERIMENT/RUN &score=wer"""
        query = request.query_params
        a, b = (self.places.run(*query.get(k, "").partition("/")[::2]) for k in "ab")
        score = _score(query.get("score"))
        mark = self.comparisons.mark(a, b)
        make = lambda: answer(self.comparisons.pair(a, b, score))  # noqa: E731
        return respond(request, self._kept.get((a, b, "compare", score), mark, make))

    def _folder(self, request: Request) -> Path:
        return self.places.run(request.path_params["experiment"], request.path_params["run"])


def application(
    outputs: Path,
    with_audio: bool = True,
    hosts: Iterable[str] | None = None,
    token: str | None = None,
    read_ahead: bool = False,
) -> ASGIApp:
    """`hosts` and `token` as for `Guard`; `read_ahead`: begin to read before somebody asks.

    Raises:
        RunError: there is no such folder.
    """
    board = Dashboard(outputs, with_audio)
    if read_ahead:
        threading.Thread(target=board.experiments.listing, daemon=True, name="read ahead").start()
    one = "/api/experiments/{experiment}"
    routes = [
        Route("/", _index),
        Route("/api/experiments", board.listing),
        Route(one, board.experiment),
        Route(f"{one}/curves", board.curves),
        Route(f"{one}/keys", board.keys),
        Route(f"{one}/runs/{{run}}", board.run),
        Route(f"{one}/runs/{{run}}/gradients", board.gradients),
        Route(f"{one}/runs/{{run}}/utterances", board.hypotheses),
        Route(f"{one}/runs/{{run}}/audio", board.sound),
        Route("/api/compare", board.compare),
        Mount("/static", _Static(directory=STATIC)),
    ]
    handlers: dict[Any, Callable] = {
        AbsentError: lambda request, error: _problem(404, "no such thing in the outputs folder"),
        DataError: lambda request, error: _problem(404, str(error)),
        AsrLabError: lambda request, error: _problem(404, str(error)),
        HTTPException: lambda request, error: _problem(error.status_code, error.detail),
        OSError: lambda request, error: _problem(503, f"a file cannot be read now ({error.strerror})"),
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), hosts, token)


def respond(request: Request, found: Answer) -> Response:
    """The answer, packed where the browser unpacks, or only that it is still the same."""
    headers = {**FRESH, "etag": found.etag, "vary": "accept-encoding"}
    known = request.headers.get("if-none-match", "")
    if found.etag in [e.strip().removeprefix("W/") for e in known.split(",")]:
        return Response(status_code=304, headers=headers)
    if found.packed and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers=headers | {"content-encoding": "gzip"}, media_type="application/json")
    return Response(found.body, headers=headers, media_type="application/json")


class _Static(StaticFiles):
    """Asked for again each time, so that a new version of asr_lab is seen at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        found = super().file_response(*args, **kwargs)
        found.headers["cache-control"] = "no-cache"
        return found


def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})


def _problem(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status, {"cache-control": "no-store"})


def _number(text: str | None, low: int, high: int, default: int) -> int:
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text):
        raise HTTPException(400, f"a whole number is wanted, {text[:40]!r} came")
    return min(max(int(text), low), high)


def _score(text: str | None) -> str:
    return "cer" if text == "cer" else "wer"


def _part(request: Request, wave: bytes) -> Response:
    """All, or the range that a browser asks for when somebody moves to another place in the sound."""
    headers = {**FRESH, "accept-ranges": "bytes"}
    wanted = re.fullmatch(r"bytes=(\d{1,12})-(\d{0,12})", request.headers.get("range", ""))
    if wanted is None:
        return Response(wave, headers=headers, media_type="audio/wav")
    start, end = int(wanted[1]), min(int(wanted[2] or len(wave) - 1), len(wave) - 1)
    if start > end:
        return Response(status_code=416, headers=headers | {"content-range": f"bytes */{len(wave)}"})
    headers["content-range"] = f"bytes {start}-{end}/{len(wave)}"
    return Response(wave[start : end + 1], 206, headers, media_type="audio/wav")
