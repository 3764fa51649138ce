"""Who is answered, and what a browser is told it may do with the answer."""

import hashlib
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = ("GET", "HEAD")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "media-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Stands before the application.

    Args:
        hosts: names that the Host header may say: a page elsewhere whose name was made to point here (DNS rebinding)
            says another one. None: any, for there a token is asked for.
        token: must come with every request: as `Authorization: Bearer`, as the cookie that `?token=` is exchanged for,
            or as `?token=` itself. None: nobody is asked.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None, token: str | None):
        self.app, self.token = app, token
        self.hosts = None if hosts is None else {h.lower() for h in hosts}
        # Not the token: a cookie goes to every port of a host.
        self.session = "" if token is None else hmac.digest(token.encode(), b"asr-lab dashboard", "sha256").hex()
        self.cookie = f"asr_lab_{hashlib.sha256(self.session.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in names]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        if scope["method"] not in METHODS:
            return PlainTextResponse("read only\n", 405, {"allow": ", ".join(METHODS)})
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            return PlainTextResponse("this name is not known here; use 127.0.0.1 or localhost\n", 403)
        # A page of another site may not even cause work here; a link that somebody follows is a navigation.
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("not from another site\n", 403)
        return None if self.token is None else self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip(), self.token or ""):
            return None
        if _same(_cookies(headers.get("cookie", "")).get(self.cookie, ""), self.session):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(k == "token" and _same(v, self.token or "") for k, v in query):
            rest = urlencode([(k, v) for k, v in query if k != "token"])
            # One slash: two would name another host.
            where = "/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else "")
            found = RedirectResponse(where, 303, {"cache-control": "no-store"})
            found.set_cookie(self.cookie, self.session, httponly=True, samesite="strict", path="/")
            return found
        text = "a token is wanted: open the address that `asr-lab dashboard` printed, or send Authorization: Bearer\n"
        return PlainTextResponse(text, 401, {"www-authenticate": "Bearer", "cache-control": "no-store"})


def _same(given: str, wanted: str) -> bool:
    """Takes as long for a nearly right one as for a wrong one; digests, so that the length does not show either."""
    a, b = (hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in (given, wanted))
    return hmac.compare_digest(a, b)


def _name(host: str) -> str:
    """The name in a Host header, without port; "" where it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}
