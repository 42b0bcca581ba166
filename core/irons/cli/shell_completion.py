"""`irons __complete`: what a shell asks at every Tab, answered from what is on hand, and the scripts that ask it.

One line a candidate, `value<TAB>description`; a line that is `FILES_LINE` says that file names may come here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from irons.cli.completing import FILES, Sources, complete
from irons.settings.xdg import config_file

if TYPE_CHECKING:
    from irons.settings.settings import Settings

FILES_LINE = ":files"
"""Says that files may come here; no candidate begins with a colon."""


def answer(words: Sequence[str]) -> int:
    """Print the candidates for the last of `words`; nothing at all where something is wrong."""
    from irons.host import PluginHost

    on_hand = _OnHand(words)
    sources = Sources(
        on_hand.sandboxes,
        on_hand.domains,
        on_hand.images,
        on_hand.labels,
        topics=_topics,
        aliases=on_hand.aliases,
    )
    lines: list[str] = []
    for candidate in complete(PluginHost(warn=lambda _: None).tree, words, sources):
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

    def sandboxes(self) -> Mapping[str, str]:
        return self._read("names")

    def domains(self) -> Mapping[str, str]:
        return self._read("domains")

    def images(self) -> Mapping[str, str]:
        return self._read("images")

    def labels(self) -> Mapping[str, str]:
        return self._read("labels")

    def aliases(self) -> Mapping[str, str]:
        if not os.path.exists(config_file(os.environ)):  # noqa: PTH110 - pathlib would cost more than the look
            return {}
        settings = self._settings()
        return {} if settings is None else settings.aliases

    def _read(self, what: str) -> Mapping[str, str]:
        from irons.client.names import STALE, NameCache

        settings = self._settings()
        if settings is None:
            return {}
        names = NameCache.of(settings, what=what)
        if STALE < names.age() < float("inf"):
            from irons.client.refreshing import refresh_detached

            refresh_detached(settings)
        return names.read()

    def _settings(self) -> Settings | None:
        from irons.cli.parsing import scan_globals
        from irons.errors import IronsError
        from irons.settings.settings import load

        try:
            return load(dict(scan_globals(self._words).anywhere))
        except IronsError:
            return None


def _topics() -> Mapping[str, str]:
    from irons.cli.topics import TOPICS

    return dict.fromkeys(TOPICS, "topic")


def _plain(about: str) -> str:
    from irons.text import clean

    return clean(about)


BASH = r"""# irons completion for bash: eval "$(irons completion bash)"
_irons() {
    # bash breaks words at colons and equals signs; irons is asked with the words as they were typed.
    local cur before line="${COMP_LINE:0:COMP_POINT}" candidate
    local -a words=()
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
    COMPREPLY=()
    while IFS= read -r candidate; do
        if [[ $candidate == :files ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r candidate; do COMPREPLY+=("$candidate"); done < <(compgen -f -- "${cur#"$before"}")
            continue
        fi
        candidate=${candidate%%$'\t'*}
        [[ $candidate == "$cur"* ]] && COMPREPLY+=("$(printf %q "${candidate#"$before"}")")
    done < <(irons __complete "${words[@]}" 2>/dev/null)
}
complete -F _irons irons
"""

ZSH = r"""#compdef irons
# irons completion for zsh: irons completion zsh > "${fpath[1]}/_irons", or eval "$(irons completion zsh)" after compinit
_irons() {
    local -a lines
    lines=("${(@f)$(irons __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if (( ${lines[(I):files]} )); then
        _files
        lines=("${(@)lines:#:files}")
    fi
    lines=("${(@)lines:#}")
    (( $#lines )) || return 0
    lines=("${(@)lines//:/\\:}")
    lines=("${(@)lines/$'\t'/:}")
    _describe -t values irons lines
}
if [[ $funcstack[1] == _irons ]]; then _irons "$@"; else compdef _irons irons; fi
"""

FISH = r"""# irons completion for fish: irons completion fish | source
function __irons_complete
    set -l typed (commandline -ct)
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
