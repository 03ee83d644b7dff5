"""A shop in Django, in one file. It knows nothing of who serves it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import django
from django import forms
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.urls import path, reverse
from django.views.decorators.csrf import csrf_exempt

STATIC = Path(__file__).parent / "static"
log: list[str] = []
"""What has happened to it."""

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["127.0.0.1"],
        INSTALLED_APPS=["django.contrib.staticfiles"],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[
            "django.middleware.gzip.GZipMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
        ROOT_URLCONF=__name__,
        SECRET_KEY="a secret of tests",
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        STATICFILES_DIRS=[STATIC],
        STATIC_URL="static/",
    )
    django.setup()


class ItemForm(forms.Form):
    name = forms.CharField()
    price = forms.FloatField()


class PictureForm(forms.Form):
    title = forms.CharField()
    picture = forms.FileField()


async def item(request: HttpRequest, id: int) -> JsonResponse:
    return JsonResponse({"id": id, "size": request.GET.get("size", "m")})


@csrf_exempt
def add_item(request: HttpRequest) -> JsonResponse:  # in a thread
    form = ItemForm(json.loads(request.body))
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=422)
    return JsonResponse(form.cleaned_data, status=201)


def form(request: HttpRequest) -> JsonResponse:
    if request.method == "GET":
        return JsonResponse({"token": get_token(request)})
    return JsonResponse({"name": request.POST["name"], "colours": request.POST.getlist("colour")})


@csrf_exempt
def upload(request: HttpRequest) -> JsonResponse:
    form = PictureForm(request.POST, request.FILES)
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=422)
    picture, found = form.cleaned_data["picture"], hashlib.sha256()
    for chunk in picture.chunks():
        found.update(chunk)
    return JsonResponse(
        {
            "title": form.cleaned_data["title"],
            "filename": picture.name,
            "type": picture.content_type,
            "sha256": found.hexdigest(),
        }
    )


@csrf_exempt
async def digest(request: HttpRequest) -> JsonResponse:
    found, size = hashlib.sha256(), 0
    while piece := request.read(65536):
        found.update(piece)
        size += len(piece)
    return JsonResponse({"size": size, "sha256": found.hexdigest()})


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def produce() -> AsyncIterator[bytes]:
        for number in range(int(request.GET["pieces"])):
            yield b"%06d\n" % number

    return StreamingHttpResponse(produce(), content_type="text/plain")


async def ticks(request: HttpRequest) -> StreamingHttpResponse:
    async def produce() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.001)
        finally:
            log.append("ticks left")

    return StreamingHttpResponse(produce(), content_type="text/plain")


async def wait(request: HttpRequest) -> HttpResponse:
    log.append("waits")
    try:
        await asyncio.Event().wait()
    finally:
        log.append("left")
    return HttpResponse()


async def events(request: HttpRequest) -> StreamingHttpResponse:
    async def produce() -> AsyncIterator[str]:
        for number in (1, 2):
            yield f'id: {number}\nevent: sale\ndata: {{"sold":{number}}}\n\n'

    return StreamingHttpResponse(produce(), content_type="text/event-stream")


def visits(request: HttpRequest) -> JsonResponse:
    session: Any = request.session
    session["visits"] = session.get("visits", 0) + 1
    return JsonResponse({"visits": session["visits"]})


def long(request: HttpRequest) -> JsonResponse:
    return JsonResponse([1] * 5000, safe=False)


async def nothing(request: HttpRequest) -> None:
    raise Http404("there is no such thing")


async def boom(request: HttpRequest) -> None:
    raise RuntimeError("on purpose")


async def where(request: HttpRequest) -> JsonResponse:
    url = request.build_absolute_uri(reverse("where"))
    return JsonResponse({"root_path": request.META["SCRIPT_NAME"], "url": url})


urlpatterns = [
    path("items/<int:id>", item),
    path("items", add_item),
    path("form", form),
    path("upload", upload),
    path("digest", digest),
    path("stream", stream),
    path("ticks", ticks),
    path("wait", wait),
    path("events", events),
    path("visits", visits),
    path("long", long),
    path("nothing", nothing),
    path("boom", boom),
    path("branch/where", where, name="where"),
]

app = ASGIStaticFilesHandler(get_asgi_application())
