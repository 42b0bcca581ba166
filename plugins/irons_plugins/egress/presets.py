"""Known sets of hosts, by the name of what needs them: data with a source each, written out as rules only where a person asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING

from irons.plugin.hook_data import Preset, PresetHost
from irons.text import clean

if TYPE_CHECKING:
    from irons.context import Context

_CARGO = "https://doc.rust-lang.org/cargo/reference/registry-index.html"
_CLAUDE = "https://code.claude.com/docs/en/network-config"
_CODEX = "https://developers.openai.com/codex/auth"
_DEBIAN = "https://wiki.debian.org/SourcesList"
_GITHUB = "https://docs.github.com/en/actions/concepts/runners/communicating-with-self-hosted-runners"
_GO = "https://proxy.golang.org/"
_NPM = "https://docs.npmjs.com/cli/using-npm/registry"
_PYPI = "https://docs.pypi.org/api/index-api/"
_UBUNTU = "https://help.ubuntu.com/community/Repositories/CommandLine"

_LONGEST_NAME = 50
_MOST_PRESETS = 500
"""Of one plugin."""
_MOST_HOSTS = 500
"""In a preset of a plugin: each becomes a rule."""

OURS: tuple[Preset, ...] = (
    Preset(
        "anthropic",
        "2026-11-27",
        "Claude's API, and the sign-in of Claude Code.",
        "Prompts and files, to whichever account the key in the sandbox belongs to.",
        (
            PresetHost("api.anthropic.com", "the API", _CLAUDE),
            PresetHost("claude.ai", "sign-in by a Claude account", _CLAUDE),
            PresetHost("platform.claude.com", "sign-in by a Console account", _CLAUDE),
        ),
    ),
    Preset(
        "crates",
        "2026-11-27",
        "Rust's packages from crates.io, for cargo 1.70 or newer: older ones take the index from github.com.",
        "The names that are asked for. Publishing goes to crates.io, which is not in it.",
        (
            PresetHost("index.crates.io", "the sparse index", _CARGO),
            PresetHost("static.crates.io", "the packages", _CARGO),
        ),
    ),
    Preset(
        "debian",
        "2026-11-27",
        "Debian's packages.",
        "The names that are asked for.",
        (
            PresetHost("deb.debian.org", "the archive", _DEBIAN),
            PresetHost("security.debian.org", "security updates", _DEBIAN),
        ),
    ),
    Preset(
        "github",
        "2026-11-27",
        "GitHub by https and git: repositories, the API, releases.",
        "Anything, to any repository, gist or issue that a token in the sandbox can write to. A list of hosts can't be read-only.",
        (
            PresetHost("github.com", "git and the web", _GITHUB),
            PresetHost("github.com:22", "git over SSH", _GITHUB),
            PresetHost("api.github.com", "the API", _GITHUB),
            PresetHost("codeload.github.com", "archives of repositories", _GITHUB),
            PresetHost("raw.githubusercontent.com", "single files", _GITHUB),
            PresetHost("objects.githubusercontent.com", "large files and older releases", _GITHUB),
            PresetHost("release-assets.githubusercontent.com", "files of releases", _GITHUB),
        ),
    ),
    Preset(
        "go",
        "2026-11-27",
        "Go's modules from the public proxy. It redirects large ones to storage.googleapis.com, which is not in it: anyone can upload there.",
        "The module paths that are asked for.",
        (
            PresetHost("proxy.golang.org", "the modules", _GO),
            PresetHost("sum.golang.org", "their checksums", _GO),
        ),
    ),
    Preset(
        "npm",
        "2026-11-27",
        "JavaScript packages from npm.",
        "The names that are asked for, and packages that are published with a token in the sandbox: it is the same host.",
        (PresetHost("registry.npmjs.org", "index and packages", _NPM),),
    ),
    Preset(
        "openai",
        "2026-11-27",
        "OpenAI's API, and the sign-in of Codex.",
        "Prompts and files, to whichever account the key in the sandbox belongs to.",
        (
            PresetHost("api.openai.com", "the API", _CODEX),
            PresetHost("auth.openai.com", "sign-in", _CODEX),
            PresetHost("chatgpt.com", "the API with a ChatGPT account", _CODEX),
        ),
    ),
    Preset(
        "pypi",
        "2026-11-27",
        "Python packages from PyPI.",
        "The names that are asked for. Publishing goes to upload.pypi.org, which is not in it.",
        (
            PresetHost("pypi.org", "the index", _PYPI),
            PresetHost("files.pythonhosted.org", "the packages", _PYPI),
        ),
    ),
    Preset(
        "ubuntu",
        "2026-11-27",
        "Ubuntu's packages.",
        "The names that are asked for.",
        (
            PresetHost("archive.ubuntu.com", "the archive", _UBUNTU),
            PresetHost("security.ubuntu.com", "security updates", _UBUNTU),
            PresetHost("ports.ubuntu.com", "the archive of other processors", _UBUNTU),
        ),
    ),
)
"""By name. The date is the version: when the hosts were last compared with their sources."""


def presets(ctx: Context) -> Mapping[str, Preset]:
    """All presets by name: irons' own, and those of plugins, which can't take a name that is taken.

    A plugin's preset whose hosts are no patterns is left out with a line of warning.
    """
    found = {preset.name: preset for preset in OURS}
    for info, answer in ctx.host.answers("irons_presets", ctx.settings):
        for preset, why in _checked(answer):
            if why or preset is None or preset.name in found:
                name = clean(preset.name, limit=50) if preset is not None else "one of its presets"
                ctx.progress(f"plugin {clean(info.name)}: {name} is left out: {why or 'the name is taken'}")
            else:
                found[preset.name] = preset
    return dict(sorted(found.items()))


def _checked(answer: object) -> Iterator[tuple[Preset | None, str]]:
    """Each preset of a plugin, and why it can't be one; empty where it can."""
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        yield None, "it is not a list of presets"
        return
    try:
        given = list(islice(answer, _MOST_PRESETS))
    except Exception as error:  # noqa: BLE001 (a generator of a plugin's raises what it likes)
        yield None, clean(f"{type(error).__name__}: {error}", limit=200)
        return
    for each in given:
        if not isinstance(each, Preset) or not _is_plain(each.name):
            yield None, "it is not a Preset with a plain name"
            continue
        try:
            checked = _whole(each)
        except ValueError as error:
            yield each, clean(str(error), limit=200)
        else:
            yield checked, ""


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and name.replace("-", "_").isidentifier()


def _whole(preset: Preset) -> Preset:
    """A preset of a plugin with its patterns in their one spelling, each once. Raises `ValueError` with what is wrong."""
    from irons_policy.patterns import PatternError, parse_pattern

    given: object = preset.hosts
    if not isinstance(given, tuple | list) or not 1 <= len(given) <= _MOST_HOSTS:
        raise ValueError(f"its hosts are not a tuple of 1 to {_MOST_HOSTS} PresetHost")
    if not all(isinstance(text, str) for text in (preset.version, preset.what, preset.sends)):
        raise ValueError("its version, what and sends are not text")
    hosts: dict[str, PresetHost] = {}
    for host in given:
        if not isinstance(host, PresetHost) or not all(isinstance(text, str) for text in host):
            raise ValueError(f"{clean(repr(host), limit=50)} is not a PresetHost of texts")
        try:
            pattern = parse_pattern(host.pattern).text
        except PatternError as error:
            raise ValueError(f"{clean(repr(host.pattern), limit=80)}: {error}") from None
        hosts.setdefault(pattern, host._replace(pattern=pattern))
    return preset._replace(hosts=tuple(hosts.values()))
