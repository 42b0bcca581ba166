"""`irons __complete`: what a shell asks at every Tab, answered from what is on hand, and the scripts that ask it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from irons.completing import FILES, Sources, complete

STALE = 10.0
"""Seconds after which an answer from the cache also starts a refresh, in a process of its own that nobody waits for."""


def answer(words: Sequence[str]) -> int:
    """Print `value<TAB>description` lines for the last of `words`; nothing at all where something is wrong."""
    from irons.errors import IronsError
    from irons.host import PluginHost
    from irons.names import Names
    from irons.settings import load

    host = PluginHost(warn=lambda _: None)
    try:
        names = Names.of(load())
    except IronsError:
        sources = Sources()
    else:
        sources = Sources(sandboxes=lambda: _read(names))
    for candidate in complete(host.tree, words, sources):
        if candidate == FILES:
            continue
        sys.stdout.write(f"{candidate.word}\t{candidate.about}\n")
    return 0


def _read(names: object) -> dict[str, str]:
    from irons.names import Names

    assert isinstance(names, Names)  # noqa: S101 - imported late
    if names.age() > STALE:
        _refresh_detached()
    return names.read()


def _refresh_detached() -> None:
    """Start `irons list -q`, which leaves fresh names in the cache, without waiting for it."""
    import subprocess

    subprocess.Popen(
        [sys.executable, "-m", "irons", "list", "-q"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


BASH = r"""# irons completion for bash: eval "$(irons completion bash)"
_irons() {
    local IFS=$'\n' cur=${COMP_WORDS[COMP_CWORD]} line
    COMPREPLY=()
    while IFS= read -r line; do
        line=${line%%$'\t'*}
        [[ $line == "$cur"* ]] && COMPREPLY+=("$(printf %q "$line")")
    done < <(irons __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _irons irons
"""

ZSH = r"""#compdef irons
# irons completion for zsh: irons completion zsh > "${fpath[1]}/_irons", or eval "$(irons completion zsh)" after compinit
_irons() {
    local -a lines
    lines=("${(@f)$(irons __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    lines=("${(@)lines//:/\\:}")
    lines=("${(@)lines/$'\t'/:}")
    if [[ -n "$lines[1]" ]]; then _describe -t values irons lines; else _files; fi
}
if [[ $funcstack[1] == _irons ]]; then _irons "$@"; else compdef _irons irons; fi
"""

FISH = r"""# irons completion for fish: irons completion fish | source
complete -c irons -f -a '(irons __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""The completion script of each shell."""
