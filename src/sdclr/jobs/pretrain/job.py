"""JOB: config -> trained backbone in a run folder, resumable after any step.

config ─► data ─► backbone ─► method ─► for epoch: refresh masks, steps ─► checkpoint ─► backbone.safetensors
"""

from __future__ import annotations

import importlib.metadata
import itertools
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sdclr.backbones import (
    IMAGENET,
    Backbone,
    BackboneConfig,
    Normalisation,
    build_backbone,
    checkpoint_activations,
    contiguous_tails,
    input_constants,
    measure_feature_dim,
)
from sdclr.backbones.backbone import require_trainable_and_storable
from sdclr.backbones.image_sizes import SIZE_OPTIONS, fitted_to
from sdclr.backbones.weights import load_weights, normalisation_of, require_loadable, save_backbone
from sdclr.batch import Views
from sdclr.checkpoint import Checkpoint, first_not_finite, load_strictly
from sdclr.config import differing_fields
from sdclr.data import Data, build_data, epoch_batches, steps_per_epoch
from sdclr.data.contents import read_contents, require_recorded, write_record
from sdclr.data.decode import printable
from sdclr.data.image_store import DecodedStore
from sdclr.device import (
    Compiled,
    LateAnswer,
    autocast,
    compiled,
    describe_device,
    explain_out_of_memory,
    parameter_dtype,
    resolve_compile,
    resolve_device,
    resolve_memory_format,
    resolve_precision,
)
from sdclr.distributed import ALONE, GRACE_SECONDS, START_SECONDS, World, averaging_gradients, joined, world_size
from sdclr.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DistributedError,
    MissingInputError,
    NonFiniteError,
    Preempted,
    SdclrError,
    StorageError,
)
from sdclr.jobs.pretrain.log import LoggedProgress
from sdclr.jobs.pretrain.outcome import Outcome, require_no_history
from sdclr.jobs.pretrain.saver import Saver
from sdclr.jobs.pretrain.usable import usable_images
from sdclr.methods import SDCLRConfig, SimCLRConfig, build_method
from sdclr.methods.method import Method
from sdclr.methods.sdclr import SDCLR
from sdclr.methods.self_competitor import SMALL_SHARE
from sdclr.optim import (
    build_optimizer,
    learning_rate,
    restore_state,
    set_learning_rate,
    state_names,
    state_of,
    step_if,
)
from sdclr.presentation.progress import AnyProgress, NoProgress
from sdclr.process_state import default_generators, silenced_warnings
from sdclr.run import CHOICES_FILE, CONTENTS_FILE, IMAGES_FILE, Run, environment
from sdclr.run_consistency import require_own_backbone
from sdclr.settings import PretrainConfig
from sdclr.signals import StopRequest, stop_on_signal
from sdclr.stateless_random import Stream, derive
from sdclr.synchronised_norm import synchronise_norms


def pretrain(
    config: PretrainConfig,
    out: Path | str | None = None,
    *,
    network: nn.Module | None = None,
    download: bool = False,
    progress: AnyProgress | None = None,
    label: str | None = None,
    choices: Sequence[tuple[str, object, str]] = (),
) -> Run:
    """Pre-train as ``config`` says in the run folder ``out`` (default runs/<recipe>), going on where it stopped.

    ``network``: your own headless module, images [B, 3, S, S] -> features [B, F], with backbone.name=custom. It gets
    normalised images; one that normalises them itself needs backbone.normalisation=none.
    ``progress``: where to show progress (default: nowhere). ``choices``: settings that were chosen for the user, each
    with its value and the reason, which the run folder keeps for a reader. A finished run is returned as it is. Raises
    an :class:`~sdclr.errors.SdclrError` that says what to change; Preempted after a signal, with everything saved.
    """
    run = Run(out if out is not None else Path("runs") / config.recipe)
    show = LoggedProgress(progress or NoProgress())
    with (
        stop_on_signal(same_for_seconds=GRACE_SECONDS if world_size() > 1 else 0, announce=show.announce) as stop,
        joined(str(run.folder)) as world,
    ):
        if not world.is_first:
            _follow(config, run, network, world, stop)
            return run
        run.require_elsewhere(config.data.path, config.data.test_path)
        run.check(config)
        with explain_out_of_memory(memory_advice(config)):
            job = Job(config, network, download=download, run=run, show=show, world=world)
        with run, show.written_to(run.folder):
            run.check(config)  # again, now that nobody else can write here
            outcome = Outcome(run, job.total_steps)
            advice = memory_advice(config)
            with outcome.told(lambda: job.step), explain_out_of_memory(advice), world.explaining(), job.saver:
                job.start(run, show, choices)
                world.say(_READY, {"step": job.step, "finished": job.step == job.total_steps})
                if job.step < job.total_steps:
                    outcome.write("running", job.step)
                    job.meet()
                    stop.awaited = True
                    job.train(run, show, stop, label or f"{config.recipe} {run.folder}")
                else:
                    show.print(f"{run.folder} is finished: {config.epochs} epochs, {job.step} steps.")
                if not run.backbone_path.is_file():
                    job.save_backbone(run)
    return run


