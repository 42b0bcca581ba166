"""Handlers of `local image …`: they work on the images themselves, so that nothing needs to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from irons.client.models.server import ImageInfo
from irons.errors import Conflict, IronsError, LocalError, NotFound, UsageError
from irons_local.bundle.machine import Machine
from irons_local.engines.vm.saved import exporting, saving
from irons_local.errors import EngineError
from irons_local.images.bootable import store
from irons_local.images.catalog import DEFAULT, MACHINE, Image, Images
from irons_plugins.local.backend import on_this_machine, paths_of

if TYPE_CHECKING:
    from irons.context import Context
    from irons_local.progress import Progress

_T = TypeVar("_T")
_ERRORS: dict[str, type[IronsError]] = {
    "absent": NotFound,
    "exists": Conflict,
    "state": Conflict,
    "input": UsageError,
}


def build(
    ctx: Context, *, name: str | None, mirror: str | None, include: tuple[str, ...], kind: str
) -> ImageInfo:
    """Build an image, on a machine that can run it."""
    _check_machine(ctx, building=True)
    machine = kind == "vm"

    async def built(images: Images, told: Progress) -> Image:
        made = await images.build(
            name or (MACHINE if machine else DEFAULT),
            mirror=mirror,
            include=include,
            machine=machine,
            progress=told,
        )
        if machine:
            async with images.keeping():
                await store.ensure(images, images.by_id(made.id), told)
        return made

    return _row(_do(ctx, built))


def list_of_server(ctx: Context) -> tuple[ImageInfo, ...]:
    """Return the images of the server that the settings choose, newest first."""
    ctx.api.need("images", "a server that lists its images")
    return ctx.api.images()


def list_images(ctx: Context) -> tuple[ImageInfo, ...]:
    """Return the images, newest first."""
    if ctx.settings.api_url != "local":
        ctx.progress("irons: these are this machine's images; irons image list shows those of the server")
    images = _images(ctx)
    if any(layer.size is None for layer in images.layers.listed()):
        # What a daemon that runs would do within seconds; without it, the images are there all the same.
        try:
            _do(ctx, lambda images, _: images.layers.count())
        except IronsError as error:
            ctx.progress(f"irons: the sizes of some images are not known: {error.message}")
    return tuple(_row(image, images.size(image)) for image in images.listed())


def import_image(ctx: Context, *, tar: str, name: str | None) -> ImageInfo:
    """Make an image of an archive, on a machine that can run it."""
    _check_machine(ctx, building=False)
    called = name or Path(tar).name.partition(".")[0]
    return _row(_do(ctx, lambda images, told: images.import_(Path(tar), called, progress=told)))


def pull(ctx: Context, *, reference: str, name: str | None) -> ImageInfo:
    """Make an image of one at a registry, on a machine that can run it."""
    _check_machine(ctx, building=False)
    return _row(_do(ctx, lambda images, told: images.pull(reference, name or "", progress=told)))


def pull_missing(ctx: Context, name: str) -> None:
    """Pull the image that a sandbox is to start from, where its name is a reference and it is not there yet; print a note.

    A name without place, tag and digest is one of this machine: a typing error must not ask a registry.
    """
    from irons_local.images.sources.reference import Reference

    where = Reference.parse(name)
    if where is None or where.is_plain or _images(ctx).find(name) is not None:
        return
    ctx.progress(f"there is no image {name} here: pulling it")
    _check_machine(ctx, building=False)
    made = _do(ctx, lambda images, told: images.pull(name, progress=told, share=True))
    ctx.progress(f"{name} is here now, as {made.digest}")


def export_image(ctx: Context, *, file: str, name: str) -> None:
    """Write an image to a file."""

    async def exported(images: Images, told: Progress) -> None:
        image, path = images.named(name), Path(file)
        if image.disk:
            await exporting.export(images, image, path, told)
        else:
            await images.export(name, path, progress=told)

    _do(ctx, exported)


def save(ctx: Context, *, name: str, image: str | None) -> ImageInfo:
    """Make an image of a stopped sandbox."""
    with on_this_machine(ctx) as here:
        sandbox = here.api.status(name)
    if sandbox.status != "stopped":
        raise Conflict(f"sandbox {name} is {sandbox.status}", hint=f"irons stop {name} first")
    called = image or name
    home = paths_of(ctx.settings).sandboxes / sandbox.id
    if not Machine.is_virtual(home):
        return _row(_do(ctx, lambda images, told: images.save(sandbox.id, called, progress=told)))
    ctx.progress(f"irons: {called} has all that is on the disk of {name}, keys that were put into files too")
    return _row(_do(ctx, lambda images, _: saving.save(images, home, called)))


def remove(ctx: Context, *, name: str) -> None:
    """Remove an image."""
    _do(ctx, lambda images, _: images.remove(name))


def _images(ctx: Context) -> Images:
    paths = paths_of(ctx.settings)
    return Images(paths.images, paths.sandboxes)


def _check_machine(ctx: Context, *, building: bool) -> None:
    """Refuse what takes long on a machine that could not run the image.

    Raises:
        LocalError: a check of `irons doctor` fails; the hint is its fix.
    """
    from irons_local.doctor import readiness

    check = readiness.obstacle(paths_of(ctx.settings), building=building)
    if check is not None:
        error = readiness.refused(check)
        raise LocalError(error.message, hint=error.hint)


def _do(ctx: Context, work: Callable[[Images, Progress], Coroutine[object, object, _T]]) -> _T:
    """Do something with the images while the progress is shown."""
    paths_of(ctx.settings).create()
    with ctx.waiting("image") as spinner:

        def told(line: str, done: float | None) -> None:
            spinner.tell(line if done is None else f"{line} {done:4.0%}")

        try:
            return asyncio.run(work(_images(ctx), told))
        except EngineError as failed:
            from irons_local.doctor import readiness

            error = readiness.explained(failed, paths_of(ctx.settings))
            raise _ERRORS.get(error.code, LocalError)(error.message, hint=error.hint) from None


def _row(image: Image, size: int | None = None) -> ImageInfo:
    # The layers of one that was saved just now are counted later.
    size = size if image.layers else image.size
    created = datetime.fromtimestamp(image.created_at / 1e6, UTC)
    return ImageInfo(image.name, created, size, image.os, image.source, image.digest, image.kind)
