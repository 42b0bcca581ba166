"""`irons __complete`: what a shell asks at every Tab, answered from what is on hand, and the scripts that ask it.

One line a candidate, `value<TAB>description`; a line that is `FILES_LINE` says that file names may come here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.cli.completing import FILES, complete
from irons.cli.on_hand import sources_of

if TYPE_CHECKING:
    from irons.settings.settings import Settings

FILES_LINE = ":files"
"""Says that files may come here; no candidate begins with a colon."""


def answer(words: Sequence[str]) -> int:
    """Print the candidates for the last of `words`; nothing at all where something is wrong."""
    from irons.host import PluginHost

    on_hand = _OnHand(words)
    host = PluginHost(_environment(words), warn=lambda _: None)
    sources = sources_of(on_hand.settings, on_hand.read, lambda: os.environ, host)
    lines: list[str] = []
    for candidate in complete(host.tree, words, sources):
        if candidate == FILES:
            lines.append(f"{FILES_LINE}\n")
        elif candidate.word.isprintable() and not candidate.word.startswith(":"):
            lines.append(f"{candidate.word}\t{_plain(candidate.about)}\n")
    try:
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
    except BrokenPipeError:
        from irons.cli.silence import silence_stdio

        return silence_stdio()
    return 0


class _OnHand:
    """What earlier commands left in the cache, read when it is asked for."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._loaded: Settings | None = None
        self._tried = False

    def read(self, what: str) -> Mapping[str, str]:
        """Return what a cache holds, and have it refreshed by a process of its own where it is old."""
        from irons.client.names import STALE, NameCache

        settings = self.settings()
        if settings is None:
            return {}
        names = NameCache.of(settings, what=what)
        if STALE < names.age() < float("inf"):
            from irons.client.refreshing import refresh_detached

            refresh_detached(settings)
        return names.read()

    def settings(self) -> Settings | None:
        """Return the settings that hold for these words; None where they are invalid."""
        if not self._tried:
            from irons.cli.parsing import scan_globals
            from irons.errors import IronsError
            from irons.settings.settings import load

            self._tried = True
            with suppress(IronsError):
                self._loaded = load(dict(scan_globals(self._words).anywhere))
        return self._loaded


def _environment(words: Sequence[str]) -> Mapping[str, str]:
    """The environment of the plugins: with `--no-plugins` none of a third party."""
    return {**os.environ, "IRONS_PLUGINS": ""} if "--no-plugins" in words else os.environ


def _plain(about: str) -> str:
    from irons.text import clean

    return clean(about)


BASH = r"""# irons completion for bash: eval "$(irons completion bash)"
_irons() {
    # bash breaks words at colons and equals signs; irons is asked with the words as they were typed.
    local cur before typed space line="${COMP_LINE:0:COMP_POINT}" candidate
    local -a words=() files=()
    local -i i
    for ((i = 1; i <= COMP_CWORD; i++)); do
        if ((i > 1)) && [[ ${COMP_WORDS[i]} == [:=]* || ${COMP_WORDS[i-1]} == *[:=] ]] &&
            [[ $line == *"${words[-1]}${COMP_WORDS[i]}"* ]]; then
            words[-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
    done
    cur=${words[-1]}
    before=${cur%"${COMP_WORDS[COMP_CWORD]#[:=]}"}
    # A character after a backslash is a part of the word.
    IFS= read typed <<<"$cur"
    words[-1]=$typed
    COMPREPLY=()
    while IFS= read -r candidate; do
        if [[ $candidate == :files ]]; then
            while IFS= read -r candidate; do files+=("$candidate"); done < <(compgen -f -- "${cur#"$before"}")
            continue
        fi
        candidate=${candidate%%$'\t'*}
        [[ $candidate == "$typed"* ]] || continue
        [[ $candidate == *[/:] ]] || space=1
        COMPREPLY+=("$(printf %q "${candidate#"$before"}")")
    done < <(irons __complete "${words[@]}" 2>/dev/null)
    if ((${#COMPREPLY[@]} == 0)); then
        compopt -o filenames 2>/dev/null
        COMPREPLY=("${files[@]}")
        return
    fi
    # With -o filenames bash would quote the other words again.
    for candidate in "${files[@]}"; do
        if [[ -d $candidate ]]; then candidate+=/; else space=1; fi
        COMPREPLY+=("$(printf %q "$candidate")")
    done
    [[ $space ]] || compopt -o nospace 2>/dev/null
}
complete -F _irons irons
"""

ZSH = r"""#compdef irons
# irons completion for zsh: irons completion zsh > "${fpath[1]}/_irons", or eval "$(irons completion zsh)" after compinit
_irons() {
    local -a lines open
    lines=("${(@f)$(irons __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if (( ${lines[(I):files]} )); then
        _files
        lines=("${(@)lines:#:files}")
    fi
    lines=("${(@)lines:#}")
    (( $#lines )) || return 0
    lines=("${(@)lines//:/\\:}")
    # What goes on after a slash or a colon gets no space.
    open=("${(@)${(@M)lines:#*[/:]$'\t'*}/$'\t'/:}")
    lines=("${(@)${(@)lines:#*[/:]$'\t'*}/$'\t'/:}")
    _describe -t values irons lines -- open -S ''
}
if [[ $funcstack[1] == _irons ]]; then _irons "$@"; else compdef _irons irons; fi
"""

FISH = r"""# irons completion for fish: irons completion fish | source
function __irons_complete
    set -l typed (commandline -ct | string unescape 2>/dev/null; or commandline -ct)
    for line in (irons __complete (commandline -opc)[2..] $typed 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path $typed
        else
            echo $line
        end
    end
end
complete -c irons -f -a '(__irons_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""The completion script of each shell."""
