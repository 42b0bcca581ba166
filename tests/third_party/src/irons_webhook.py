"""Post each question of mode `ask` to a webhook, such as that of a chat room, and answer it where the answer of the webhook has a word."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

from irons import AskedQuestion, PluginSetting, hookimpl


@hookimpl
def irons_settings() -> Iterable[PluginSetting]:
    """Declare `[plugins.webhook]`."""
    return [
        PluginSetting("url", "Where questions are posted.", "", secret=True),
        PluginSetting("seconds", "How long to wait for its answer.", 10, type=int),
    ]


@hookimpl
def irons_ask(question: AskedQuestion, settings: Mapping[str, Any]) -> str | None:
    """Post it, and return the word in the webhook's answer, if that is one."""
    if not settings["url"]:
        return None
    text = f"{question.sandbox} asks for {question.host} port {question.port}, {question.count} tries"
    if question.reason:
        text += f"; it says: {question.reason}"
    request = urllib.request.Request(
        settings["url"],
        json.dumps({"text": text, "id": question.id, "may": question.may}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=settings["seconds"]) as answer:
        word = answer.read(20).decode("ascii", "replace").strip()
    return word if word in question.may else None
