"""The description of the API for people: one page without scripts, for closed networks too."""

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = "body{font:1rem/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}"

router = APIRouter(include_in_schema=False)


@router.get("/docs", response_class=HTMLResponse)
async def describe(request: Request) -> HTMLResponse:
    """Every operation of the OpenAPI document."""
    page = _page(request.app.openapi())
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def _page(document: dict[str, Any]) -> str:
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>"
        f"<p>{escape(document['info'].get('description', ''))}</p>"
        '<p>The contract for programs: <a href="/openapi.json">/openapi.json</a></p>'
        f"{''.join(_operations(document))}</body></html>"
    )


def _operations(document: dict[str, Any]) -> Iterator[str]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield (
                f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2>"
                f"<p><strong>{escape(operation.get('summary', ''))}</strong></p>"
                f"<p>{escape(operation.get('description', ''))}</p>"
            )