_READY = "run folder ready at step"


def _follow(config: PretrainConfig, run: Run, network: nn.Module | None, world: World, stop: StopRequest) -> None:
    """What every process but the first does: wait for the run folder, read it, train along, write nothing."""
    ready = world.heard(_READY)
    run.check(config)
    if ready["finished"]:
        return
    with explain_out_of_memory(memory_advice(config)), world.explaining():
        with silenced_warnings():  # the first process has said the same
            job = Job(config, network, run=run, show=NoProgress(), world=world)
            job.follow(run, ready["step"])
        job.meet()
        stop.awaited = True
        job.train(run, NoProgress(), stop, "")


def resume(folder: Path | str, *, network: nn.Module | None = None, progress: AnyProgress | None = None) -> Run:
    """Go on with the run in ``folder`` by its own config; a finished run says so and is returned."""
    run = Run(folder).require()
    return pretrain(PretrainConfig.from_yaml(run.config_path), folder, network=network, progress=progress)


def memory_advice(config: PretrainConfig) -> str:
    """What to change when the memory does not suffice."""
    cost = f"batch_size (now {config.batch_size}), views.size (now {config.views.size}) or backbone.width"
    return f"Lower {cost}; or set activation_checkpointing=true, or precision=bf16."


HALF = 0.5
"""Share of prunable weights below which a run warns."""
EPOCHS_BETWEEN_SAVES = 10
SAVING_SHARE = 0.02
"""Of a run's time, at most, where checkpoint_every_epochs leaves it open."""


