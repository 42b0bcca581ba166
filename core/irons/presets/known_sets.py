"""The sets of hosts that irons knows: data, with a source for each host."""

from __future__ import annotations

from irons.plugin.hook_data import Preset, PresetHost

_CARGO = "https://doc.rust-lang.org/cargo/reference/registry-index.html"
_CLAUDE = "https://code.claude.com/docs/en/network-config"
_CODEX = "https://developers.openai.com/codex/auth"
_DEBIAN = "https://wiki.debian.org/SourcesList"
_GITHUB = "https://docs.github.com/en/actions/concepts/runners/communicating-with-self-hosted-runners"
_GO = "https://proxy.golang.org/"
_NPM = "https://docs.npmjs.com/cli/using-npm/registry"
_PYPI = "https://docs.pypi.org/api/index-api/"
_UBUNTU = "https://help.ubuntu.com/community/Repositories/CommandLine"

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
