"""The classic builder: each instruction of a Dockerfile makes an image on top of the one before."""

from __future__ import annotations

import asyncio
import posixpath
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import IO, Any, Final, cast

from dbt.containers.build.cache import StepCache
from dbt.containers.build.copying import Copy, Source, copy, find_sources, owner_of
from dbt.containers.build.dockerfile import Instruction, parse, read_instruction
from dbt.containers.build.downloads import download
from dbt.containers.build.effects import EFFECTS, command_of, working_folder
from dbt.containers.build.failures import BadDockerfile, BuildFailed
from dbt.containers.build.ignore import is_ignored
from dbt.containers.build.layer_writer import LayerWriter
from dbt.containers.build.options import BuildOptions
from dbt.containers.build.running import Machines, Step, new_id, run
from dbt.containers.build.stages import Plan, Stage, check, plan
from dbt.containers.build.state import Arguments, State
from dbt.containers.build.trees import Context, ImageTree
from dbt.containers.build.words import expand
from dbt.containers.images.errors import ImageError, ImageNotFound
from dbt.containers.images.image import Image, Layer
from dbt.containers.images.reference import Reference
from dbt.containers.images.registry.credentials import NOBODY
from dbt.containers.images.registry.messages import short
from dbt.containers.images.registry.platforms import read_platform
from dbt.containers.images.registry.registries import Registries
from dbt.containers.images.store import ImageStore
from dbt.containers.images.view import FilesView

_MOST_DOCKERFILE: Final = 4 << 20
_NO_BUILDKIT: Final = "Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled"


