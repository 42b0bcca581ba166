"""Metrics as text: the format 0.0.4 of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Sample(NamedTuple):
    """One value of a metric.

    Attributes:
        value: the value.
        labels: their values, by their names.
    """

    value: float
    labels: Mapping[str, str] = {}


class Metric(NamedTuple):
    """A metric with all its samples.

    Attributes:
        name: its name; that of a counter ends with `_total`.
        kind: whether it only grows, until the server is started again.
        about: one line of what it is.
        samples: its values.
    """

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    samples: Iterable[Sample]


def text_of(metrics: Iterable[Metric]) -> str:
    """Write metrics down, in their order."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {_escaped(metric.about)}", f"# TYPE {metric.name} {metric.kind}"]
        lines += [f"{metric.name}{_labels(each.labels)} {_number(each.value)}" for each in metric.samples]
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(
        f'{name}="{_escaped(value).replace(chr(34), chr(92) + chr(34))}"' for name, value in labels.items()
    )
    return f"{{{inside}}}" if inside else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"
