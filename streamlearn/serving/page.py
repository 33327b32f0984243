"""The page at `/`: files of this package, and nothing from elsewhere. What it shows comes from `/status.json` alone."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files as resources

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("page", "page_ask", "page_chart", "page_drift", "page_matrix", "page_text")
    },
}

HEADERS = {
    # labels and reasons come from the stream: even if one were taken for markup, no script of it would run, nor load anything
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@cache
def files() -> Mapping[str, tuple[bytes, str]]:
    """Path → content and media type."""
    folder = resources("streamlearn.serving")
    return {path: ((folder / name).read_bytes(), media_type) for path, (name, media_type) in FILES.items()}