class Builder:
    """Does one build. ``say`` gets docker's messages, and ``drain`` is awaited where many may come."""

    def __init__(
        self,
        store: ImageStore,
        machines: Machines,
        registries: Registries,
        folder: str,
        options: BuildOptions,
        say: Callable[[dict[str, Any]], None],
        drain: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._machines = machines
        self._registries = registries
        self._folder = folder
        self._options = options
        self._say = say
        self._drain = drain
        self._arguments = Arguments(options.arguments)
        self._escape = "\\"
        self._container = ""
        self._done: list[tuple[str, Image | None]] = []

    def _tell(self, text: str) -> None:
        self._say({"stream": text})

    async def build(self, context: Context) -> Image:
        """Build what a context says, and return the image. Raise ImageError."""
        document = await asyncio.to_thread(self._dockerfile, context)
        dockerfile = parse(document)
        self._escape = dockerfile.escape
        if dockerfile.empty_lines:
            found = "[WARNING]: Empty continuation line found in:"
            warnings = "".join(f"{found}\n    {one}\n" for one in dockerfile.empty_lines)
            ending = "[WARNING]: Empty continuation lines will become errors in a future release.\n"
            self._tell(f"\x1b[91m{warnings}{ending}\x1b[0m")
        wanted = plan(dockerfile, self._options.target)
        self._context = context
        self._cache = await asyncio.to_thread(StepCache, self._store, self._options.cache_sources)
        image = await self._stages(wanted)
        if left := self._arguments.left_over():
            self._tell(f"[Warning] One or more build-args [{' '.join(left)}] were not consumed\n")
        if image is None:
            raise BuildFailed("No image was generated. Is your Dockerfile empty?")
        self._tell(f"Successfully built {short(image.id)}\n")
        for name in self._options.names:
            await asyncio.to_thread(self._store.tag, image, name)
            self._tell(f"Successfully tagged {name.familiar}\n")
        return image

    def _dockerfile(self, context: Context) -> bytes:
        name = posixpath.normpath(self._options.dockerfile).lstrip("/")
        found = context.read(name, _MOST_DOCKERFILE)
        if found is None and name == "Dockerfile":
            name = "dockerfile"
            found = context.read(name, _MOST_DOCKERFILE)
        if found is None:
            raise BuildFailed(f"Cannot locate specified Dockerfile: {self._options.dockerfile}")
        if not found.strip():
            raise BadDockerfile(f"the Dockerfile ({name}) cannot be empty")
        ignored = (context.read(".dockerignore", _MOST_DOCKERFILE) or b"").decode("utf-8", "replace")
        for path in (name, ".dockerignore"):
            if is_ignored(ignored, path):
                context.remove(path)
        return found

    # -- stages ------------------------------------------------------------------------------------

    async def _stages(self, wanted: Plan) -> Image | None:
        labels = [self._label(name, value) for name, value in sorted(self._options.labels.items())]
        wanted.stages[-1].steps.extend(labels)
        number = 0
        count = wanted.count
        for instruction in wanted.arguments:
            number += 1
            self._tell(f"Step {number}/{count} : {instruction.text}")
            self._tell("\n")
            for name, value in instruction.pairs:
                found = None if value is None else self._expand(value, self._arguments.before_stages())
                self._arguments.declare_before_stages(name, found)
        for stage in wanted.stages:
            number += 1
            state = await self._begin(stage, f"Step {number}/{count} : {stage.source.text}")
            for instruction in stage.steps:
                number += 1
                self._tell(f"Step {number}/{count} : {instruction.text}")
                self._tell("\n")
                await self._step(state, instruction)
                self._tell(f" ---> {short(state.id)}\n")
            if state.image is not None:
                self._say({"aux": {"ID": state.id}})
            self._done.append((stage.name, state.image))
        return self._done[-1][1]

    def _label(self, name: str, value: str) -> Instruction:
        return Instruction("label", f"LABEL {name}={value}", "", 0, pairs=((_quoted(name), _quoted(value)),))

    async def _begin(self, stage: Stage, step: str) -> State:
        """Begin a stage with its image."""
        self._tell(step)
        self._tell("\n")
        self._arguments.begin_stage()
        variables = self._arguments.before_stages()
        name = self._expand(stage.base, variables)
        if not name:
            raise BuildFailed(f"base name ({stage.base}) should not be blank")
        read_platform(self._expand(stage.platform, variables) or self._options.platform)
        if name == "scratch":
            state = State.of(None)
            self._tell(" ---> \n")
            return state
        image = self._stage_named(name) or await self._image(name)
        triggers = [str(one) for one in (image.config.run.on_build if image.config.run else None) or []]
        state = State.of(image)
        if triggers:
            self._tell(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}")
            self._tell("\n")
        for trigger in triggers:
            instruction = read_instruction(trigger, "\\")
            check(instruction, "\\")
            await self._step(state, instruction)
        self._tell(f" ---> {short(state.id)}\n")
        return state

    def _stage_named(self, name: str) -> Image | None:
        for one, image in reversed(self._done):
            if one and one == name.lower():
                return image
        return None

    async def _image(self, name: str) -> Image:
        """Return an image, which is pulled if it is not here."""
        if not self._options.pulls:
            try:
                return await asyncio.to_thread(self._store.find, name)
            except ImageNotFound:
                pass
        reference = Reference.parse(name).with_default_tag()
        known = self._options.credentials.get(reference.domain, NOBODY)
        return await self._registries.pull(reference, self._say, known, self._options.platform)

    # -- steps -------------------------------------------------------------------------------------

    async def _step(self, state: State, instruction: Instruction) -> None:
        """Do an instruction, after which the state has another image."""
        self._container = ""
        try:
            await self._dispatch(state, instruction)
        except BaseException:
            if self._container and self._options.always_removes:
                self._tell(f"Removing intermediate container {short(self._container)}\n")
            raise
        if self._container and (self._options.removes or self._options.always_removes):
            self._tell(f"Removing intermediate container {short(self._container)}\n")

    async def _dispatch(self, state: State, instruction: Instruction) -> None:
        def value(word: str) -> str:
            return self._expand(word, self._arguments.in_stage() | state.variables)

        for flag in ("mount", "network", "security", "chmod"):
            if flag in instruction.flags:
                raise BuildFailed(f"the --{flag} option requires BuildKit. {_NO_BUILDKIT}")
        match instruction.name:
            case "run":
                await self._run(state, instruction)
            case "copy" | "add":
                await self._copy(state, instruction, value)
            case "workdir":
                await self._workdir(state, working_folder(state, instruction, value))
            case "arg":
                for name, default in instruction.pairs:
                    self._arguments.declare(value(name), None if default is None else value(default))
                shown = " ".join(name if one is None else f"{name}={one}" for name, one in instruction.pairs)
                await self._commit_comment(state, f"ARG {shown}")
            case _:
                if instruction.name == "healthcheck":
                    self._note_health(state)
                await self._commit_comment(state, EFFECTS[instruction.name](state, instruction, value))

    def _expand(self, word: str, variables: dict[str, str]) -> str:
        return expand(word, variables, self._escape)

    def _note_health(self, state: State) -> None:
        old = (state.config.get("Healthcheck") or {}).get("Test") or []
        if old and old[0] != "NONE":
            self._tell(f"Note: overriding previous HEALTHCHECK: [{' '.join(old)}]\n")

    async def _commit_comment(self, state: State, text: str) -> None:
        container = state.comment(text)
        if not await self._is_cached(state, container):
            self._begin_container()
            await self._commit(state, container, None)

    def _begin_container(self) -> None:
        self._container = new_id()
        self._tell(f" ---> Running in {short(self._container)}\n")

    async def _workdir(self, state: State, folder: str) -> None:
        state.config["WorkingDir"] = folder
        container = state.comment(f"WORKDIR {folder}", is_spaced=False)
        if await self._is_cached(state, container):
            return
        self._begin_container()

        def make(writer: LayerWriter) -> None:
            writer.make_folder(writer.settled(folder), (0, 0))

        await self._commit(state, container, await self._written(state, make))

    async def _run(self, state: State, instruction: Instruction) -> None:
        command = command_of(state, instruction)
        declared = {name: one for name, one in self._arguments.in_stage().items() if name not in state.variables}
        predefined = self._arguments.predefined()
        saved = [f"{name}={one}" for name, one in sorted(declared.items())]
        probe = state.with_command([f"|{len(saved)}", *saved, *command] if saved else command)
        if await self._is_cached(state, probe):
            return
        self._begin_container()
        env = [*state.config["Env"], *saved, *(f"{name}={one}" for name, one in predefined.items())]
        config = state.config | {"Env": env}
        step = Step(
            self._container,
            state.layers,
            tuple(command),
            config,
            self._options.memory,
            self._options.ulimits,
            self._options.shm_size,
        )
        file = await run(self._machines, step, self._folder, self._tell, self._drain)
        await self._commit(state, probe, await self._added(file) if file else None)

    # -- images ------------------------------------------------------------------------------------

    async def _is_cached(self, state: State, container: dict[str, Any]) -> bool:
        """Take the image that a step has made before, if there is one. After a step without, none is looked for."""
        if not self._options.uses_cache or state.is_missing_cache:
            return False
        found = await asyncio.to_thread(self._cache.find, state, container)
        if found is None:
            state.is_missing_cache = True
            return False
        self._tell(" ---> Using cache\n")
        state.image = found
        return True

    async def _commit(self, state: State, container: dict[str, Any], layer: Layer | None) -> None:
        document = state.document(container, self._container, layer)
        state.image = await asyncio.to_thread(self._store.add_image, document, (), state.id or None)

    async def _added(self, file: IO[bytes]) -> Layer:
        with file:
            file.seek(0)
            return await asyncio.to_thread(self._store.add_layer, cast("Any", file))

    async def _written(self, state: State, write: Callable[[LayerWriter], None]) -> Layer | None:
        """Return the layer that is written above the files of a state, or None if it changes nothing."""
        return await asyncio.to_thread(self._write_layer, state.layers, write)

    def _write_layer(self, layers: tuple[Layer, ...], write: Callable[[LayerWriter], None]) -> Layer | None:
        with _files(layers) as files, tempfile.TemporaryFile(dir=self._folder) as file:
            writer = LayerWriter(file, files, time.time())
            write(writer)
            writer.close()
            file.seek(0)
            return None if writer.is_empty else self._store.add_layer(cast("Any", file))

    # -- COPY and ADD ------------------------------------------------------------------------------

    async def _copy(self, state: State, instruction: Instruction, value: Callable[[str], str]) -> None:
        verb = instruction.name.upper()
        *names, target = (value(word) for word in instruction.words)
        chown = value(instruction.flags.get("chown", ""))
        origin = instruction.flags.get("from", "")
        layers = (await self._origin(origin, verb)).layers if origin else ()
        place = posixpath.join(state.config.get("WorkingDir") or "/", target)
        place = "/" + place if not place.startswith("/") else place
        with FilesView(layers) as files:
            tree = ImageTree(files) if origin else self._context

            def find() -> tuple[Source, ...]:
                found: list[Source] = []
                for name in names:
                    if verb == "ADD" and name.startswith(("http://", "https://")):
                        found.append(download(name, self._folder))
                    else:
                        found += find_sources(verb, tree, [name], bool(origin))
                return tuple(found)

            sources = await asyncio.to_thread(find)
            wanted = Copy(verb, sources, place, None if origin and not chown else (0, 0), verb == "ADD")
            flags = f"--chown={chown}" if chown else ""
            container = state.comment(f"{verb} {flags}{wanted.digest} in {target} ", is_spaced=False)
            if await self._is_cached(state, container):
                return

            def write(writer: LayerWriter) -> None:
                owned = wanted
                if chown:
                    with _files(state.layers) as below:
                        owned = replace(wanted, owner=owner_of(chown, below))
                copy(owned, writer, self._folder)

            layer = await self._written(state, write)
        await self._commit(state, container, layer)

    async def _origin(self, name: str, verb: str) -> Image:
        """Return the image that ``--from`` means: a stage, by its name or number, or any other."""
        image = self._stage_named(name)
        if image is None and name.isdigit():
            if int(name) >= len(self._done):
                what = "refers to current build stage" if int(name) == len(self._done) else "index out of bounds"
                raise BuildFailed(f"invalid from flag value {name}: {what}")
            image = self._done[int(name)][1]
        try:
            return image or await self._image(name)
        except ImageError as error:
            raise BuildFailed(f"invalid from flag value {name}: {error}") from None


def _files(layers: Sequence[Layer]) -> AbstractContextManager[FilesView | None]:
    """Return the files of layers, or None if there is none."""
    return FilesView(layers) if layers else nullcontext()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
