"""Saving a sandbox of the namespace engine as an image, with real machines on both; run by `engine_run` as root and as a user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from irons_plugins.local.engines.conformance import Bench, expect
from irons_plugins.local.image import Images

_CHANGES = (
    "mkdir -p work/deep .ssh && echo kept > work/deep/file && ln work/deep/file work/link && echo k > .ssh/authorized_keys"
    " && sudo rm /etc/os-release /etc/debian_version && sudo sh -c 'rm -r /usr/share/doc; mkdir /usr/share/doc;"
    " echo new > /usr/share/doc/new; cp /usr/bin/true /srv/able; chmod 751 /; touch /etc/ssh/ssh_host_rsa_key'"
)
_LOOK = "cat work/deep/file; stat -c %h work/link; ls /usr/share/doc; ls /etc/debian_version /srv/able 2>&1; stat -c %a /"
_SEEN = "kept\n2\nnew\nls: cannot access '/etc/debian_version': No such file or directory\n/srv/able\n"


async def a_save_is_shared_and_lasts(images: Images, bench: Bench) -> None:
    """The saved sandbox and a new one of its image see the same files and change them apart; only the first has its keys."""
    first, made = await bench.running("first")
    ran = await bench.ssh(first, made, _CHANGES)
    expect(ran.code == 0, f"the changes: {ran}")
    await bench.engine.stop(first)
    image = await images.save(first, "tools")
    expect(len(image.layers) == 2, f"it has the layers {image.layers}")
    await bench.engine.start(first)
    ran = await bench.ssh(first, made, f"{_LOOK}; cat .ssh/authorized_keys; hostname; cat /etc/hostname")
    expect(ran.text == f"{_SEEN}751\nk\nfirst\nfirst\n", f"the sandbox: {ran}")
    spec = replace(bench.spec("second"), image="tools")
    also = await bench.engine.create(spec)
    await bench.engine.start(spec.id)
    ran = await bench.ssh(spec.id, also, f"{_LOOK}; ls .ssh /etc/ssh/ssh_host*; cat /etc/hostname")
    expect(ran.text.startswith(f"{_SEEN}755\n") and ran.text.endswith("\nsecond\n"), f"the copy: {ran}")
    expect("authorized_keys\n" not in ran.text and "rsa_key\n" not in ran.text, f"the copy has keys: {ran}")
    for sandbox, known in ((first, made), (spec.id, also)):
        ran = await bench.ssh(
            sandbox, known, "echo more >> work/deep/file && cat work/deep/file && rm -r work && ls"
        )
        expect(ran.text == "kept\nmore\n", f"a change: {ran}")
    await bench.engine.stop(spec.id)
    await images.save(spec.id, "more")
    await bench.engine.destroy(first)
    await bench.engine.start(spec.id)
    ran = await bench.ssh(spec.id, also, "ls; ls /srv")
    expect(ran.text == "able\n", f"after the first is gone: {ran}")
    await images.remove("more")
    await bench.engine.destroy(spec.id)
    await images.remove("tools")
    left = list(images.layers.root.iterdir())
    expect(not left, f"layers are left: {left}")


LAYERS: dict[str, Callable[[Images, Bench], Awaitable[None]]] = {
    each.__name__: each for each in (a_save_is_shared_and_lasts,)
}