class Job:
    """The moving parts of one run, built from the config before anything is written."""

    def __init__(
        self,
        config: PretrainConfig,
        network: nn.Module | None = None,
        *,
        download: bool = False,
        run: Run | None = None,
        show: AnyProgress,
        world: World = ALONE,
    ) -> None:
        """``run``: the folder it is for, which may hold its beginning; None for a preview."""
        resuming = run is not None and (bool(run.checkpoints) or run.backbone_path.is_file())
        self.config, self.world = config, world
        self.device = world.device(resolve_device(config.device))
        self.precision = resolve_precision(config.precision, self.device)
        self.compile = resolve_compile(config.compile, self.device, several=world.several)
        self.data: Data = build_data(config.data, download=download, exclude=[run.folder] if run is not None else [])
        if run is not None and run.exists:
            self._require_same_names(run)  # before every file is decoded
        for remark in self.data.remarks:
            show.print(remark)
        found = self.data.pretraining_images(config.data.subset)
        images, self.image_facts = usable_images(
            found,
            config.data,
            self.data.fingerprint,
            self.device,
            run,
            show,
            self.data.class_names,
            self.data.test,
        )
        self.steps_per_epoch = steps_per_epoch(len(images), config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        world.require_images(len(images) - (self.steps_per_epoch - 1) * config.batch_size)
        warmup = config.optimizer.warmup_epochs
        self.warmup_epochs = min(10.0, config.epochs / 10) if warmup is None else warmup
        if self.warmup_epochs >= config.epochs:
            warnings.warn(
                f"optimizer.warmup_epochs={self.warmup_epochs:g} is not shorter than the run ({config.epochs} epochs): "
                "the learning rate never reaches its peak.",
                stacklevel=3,
            )
        recorded = _recorded_choices(run, config)
        self.architecture = _architecture(config, recorded)
        if words := _fitted_words(self.architecture, config):
            show.print(words)
        with default_generators(derive(config.seed, Stream.WEIGHTS), self.device):
            self.backbone = _backbone(self.architecture, network)
            self.feature_dim = measure_feature_dim(self.backbone, config.views.size)
            if not resuming:  # a checkpoint holds what became of them
                if ":" in config.backbone.name:  # hours later would be too late
                    require_loadable(self.backbone, self.architecture, config.views.size)
                said = show if recorded is None else NoProgress()
                _load_starting_weights(self.backbone, config, self.architecture, said)
            if recorded is not None:
                self.backbone.normalise_with(**recorded["normalisation"])
            if config.activation_checkpointing:
                checkpoint_activations(self.backbone.net)
            self.memory_format = resolve_memory_format(config.memory_format, self.backbone, self.device)
            fused = self.device.type == "cuda" and not self.compile
            prepare = partial(synchronise_norms, fused=fused) if world.several else nn.Identity()
            settings = _method_settings(config, recorded)
            method = build_method(settings, self.backbone, self.feature_dim, config.seed, prepare)
            self.choices = _choices(self.architecture, self.backbone, method)
            self.method: Method = method.to(self.device, parameter_dtype(self.precision)).to(
                memory_format=self.memory_format
            )
        if config.memory_format == "auto" and self.device.type == "cpu":
            contiguous_tails(self.method, config.views.size)
        self.compiled: Compiled | None = None
        if self.compile:
            self.compiled = compiled(
                # of several processes, what averages gradients lies around it, and does not compile
                self.method.forward if world.several else self.method,
                f"method {config.method.name}",
                cuda_graphs=self.compile == "cuda-graphs",
                required=world.several,
            )
        self.loss_per_image: Callable[[Views], Tensor] = self.compiled or self.method
        self.images = images.to(self.device)
        self.views_cut_by = "threads or memory"  # of two forms that agree but for rounding
        if isinstance(self.images, DecodedStore):
            show.print(self.images.describe())
            self.views_cut_by = "threads or memory" if self.images.resident is None else "device, out of a store"
        self.optimizer = build_optimizer(
            self.method.parameters(),
            **config.optimizer.model_dump(include={"name", "momentum", "weight_decay", "decay_norms_and_biases"}),
        )
        self.step = 0
        self.waited_seconds = 0.0  # for views, in this epoch so far
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)  # of the epoch so far
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)  # every loss up to now
        # of the last step, not looked at yet: ``finite`` after it, and its number
        self.unread: tuple[LateAnswer, int] | None = None
        self.stop = StopRequest()
        # whether any process was asked to stop by the last step, and by the one before
        self.votes: tuple[LateAnswer | None, LateAnswer | None] = (None, None)
        self.saver = Saver(self.device)
        # the last save: when it was, and how long the loop waited for it
        self.saved_step, self.saved_seconds, self.save_seconds = 0, time.monotonic(), 0.0

    def _require_same_names(self, run: Run) -> None:
        """ConfigError that counts the files that are new and gone since the run began."""
        saved = run.read_json("split.json", "fingerprint")["fingerprint"]
        if saved != self.data.fingerprint:
            files = self.data.files(self.config.data.subset)
            require_recorded(run.folder / CONTENTS_FILE, files, saved, self.data.fingerprint)

    def learning_rate(self, step: int) -> float:
        optimizer = self.config.optimizer
        return learning_rate(
            step,
            peak=optimizer.learning_rate,
            total_steps=self.total_steps,
            warmup_steps=self.warmup_epochs * self.steps_per_epoch,
            final=optimizer.final_learning_rate,
        )

    def start(self, run: Run, show: AnyProgress, choices: Sequence[tuple[str, object, str]] = ()) -> None:
        """Write the folder's facts, or pick up its newest checkpoint."""
        if not run.exists:
            layout = str(self.memory_format).removeprefix("torch.")
            computed = {"precision": self.precision, "memory_format": layout, "compile": self.compile}
            computed["views_cut_by"] = self.views_cut_by
            seen = environment(describe_device(self.device), self.world.size)
            run.write_json("environment.json", seen | computed | {"resolved": self.choices})
            run.write_json("split.json", self.data.manifest())
            if self.image_facts is not None:
                run.write_json(IMAGES_FILE, self.image_facts)
            self._record_images(run, show)
            if choices:
                rows = [{"setting": name, "value": value, "reason": reason} for name, value, reason in choices]
                run.write_json(CHOICES_FILE, {"choices": rows})
            run.write_text("config.yaml", self.config.to_yaml())  # last: it makes the folder a run
        else:
            saved = run.read_json("split.json", "fingerprint")["fingerprint"]
            files = self.data.files(self.config.data.subset)
            require_recorded(run.folder / CONTENTS_FILE, files, saved, self.data.fingerprint)
            run.require_classes(self.data.class_names)
            before = run.read_json("environment.json").get("views_cut_by", self.views_cut_by)
            if before != self.views_cut_by:
                warnings.warn(
                    f"views are cut by {self.views_cut_by} now, and were by {before} (data.store, data.placement, free "
                    "memory): from here on they agree with those of an uninterrupted run but for rounding.",
                    stacklevel=2,
                )
            sizes = run.read_json("environment.json").get("world_size", 1), self.world.size
            if sizes[0] != sizes[1]:
                warnings.warn(
                    f"{sizes[1]} processes go on with a run of {sizes[0]}: from here on it agrees with an "
                    "uninterrupted one but for rounding.",
                    stacklevel=2,
                )
            if not run.checkpoints and "resolved" not in (facts := run.read_json("environment.json")):
                # begun by an earlier version and not yet under way: from here on this is what it goes on with
                run.write_json("environment.json", facts | {"resolved": self.choices})
            if self.config.completed(run.settings()) != self.config.to_dict():  # the data have moved, for example
                run.write_text("config.yaml", self.config.to_yaml())
        if run.backbone_path.is_file():
            require_own_backbone(run)
            self.step = self.total_steps  # finished, whatever has become of its checkpoints
            return
        checkpoint = run.checkpoints.newest()
        if checkpoint is not None:
            self._restore(checkpoint, f"checkpoint of step {checkpoint.step} in {run.folder}")
        else:
            require_no_history(run)
        run.cut_metrics(checkpoint.facts["metrics_size"] if checkpoint else 0)
        if checkpoint is None:
            self._save(run, read_back=True)  # a full or faulty disk shows before hours are spent
        if self.step < self.total_steps:
            begun = f"resuming at step {self.step} of {self.total_steps}" if self.step else "starting"
            show.print(
                f"{begun}: {len(self.images)} images, {self.steps_per_epoch} steps an epoch, {self.config.epochs} "
                f"epochs, warm-up {self.warmup_epochs:g} epochs"
                f"{'' if self.config.optimizer.warmup_epochs is not None else ' (= min(10, epochs / 10))'}, "
                f"{self.precision} on {describe_device(self.device)}"
                f"{f', {self.world.size} processes' if self.world.several else ''}"
            )
            if words := self._competitor_words():
                show.print(words)
            self._warn_of_a_small_share()

    def _warn_of_a_small_share(self) -> None:
        """Below one half; far below it the competitor has said so itself."""
        share = self.method.competitor.prunable_share if isinstance(self.method, SDCLR) else 1.0
        if SMALL_SHARE <= share < HALF:
            warnings.warn(
                f"only {share:.1%} of the backbone's weights can be pruned, and the competitor differs little from "
                "the network itself. method.prunable=auto prunes linear layers, too, where they hold most weights.",
                stacklevel=3,
            )

    def _competitor_words(self) -> str | None:
        """What the competitor is pruned of, in relation to the whole backbone; None for a method without one."""
        if not isinstance(self.method, SDCLR):
            return None
        competitor = self.method.competitor
        asked = getattr(self.config.method, "prunable", competitor.prunable)
        by_itself = " by auto" if asked == "auto" else ""
        return (
            f"competitor: {competitor.prunable_share:.1%} of all backbone weights are prunable, "
            f"{competitor.prune_ratio:.0%} of these are masked (method.prunable={competitor.prunable}{by_itself})"
        )

    def _record_images(self, run: Run, show: AnyProgress) -> None:
        """What every image file holds: who reads them later can tell whether they are still the same."""
        files = self.data.files(self.config.data.subset)
        if not files:
            return
        task = show.add("recording contents", total=sum(map(len, files.values())), unit="images")
        record = {part: read_contents(images, (), partial(show.advance, task)) for part, images in files.items()}
        show.finish(task)
        # what was left out may be mended without harm
        left_out = {path for path, _ in (self.image_facts or {}).get("skipped", ())}
        record["train"] = [one for one in record["train"] if one.path not in left_out]
        write_record(run.folder / CONTENTS_FILE, record)

    def follow(self, run: Run, step: int) -> None:
        """Pick up the checkpoint of ``step``, which the first process has verified or just written."""
        checkpoint = run.checkpoints.at(step)
        self._restore(checkpoint, f"checkpoint of step {step} in {run.folder}")

    def meet(self) -> None:
        """Join the other processes; DistributedError unless they are about to do the same."""
        config = self.config
        facts = {
            "sdclr": importlib.metadata.version("sdclr"),
            "torch": torch.__version__,
            "data": self.data.fingerprint,
            "images": len(self.images),
            "step": self.step,
            "precision": self.precision,
        }
        first = self.world.of_first("facts", facts | {"settings": config.to_dict()})
        differences = differing_fields({key: first[key] for key in facts}, facts) + config.differences(
            first["settings"]
        )
        if differences:
            raise DistributedError(
                f"process {self.world.rank} differs from process 0 (there -> here):\n  "
                + "\n  ".join(differences)
                + "\nEvery process needs the same package, the same data, and the run folder on a shared file system."
            )
        self.world.connect(self.device, patience=START_SECONDS * (6 if self.compile else 1))  # compilers take minutes
        if self.world.several:
            if self.compiled is not None:
                self.method.forward = self.compiled  # type: ignore[method-assign]
            self.loss_per_image = averaging_gradients(self.method)
            self._rehearse()

    def _rehearse(self) -> None:
        """One pass forward and backward that moves nothing.

        What averages gradients lays out its buckets anew after its first pass, and the layout decides the order in
        which three processes and more are summed: a run that goes on must meet the layout that it would have had.
        """
        buffers = {name: buffer.clone() for name, buffer in self.method.named_buffers()}
        epoch, number = divmod(self.step, self.steps_per_epoch)
        self.method.train()
        with closing(self.views(epoch, number)) as views, autocast(self.device, self.precision):
            loss_per_image = self.loss_per_image(self._laid_out(next(views)))
        loss_per_image.sum().backward()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.method.named_buffers():
                buffer.copy_(buffers[name])

    def train(self, run: Run, show: AnyProgress, stop: StopRequest, label: str) -> None:
        """The loop: one forward and one backward a step; the host stays at most one step ahead of the device."""
        config, method, self.stop = self.config, self.method.train(), stop
        task = show.add(label, total=self.total_steps, unit="steps", done=self.step)
        begun_epoch = self.step // self.steps_per_epoch
        for epoch in range(begun_epoch, config.epochs):
            begun, first = time.perf_counter(), self.step % self.steps_per_epoch
            self.waited_seconds = 0.0
            with closing(self.views(epoch, first)) as views_of_epoch:  # threads that decode ahead end with the block
                batches = self._waiting_for(self._saving_on_errors(views_of_epoch, run))
                # before the epoch begins: where the data fail here, what is saved is the end of the one before
                ahead = next(batches)
                if first == 0:
                    self.loss_sum.zero_()
                    method.on_epoch_start(epoch)
                for views in itertools.chain([ahead], batches):
                    self.train_step(views)
                    if self.compiled is None or epoch > begun_epoch:  # the short last batch compiles once more
                        self.world.set_patience(config.patience_seconds)
                    show.advance(task)
                    self.saver.check()
                    if self.step % self.steps_per_epoch == 0:
                        continue  # the end of the epoch comes first
                    if self._to_stop():
                        self._stop(run)
                    if self.world.is_first and self._overdue():
                        self._save(run)
            asked = self._to_stop(now=True)
            self._end_epoch(run, epoch, (self.steps_per_epoch - first), time.perf_counter() - begun)
            share = self.waited_seconds / (time.perf_counter() - begun)
            note = f"loss {self._epoch_loss():.3f}, epoch {epoch + 1}/{config.epochs}, data {share:.0%} of the time"
            show.advance(task, 0, note=note)
            if asked and epoch + 1 < config.epochs:
                self._stop(run)
            if epoch + 1 == config.epochs or (self.world.is_first and (self._due() or self._overdue())):
                self._save(run)
        self.saver.settle()
        if self.world.is_first:
            self.save_backbone(run)
            _require_whole_metrics(run, config.epochs)
        show.finish(task, f"loss {self._epoch_loss():.3f}")
        if asked or (stop.signal_name and not self.world.several):
            raise Preempted(f"stopped by {_signal(stop)} after the last step: {run.folder} is finished.")

    def views(self, epoch: int, first: int = 0) -> Generator[Views, None, None]:
        """The batches of one epoch, from number ``first`` on; of several processes' batches this one's share."""
        config, world = self.config, self.world
        batches = epoch_batches(len(self.images), config.batch_size, seed=config.seed, epoch=epoch, first=first)
        mine = map(world.mine, batches)
        for number, views in enumerate(
            self.images.views(mine, config.views.spec(), seed=config.seed, epoch=epoch), start=first
        ):
            yield views._replace(share=world.share(self._batch_images(number)))

    def _saving_on_errors(self, batches: Iterator[Views], run: Run) -> Iterator[Views]:
        """The same batches; where the data fail (an image has vanished), what was trained is saved before the error."""
        try:
            yield from batches
        except (DataError, MissingInputError, StorageError, OSError) as error:
            if self.world.is_first:  # another one writes nothing; the first is in the middle of a step then
                self._save_before(error, run)
            raise

    def _save_before(self, error: Exception, run: Run) -> None:
        try:
            self._save(run)
            self.saver.settle()
        except SdclrError as another:
            warnings.warn(f"what was trained since step {self.saved_step} is not saved: {another}", stacklevel=2)
            return
        if isinstance(error, SdclrError):
            again = run.next_command("preempted")
            error.args = (f"{error} Everything up to step {self.step} is saved; mend this, then go on with: {again}",)

    def _batch_images(self, number: int) -> int:
        """Images of an epoch's batch of this number, over all processes."""
        return min(self.config.batch_size, len(self.images) - number * self.config.batch_size)

    def _waiting_for(self, batches: Iterator[Views]) -> Iterator[Views]:
        """The same batches; what the host spends on them (on a CPU their pixels, too) goes to ``waited_seconds``."""
        while True:
            begun = time.perf_counter()
            views = next(batches, None)
            self.waited_seconds += time.perf_counter() - begun
            if views is None:
                return
            yield views

    def train_step(self, views: Views) -> None:
        """One forward, one backward, one update; several processes tell each other their losses, and of a signal."""
        self.step += 1
        set_learning_rate(self.optimizer, self.learning_rate(self.step))
        # for backbones with dropout; every process drops other units, the first those of a run on one
        own = (self.world.rank,) if self.world.rank else ()
        self.optimizer.zero_grad(set_to_none=True)  # first: with CUDA graphs the forward pass overwrites them
        with default_generators(derive(self.config.seed, Stream.STEP, self.step, *own), self.device):
            with autocast(self.device, self.precision):
                loss_per_image = self.loss_per_image(self._laid_out(views))  # [B]
            num_images = views.share.total if views.share else len(loss_per_image)
            # the processes' mean is the batch's mean
            (loss_per_image.sum() / (num_images / self.world.size)).backward()
        losses = loss_per_image.detach()
        loss_sum, finite = losses.sum().double(), losses.isfinite().all()
        if self.world.several:
            tally = torch.stack(
                [loss_sum, (~finite).double(), torch.full_like(loss_sum, self.stop.signal_name is not None)]
            )
            loss_sum, num_not_finite, num_asked = self.world.sum(tally)
            finite = num_not_finite == 0
            self.votes = LateAnswer(num_asked > 0), self.votes[0]
        self.finite &= finite  # once false, no later step moves the weights either
        step_if(self.finite, self.optimizer)
        self.loss_sum += loss_sum
        self.require_finite()  # of the step before: this one's answer is on its way
        self.unread = LateAnswer(self.finite), self.step

    def _to_stop(self, *, now: bool = False) -> bool:
        """Whether to save and end here: on several processes once all know of it, a step late unless ``now``."""
        if not self.world.several:
            return self.stop.signal_name is not None
        latest, before = self.votes
        vote = latest if now else before
        return vote is not None and vote.read()

    def require_finite(self) -> None:
        """Raise NonFiniteError if the loss of the last step that was not looked at yet is no finite number."""
        if self.unread is None:
            return
        (answer, step), self.unread = self.unread, None
        if answer.read():
            return
        self.step = step - 1  # the last one that moved the weights
        epoch, number = divmod(self.step, self.steps_per_epoch)
        config = self.config
        index = next(epoch_batches(len(self.images), config.batch_size, seed=config.seed, epoch=epoch, first=number))
        names = getattr(self.images, "paths", None)
        shown = [str(i) if names is None else printable(names[i]) for i in index.tolist()]
        raise NonFiniteError(
            f"the loss of step {step} is not a finite number (learning rate {self.learning_rate(step):.3g}). No step "
            f"from there on changed the weights, and nothing of it was saved. Its {len(shown)} images: "
            f"{', '.join(shown[:16])}{', ...' if len(shown) > 16 else ''}. Likely causes: steps too large, a "
            "temperature too low, a precision that overflows. Lower optimizer.learning_rate, lengthen "
            "optimizer.warmup_epochs, raise method.temperature, or use precision=fp32, in a new --out."
        )

    def save_backbone(self, run: Run) -> None:
        """The target branch's backbone, under the stock network's own keys."""
        config = self.config
        save_backbone(
            run.backbone_path,
            self.backbone,
            self.architecture.to_dict(),
            facts={
                "feature_dim": self.feature_dim,
                "image_size": config.views.size,
                "recipe": config.recipe,
                "method": config.method.to_dict(),
                "prunable": self.choices.get("prunable"),
                "prunable_share": self.choices.get("prunable_share"),
                "epochs": config.epochs,
                "loss": self._epoch_loss() if self.step else None,
                "training": {
                    "seed": config.seed,
                    "batch_size": config.batch_size,
                    "optimizer": config.optimizer.to_dict(),
                    "views": config.views.to_dict(),
                    "data": {"subset": config.data.subset, "split": config.data.split},
                },
                "data": self.data.name,
                "data_fingerprint": self.data.fingerprint,
            },
        )

    def _laid_out(self, views: Views) -> Views:
        dtype = parameter_dtype(self.precision)
        a, b = (v.to(dtype=dtype, memory_format=self.memory_format) for v in (views.a, views.b))
        return views._replace(a=a, b=b)

    def _epoch_loss(self) -> float:
        return self.loss_sum.item() / len(self.images)

    def _end_epoch(self, run: Run, epoch: int, steps: int, seconds: float) -> None:
        self.require_finite()
        if not self.world.is_first:
            return
        loss = self._epoch_loss()
        views = 2 * len(self.images) * steps / self.steps_per_epoch
        run.append_metrics(
            {
                "epoch": epoch + 1,
                "step": self.step,
                "loss": loss,
                "learning_rate": self.learning_rate(self.step),
                "views_per_second": views / seconds,
                "data_share": self.waited_seconds / seconds,
                "seconds": seconds,
                **{name: float(value) for name, value in self.method.measurements().items()},
            }
        )
        if self.compiled is not None and self.compiled.how != self.compile:
            self.compile = self.compiled.how
            run.write_json("environment.json", run.read_json("environment.json") | {"compile": self.compile})

    def _due(self) -> bool:
        """At the end of an epoch, whether to save: after so many, or after ten once the last save is paid off."""
        epochs = self.step // self.steps_per_epoch
        every = self.config.checkpoint_every_epochs
        if every is not None:
            return epochs % every == 0
        paid_off = time.monotonic() - self.saved_seconds >= self.save_seconds / SAVING_SHARE
        return paid_off and epochs - self.saved_step // self.steps_per_epoch >= EPOCHS_BETWEEN_SAVES

    def _overdue(self) -> bool:
        return time.monotonic() - self.saved_seconds > 60 * self.config.checkpoint_every_minutes

    def _stop(self, run: Run) -> None:
        self._save(run)
        self.saver.settle()
        raise Preempted(
            f"stopped by {_signal(self.stop)} at step {self.step} of {self.total_steps}, everything saved. "
            f"Go on with: {run.next_command('preempted')}"
        )

    def _save(self, run: Run, *, read_back: bool = False) -> None:
        begun = time.monotonic()
        self.require_finite()
        if not self.world.is_first:  # it has the same state as the first process, which writes it
            return
        tensors = {f"method.{name}": tensor for name, tensor in self.method.state_dict().items()}
        state = state_of(self.optimizer)
        tensors |= {f"optimizer.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
        tensors["loss_sum"] = self.loss_sum
        numbers = {name: value for name, value in state.items() if not isinstance(value, Tensor)}
        if name := first_not_finite(tensors):
            if self.step == 0:
                raise NonFiniteError(
                    f"{name} holds a number that is not finite before the first step: the network cannot be trained "
                    "from there. Start from other weights."
                )
            raise NonFiniteError(
                f"{name} holds a number that is not finite at step {self.step} (learning rate "
                f"{self.learning_rate(self.step):.3g}), though the loss was finite; nothing of it was saved. Lower "
                "optimizer.learning_rate or lengthen optimizer.warmup_epochs, in a new --out."
            )
        facts = {"config": self.config.to_dict(), "optimizer": numbers, "metrics_size": run.metrics_size()}
        self.saver.save(run.checkpoints, Checkpoint(self.step, tensors, facts), read_back=read_back)
        self.saved_step, self.saved_seconds = self.step, time.monotonic()
        self.save_seconds = self.saved_seconds - begun

    def _restore(self, checkpoint: Checkpoint, where: str) -> None:
        if missing := {"config", "optimizer", "metrics_size"} - checkpoint.facts.keys():
            raise CheckpointError(f"{where} is not of a run: it has no {', '.join(sorted(missing))}.")
        parts: dict[str, dict[str, Tensor]] = {"method": {}, "optimizer": {}, "loss_sum": {}}
        for name, tensor in checkpoint.tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        if differences := self.config.differences(checkpoint.facts["config"]):
            raise ConfigError(
                f"{where} was made with other settings (made with -> now):\n  "
                + "\n  ".join(differences)
                + "\nPut the settings back in config.yaml, or start a new run in another --out."
            )
        load_strictly(self.method, parts["method"], where)
        optimizer = self.config.optimizer
        names = state_names(optimizer.name, optimizer.momentum) if checkpoint.step else ()  # before the first step none
        restore_state(self.optimizer, parts["optimizer"] | checkpoint.facts["optimizer"], names, where)
        if "" not in parts["loss_sum"] or parts["loss_sum"][""].shape != ():
            raise CheckpointError(f"{where} has no loss_sum.")
        self.loss_sum.copy_(parts["loss_sum"][""])
        self.step = self.saved_step = checkpoint.step


def _require_whole_metrics(run: Run, epochs: int) -> None:
    """Warn when somebody has removed or cut the metrics while the run wrote them."""
    entries, damaged = run.sound_metrics()
    if len(entries) < epochs:
        warnings.warn(
            f"{run.metrics_path} holds {len(entries)} of {epochs} epochs"
            + (f" and {len(damaged)} damaged lines" if damaged else "")
            + ": somebody has removed or changed it during the run. The curves of a report lack the rest.",
            stacklevel=3,
        )


def _signal(stop: StopRequest) -> str:
    return stop.signal_name or "a signal to another process"


def _load_starting_weights(
    backbone: Backbone, config: PretrainConfig, architecture: BackboneConfig, show: AnyProgress
) -> None:
    if config.weights is not None and config.backbone.pretrained:
        raise ConfigError("weights and backbone.pretrained=true are two starting points; give one of them.")
    if config.weights is not None:
        file = load_weights(backbone, config.weights)
        if name := first_not_finite(backbone.net.state_dict()):
            raise CheckpointError(
                f"weights={config.weights}: {name} holds a number that is not finite. Start from other weights."
            )
        _take_over_normalisation(backbone, config, file.described.normalisation, show)
        _warn_of_other_options(config, architecture, file.described.architecture)
    elif config.backbone.pretrained:
        backbone_config = config.backbone
        from sdclr.backbones.pretrained import load_pretrained

        load_pretrained(
            backbone,
            backbone_config.name,
            backbone_config.width,
            backbone_config.stem,
            architecture.options,
        )
        if not normalisation_of(backbone).is_like(input_constants(_fresh(architecture))):
            show.print(f"input normalisation of the pre-trained weights: {_constants_words(backbone)}")


def _fresh(architecture: BackboneConfig) -> BackboneConfig:
    return architecture.model_copy(update={"pretrained": False})


def _take_over_normalisation(
    backbone: Backbone, config: PretrainConfig, theirs: Normalisation, show: AnyProgress
) -> None:
    """The weights know images as they were normalised when they were trained; a setting of the user's wins."""
    if normalisation_of(backbone).is_like(theirs):
        return
    if config.backbone.normalisation == "auto":
        backbone.normalise_with(theirs.mean, theirs.std)
        show.print(
            f"input normalisation of the weights: {_constants_words(backbone)} "
            "(backbone.normalisation=imagenet would take ImageNet's)"
        )
        return
    show.print(
        f"input normalisation: {_constants_words(backbone)}, as backbone.normalisation says; "
        f"the weights were trained with mean {_numbers(theirs.mean)}, std {_numbers(theirs.std)}"
    )


def _constants_words(backbone: Backbone) -> str:
    used = normalisation_of(backbone)
    return f"mean {_numbers(used.mean)}, std {_numbers(used.std)}"


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _warn_of_other_options(config: PretrainConfig, architecture: BackboneConfig, theirs: BackboneConfig) -> None:
    """Some options leave no trace in the weights: what they were trained with is another network then."""
    ours, others = (
        {key: value for key, value in one.options.items() if key not in SIZE_OPTIONS} for one in (architecture, theirs)
    )
    if architecture.name == theirs.name and ours != others:
        warnings.warn(
            f"weights={config.weights} were trained with backbone.options={others}, and this run has {ours}: the "
            "weights fit, and the network may compute something else with them.",
            stacklevel=4,
        )


def _recorded_choices(run: Run | None, config: PretrainConfig) -> dict[str, Any] | None:
    """What a run that is there already has made of the settings that leave something open; None for a new one.

    One of an earlier version goes on as it was: the network as its options say, ImageNet's normalisation but for timm's
    pre-trained weights.
    """
    if run is None or not run.exists:
        return None
    found: dict[str, Any] | None = run.read_json("environment.json").get("resolved")
    if found is not None:
        return found
    backbone = config.backbone
    asked_for = backbone.normalisation != "auto" or backbone.name.startswith("timm:")
    constants = input_constants(backbone) if asked_for else IMAGENET
    return {"backbone_options": backbone.options, "normalisation": constants.to_dict()}


def _architecture(config: PretrainConfig, recorded: dict[str, Any] | None) -> BackboneConfig:
    """The network with what views.size makes of it."""
    if recorded is not None:
        return config.backbone.model_copy(update={"options": recorded["backbone_options"]})
    return fitted_to(config.backbone, config.views.size)


def _fitted_words(architecture: BackboneConfig, config: PretrainConfig) -> str | None:
    """What views.size has made of the network; None where that is nothing."""
    added = {key: value for key, value in architecture.options.items() if key not in config.backbone.options}
    if not added:
        return None
    options = ", ".join(f"{key}={value}" for key, value in added.items())
    return f"{architecture.name} is built for views of {config.views.size} px ({options})"


def _method_settings(config: PretrainConfig, recorded: dict[str, Any] | None) -> SimCLRConfig | SDCLRConfig:
    """The method's settings, with prunable=auto as a run that goes on has resolved it."""
    method = config.method
    before = recorded.get("prunable") if recorded is not None else None
    if isinstance(method, SDCLRConfig) and method.prunable == "auto" and before is not None:
        return method.model_copy(update={"prunable": before})
    return method


def _choices(architecture: BackboneConfig, backbone: Backbone, method: Method) -> dict[str, Any]:
    """For environment.json and for a run that goes on."""
    choices: dict[str, Any] = {
        "backbone_options": architecture.options,
        "normalisation": normalisation_of(backbone).to_dict(),
    }
    if isinstance(method, SDCLR):
        choices["prunable"] = method.competitor.prunable
        choices["prunable_share"] = round(method.competitor.prunable_share, 6)
    return choices


def _backbone(architecture: BackboneConfig, network: nn.Module | None) -> Backbone:
    if (network is None) == (architecture.name == "custom"):
        raise ConfigError("backbone.name=custom and network=<your module> go together: give both or neither.")
    if network is None:
        return build_backbone(architecture)
    constants = input_constants(architecture)
    backbone = Backbone(network, constants.mean, constants.std)
    require_trainable_and_storable(backbone.net)
    return backbone
