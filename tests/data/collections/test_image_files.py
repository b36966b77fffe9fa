"""Files on disk give what the same pixels in memory give; bad ones are named before training or when they are met."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor
from torchvision.transforms import functional as TF

from sdclr.batch import Views
from sdclr.compute.stateless_random import Stream, derive, uniforms
from sdclr.data import epoch_batches, make_views
from sdclr.data import look_ahead as look_ahead_module
from sdclr.data.collections import image_files
from sdclr.data.collections.image_files import ImageFiles
from sdclr.data.views import cutting
from sdclr.data.views.parameters import ViewSpec, draw_view_parameters
from sdclr.errors import DataError, MissingInputError

SPEC = ViewSpec(size=32, blur=0.5)
CPU = torch.device("cpu")
NUM = 24


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageFiles:
    """Photographs of 24 different sizes, PNG and JPEG, with labels."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(3)
    photo = load_sample_image("flower.jpg")
    paths = []
    for number in range(NUM):
        height, width = rng.integers(20, 200, 2)
        top, left = rng.integers(0, 427 - height), rng.integers(0, 640 - width)
        paths.append(f"class {number % 3}/{number}.{'JPEG' if number % 2 else 'png'}")
        (root / paths[-1]).parent.mkdir(exist_ok=True)
        Image.fromarray(photo[top : top + height, left : left + width].copy()).save(
            root / paths[-1]
        )
    return ImageFiles(root, tuple(paths), np.arange(NUM) % 3)


def pixels_of(images: ImageFiles, position: int) -> Image.Image:
    """By Pillow alone."""
    with Image.open(images.root / images.paths[position]) as image:
        return image.convert("RGB")


def all_views(images: ImageFiles, *batches: list[int], seed: int = 1, epoch: int = 1) -> Views:
    views = list(images.views(map(torch.tensor, batches), SPEC, seed=seed, epoch=epoch))
    return Views(*(torch.cat(parts) for parts in zip(*(view[:3] for view in views), strict=True)))


def other(images: ImageFiles, *paths: str) -> ImageFiles:
    """The same folder with these files only."""
    return ImageFiles(images.root, paths, None)


# ---- views


def test_views_are_those_of_the_same_pixels_in_memory(photos: ImageFiles) -> None:
    """Those of files are rounded after each of their two passes, and nothing else differs."""
    views = all_views(photos, list(range(NUM)), seed=4, epoch=7)
    differences = []
    for position in range(NUM):
        array = TF.pil_to_tensor(pixels_of(photos, position))
        # every position is this image: the index decides what is drawn
        images = array.expand(NUM, -1, -1, -1)
        expected = make_views(images, torch.tensor([position]), SPEC, seed=4, epoch=7)
        differences += [
            (views.a[position] - expected.a[0]).abs() * 255,
            (views.b[position] - expected.b[0]).abs() * 255,
        ]
    difference = torch.stack(differences)
    assert difference.mean() <= 1.6
    assert (difference <= 4).float().mean() >= 0.98


def test_views_are_pillows_crops_of_the_drawn_boxes_but_for_rounding(photos: ImageFiles) -> None:
    spec = ViewSpec(size=16, jitter_probability=0, grey=0)
    off = []
    (views,) = photos.views([torch.arange(NUM)], spec, seed=1, epoch=1)
    for number, batch in enumerate((views.a, views.b)):
        for position in range(NUM):
            image = pixels_of(photos, position)
            where = draw_view_parameters(
                spec,
                torch.tensor([position]),
                image.height,
                image.width,
                seed=1,
                epoch=1,
                view=number,
            )
            top, left, height, width = where.box[0].tolist()
            cut = image.crop((left, top, left + width, top + height)).resize(
                (16, 16), Image.Resampling.BICUBIC
            )
            expected = TF.pil_to_tensor(TF.hflip(cut) if where.flip[0] else cut).float()
            off.append((batch[position] * 255 - expected).abs())
    levels = torch.stack(off)
    assert levels.max() <= 2.01
    assert (levels > 0.01).float().mean() <= 0.02


def test_a_view_alone_is_the_view_in_its_batch(photos: ImageFiles) -> None:
    whole = all_views(photos, list(range(NUM)))
    for position in range(0, NUM, 5):
        alone = all_views(photos, [position])
        torch.testing.assert_close(alone.a[0], whole.a[position], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.b[0], whole.b[position], rtol=0, atol=1e-6)


def test_views_come_in_the_order_of_their_batches_with_their_index(photos: ImageFiles) -> None:
    batches = [[5, 3, 11], [0, 23], [7], [3, 1, 2]]
    views = list(photos.views(map(torch.tensor, batches), SPEC, seed=1, epoch=1))
    assert [view.index.tolist() for view in views] == batches
    whole = all_views(photos, list(range(NUM)))
    for view, batch in zip(views, batches, strict=True):
        assert view.a.shape == (len(batch), 3, 32, 32)
        assert view.a.dtype == torch.float32
        assert 0 <= view.a.min() <= view.a.max() <= 1
        torch.testing.assert_close(view.a, whole.a[batch], rtol=0, atol=1e-6)
        torch.testing.assert_close(view.b, whole.b[batch], rtol=0, atol=1e-6)


def test_seed_and_epoch_change_every_view(photos: ImageFiles) -> None:
    first = all_views(photos, list(range(NUM)))
    for change in ({"seed": 2}, {"epoch": 2}):
        second = all_views(photos, list(range(NUM)), **change)
        assert (first.a - second.a).abs().amax(dim=(1, 2, 3)).min() > 0.01


def test_positions_count_within_the_chosen_images(photos: ImageFiles) -> None:
    chosen = photos.at(np.array([20, 4, 9]))
    assert chosen.paths == (photos.paths[20], photos.paths[4], photos.paths[9])
    assert chosen.labels.tolist() == [2, 1, 0]
    assert torch.equal(next(chosen.stills(32))[1], next(photos.stills(32))[4])
    assert all_views(chosen, [1]).index.tolist() == [1]


def test_an_epoch_resumed_at_a_batch_goes_on_with_the_same_views(photos: ImageFiles) -> None:
    def views(first: int) -> list[Views]:
        batches = epoch_batches(NUM, 5, seed=3, epoch=2, first=first)
        return list(photos.views(batches, SPEC, seed=3, epoch=2))

    whole, rest = views(0), views(2)
    assert len(rest) == len(whole) - 2
    for resumed, uninterrupted in zip(rest, whole[2:], strict=True):
        assert all(
            torch.equal(one, two) for one, two in zip(resumed[:3], uninterrupted[:3], strict=True)
        )


def everything(images: ImageFiles) -> list[Tensor]:
    batches = list(torch.arange(NUM).split(7))
    crops = list(images.probe_crops(batches, 24, seed=1, epoch=1))
    return [
        *all_views(images, *(b.tolist() for b in batches))[:3],
        *crops,
        *images.stills(24),
        torch.from_numpy(images.sizes),
    ]


def test_nothing_depends_on_the_number_of_threads(
    photos: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for threads in (1, 4):
        monkeypatch.setattr(look_ahead_module, "num_cores", lambda threads=threads: threads)
        results.append(everything(photos.at(np.arange(NUM))))
    for one, four in zip(*results, strict=True):
        assert torch.equal(one, four)


def test_leaving_an_epoch_early_ends_its_threads(photos: ImageFiles) -> None:
    before = set(threading.enumerate())
    batches = [torch.arange(NUM)] * 50
    for stream in (
        photos.views(batches, SPEC, seed=1, epoch=1),
        photos.probe_crops(batches, 24, seed=1, epoch=1),
    ):
        next(stream)
        assert set(threading.enumerate()) - before
        stream.close()
        assert set(threading.enumerate()) <= before


# ---- stills and probe crops


@pytest.mark.parametrize(("size", "resized"), [(224, 256), (32, 37)])
def test_stills_are_torchvisions_resize_and_centre_crop(
    photos: ImageFiles, size: int, resized: int
) -> None:
    theirs = T.Compose([T.Resize(resized), T.CenterCrop(size), T.PILToTensor()])
    ours = torch.cat(list(photos.stills(size)))
    assert ours.dtype == torch.uint8
    assert torch.equal(
        ours, torch.stack([theirs(pixels_of(photos, position)) for position in range(NUM)])
    )


def test_stills_of_real_photographs_are_torchvisions(sdclr_data: Path) -> None:
    root = sdclr_data / "clothing_lt" / "test"
    paths = tuple(str(path.relative_to(root)) for path in sorted(root.rglob("*.jpg"))[::10])
    theirs = T.Compose([T.Resize(256), T.CenterCrop(224), T.PILToTensor()])
    images = ImageFiles(root, paths, None)
    (ours,) = images.stills(224)
    assert torch.equal(
        ours, torch.stack([theirs(pixels_of(images, position)) for position in range(len(paths))])
    )


def test_stills_come_in_batches_in_order(
    photos: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = photos.stills(24)
    monkeypatch.setattr(cutting, "STILLS_PER_BATCH", 10)
    batches = list(photos.stills(24))
    assert [len(batch) for batch in batches] == [10, 10, 4]
    assert torch.equal(torch.cat(batches), whole)


def test_probe_crops_are_torchvisions_bilinear_crops_of_the_same_uniforms(
    photos: ImageFiles,
) -> None:
    index = torch.tensor([4, 19, 0, 8])
    (ours,) = photos.probe_crops([index], 24, seed=5, epoch=2)
    u = uniforms(derive(5, Stream.PROBE, 2, 1), index, 23)
    for row, position in enumerate(index.tolist()):
        image = pixels_of(photos, position)
        box = cutting.draw_resized_crops(
            index[row : row + 1], image.height, image.width, seed=5, epoch=2
        )[0]
        expected = TF.resized_crop(image, *box[0].tolist(), [24, 24], TF.InterpolationMode.BILINEAR)
        expected = TF.hflip(expected) if u[row, 22] < 0.5 else expected
        assert torch.equal(ours[row], TF.pil_to_tensor(expected))


def test_probe_crops_are_a_function_of_seed_epoch_and_image(photos: ImageFiles) -> None:
    (whole,) = photos.probe_crops([torch.arange(NUM)], 24, seed=1, epoch=1)
    (some,) = photos.probe_crops([torch.tensor([9, 2])], 24, seed=1, epoch=1)
    assert torch.equal(some, whole[[9, 2]])
    for change in ({"seed": 2, "epoch": 1}, {"seed": 1, "epoch": 2}):
        (changed,) = photos.probe_crops([torch.arange(NUM)], 24, **change)
        assert (changed != whole).flatten(1).any(dim=1).float().mean() > 0.9


# ---- headers, bad files, fingerprints


def test_sizes_are_heights_and_widths_from_the_headers(
    photos: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "HEADERS_PER_CALL", 5)
    expected = [
        (pixels_of(photos, position).height, pixels_of(photos, position).width)
        for position in range(NUM)
    ]
    assert photos.at(np.arange(NUM)).sizes.tolist() == [list(size) for size in expected]


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    images = ImageFiles(tmp_path / "absent", ("a.jpg", "b.jpg"), np.array([0, 1]))
    assert len(images.at(np.array([1]))) == 1
    assert len(list(images.content())) == 3


def test_moving_measures_once_and_absent_files_are_reported_together(
    photos: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = photos.to(CPU)
    monkeypatch.setattr(image_files, "read_size", None)
    assert moved.sizes is photos.sizes
    monkeypatch.undo()
    with pytest.raises(MissingInputError) as caught:
        other(photos, "a.jpg", photos.paths[0], *"bcdefg").to(CPU)
    message = str(caught.value)
    assert f"at least 7 of 8 images below {photos.root} cannot be used" in message
    named = [name for name in ("a.jpg", *"bcdefg") if f"/{name} does not exist" in message]
    assert named == ["a.jpg", "b", "c", "d", "e"]
    assert "and 2 more" in message
    assert "give the folder that holds them" in message


def test_broken_files_are_reported_before_training(photos: ImageFiles) -> None:
    (photos.root / "page.jpg").write_text("<html>")
    with pytest.raises(
        DataError,
        match=r"2 of 3 images .*\n.*page\.jpg is not one that can be read.*\n.*absent\.jpg",
    ):
        other(photos, "page.jpg", photos.paths[0], "absent.jpg").to(CPU)


def test_a_file_that_breaks_off_after_its_header_is_named_when_it_is_met(
    photos: ImageFiles,
) -> None:
    content = (photos.root / photos.paths[1]).read_bytes()
    (photos.root / "cut.jpg").write_bytes(content[: len(content) // 2])
    images = other(photos, photos.paths[0], photos.paths[2], "cut.jpg").to(CPU)
    before = set(threading.enumerate())
    batches = [torch.tensor([0]), torch.tensor([1, 2]), *[torch.tensor([0, 1])] * 20]
    stream = images.views(batches, SPEC, seed=1, epoch=1)
    assert next(stream).index.tolist() == [0]
    with pytest.raises(DataError, match=r"cut\.jpg is damaged: .*truncated"):
        next(stream)
    assert set(threading.enumerate()) <= before
    for images_of in (
        lambda: images.stills(24),
        lambda: images.probe_crops(batches, 24, seed=1, epoch=1),
    ):
        with pytest.raises(DataError, match=r"cut\.jpg is damaged"):
            list(images_of())


def test_a_file_that_was_replaced_after_its_header_was_read_is_refused(photos: ImageFiles) -> None:
    path = photos.root / "replaced.png"
    Image.new("RGB", (50, 40)).save(path)
    images = other(photos, "replaced.png").to(CPU)
    Image.new("RGB", (40, 50)).save(path)
    with pytest.raises(
        DataError, match=r"replaced\.png has changed its size since its header was read"
    ):
        list(images.views([torch.tensor([0])], SPEC, seed=1, epoch=1))


def test_names_with_line_breaks_quotes_and_odd_bytes_are_opened(photos: ImageFiles) -> None:
    names = ("a\nb.png", 'it\'s "one".png', "caf\udce9.png")
    for name in names:
        Image.new("RGB", (30, 30), (9, 8, 7)).save(photos.root / name)
    images = other(photos, *names)
    assert (next(images.stills(8)) == torch.tensor([9, 8, 7]).view(1, 3, 1, 1)).all()
    assert len(b"".join(images.content())) > 20


def test_content_changes_with_names_order_and_labels_but_not_with_the_place(
    photos: ImageFiles,
) -> None:
    def content(paths: tuple[str, ...], labels: list[int] | None, root: str = "/x") -> bytes:
        array = None if labels is None else np.array(labels)
        return b"|".join(bytes(part) for part in ImageFiles(Path(root), paths, array).content())

    base = content(("a", "b"), [0, 1])
    assert content(("a", "b"), [0, 1], "/y") == base
    changed = [
        content(("a", "c"), [0, 1]),
        content(("b", "a"), [0, 1]),
        content(("a", "b"), [1, 1]),
    ]
    changed += [content(("a", "b"), None), content(("ab",), [0])]
    assert len({base, *changed}) == 6


# ---- the verifying pass


def damaged_copy(images: ImageFiles, folder: Path, *bad: int, num: int = NUM) -> ImageFiles:
    """``num`` copies of the images in turn, those at ``bad`` cut in the middle: their headers are sound."""
    names = []
    for row in range(num):
        content = (images.root / images.paths[row % NUM]).read_bytes()
        names.append(f"{row:03d}{Path(images.paths[row % NUM]).suffix}")
        (folder / names[-1]).write_bytes(content[: len(content) // 2] if row in bad else content)
    return ImageFiles(folder, tuple(names), np.arange(num) % 3)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_sound_collection_is_verified_with_the_sizes_that_were_decoded(
    photos: ImageFiles, monkeypatch: pytest.MonkeyPatch, on_error: str
) -> None:
    told: list[int] = []
    expected = photos.sizes.tolist()
    kept, bad = photos.verified(on_error, told.append)
    assert (kept.paths, bad, sum(told)) == (photos.paths, [], NUM)
    assert kept.labels.tolist() == photos.labels.tolist()
    monkeypatch.setattr(image_files, "read_size", None)
    assert kept.sizes.tolist() == expected


def test_every_bad_file_is_counted_before_training(photos: ImageFiles, tmp_path: Path) -> None:
    images = damaged_copy(photos, tmp_path, 2, 5, 9, 20)
    assert len(images.to(CPU)) == NUM, "their headers are sound"
    with pytest.raises(DataError) as caught:
        images.verified("raise", lambda done: None)
    message = str(caught.value)
    assert f"4 of 24 images below {tmp_path} cannot be used" in message
    assert [
        f"{name} is damaged" in message for name in ("002.png", "005.JPEG", "009.JPEG", "020.png")
    ] == [1, 1, 1, 1]
    assert "leave them out with data.on_error=skip data.max_skipped=4 (" in message


@pytest.mark.parametrize(("num", "bad"), [(20, (3,)), (300, (0, 150, 299))])
def test_few_bad_files_are_left_out_by_name_and_cause(
    photos: ImageFiles, tmp_path: Path, num: int, bad: tuple[int, ...]
) -> None:
    images = damaged_copy(photos, tmp_path, *bad, num=num)
    kept, left_out = images.verified("skip", lambda done: None)
    good = np.setdiff1d(np.arange(num), bad)
    assert kept.paths == images.at(good).paths
    assert kept.labels.tolist() == images.labels[good].tolist()
    assert [file.path for file in left_out] == [images.paths[row] for row in bad]
    assert all("is damaged: " in file.cause for file in left_out)
    whole = ImageFiles(kept.root, kept.paths, kept.labels)
    assert kept.sizes.tolist() == whole.sizes.tolist()


@pytest.mark.parametrize(("num", "bad"), [(19, (3, 5)), (24, (3, 4)), (250, (0, 1, 2))])
def test_more_than_one_in_a_hundred_bad_files_are_left_out_only_where_the_user_allows_it(
    photos: ImageFiles, tmp_path: Path, num: int, bad: tuple[int, ...]
) -> None:
    images = damaged_copy(photos, tmp_path, *bad, num=num)
    allowed = max(num // 100, 1)
    message = rf"(?s){len(bad)} of {num} images .*leaves out at most {allowed} of {num}.*data.max_skipped={len(bad)} "
    with pytest.raises(DataError, match=message):
        images.verified("skip", lambda done: None)
    for enough in (len(bad), 0.5):
        kept, left_out = images.verified("skip", lambda done: None, enough)
        assert (len(kept), len(left_out)) == (num - len(bad), len(bad))
    for too_few in (len(bad) - 1, (len(bad) - 1) / num):
        with pytest.raises(DataError, match="max_skipped"):
            images.verified("skip", lambda done: None, too_few)


def test_one_bad_file_of_a_few_is_left_out_and_all_of_them_are_not(
    photos: ImageFiles, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert (
        len(damaged_copy(photos, tmp_path / "a", 3, num=13).verified("skip", lambda done: None)[0])
        == 12
    )
    with pytest.raises(DataError, match="None is left"):
        damaged_copy(photos, tmp_path / "b", 0, 1, 2, num=3).verified("skip", lambda done: None, 3)


def test_verifying_names_what_is_absent_or_no_file(photos: ImageFiles) -> None:
    os.mkfifo(photos.root / "pipe.jpg")
    images = other(photos, *photos.paths, "pipe.jpg")
    kept, left_out = images.verified("skip", lambda done: None)
    assert (kept.paths, left_out[0].path) == (photos.paths, "pipe.jpg")
    with pytest.raises(
        MissingInputError, match=r"2 of 26 images (?s:.*)absent\.jpg does not exist"
    ):
        other(photos, *photos.paths, "absent.jpg", "gone.jpg").verified("raise", lambda done: None)


def test_images_are_turned_by_exif_when_that_is_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "tagged.png", exif=exif)
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels, -1))).save(tmp_path / "turned.png")
    tagged = ImageFiles(tmp_path, ("tagged.png",), None, exif_rotation=True)
    turned = ImageFiles(tmp_path, ("turned.png",), None)
    assert tagged.sizes.tolist() == turned.sizes.tolist() == [[60, 20]]
    assert tagged.verified("raise", lambda done: None)[0].sizes.tolist() == [[60, 20]]
    for one, two in zip(all_views(tagged, [0])[:3], all_views(turned, [0])[:3], strict=True):
        assert torch.equal(one, two)
    plain = ImageFiles(tmp_path, ("tagged.png",), None)
    assert plain.sizes.tolist() == [[20, 60]]
    assert b"".join(plain.content()) != b"".join(tagged.content()), (
        "other pixels, another fingerprint"
    )


@pytest.mark.gpu
def test_views_on_a_cuda_device_equal_views_on_the_cpu(photos: ImageFiles) -> None:
    batches = [torch.arange(0, 10), torch.arange(10, NUM)] * 5
    here = list(photos.views(batches, SPEC, seed=1, epoch=1))
    there = list(photos.to(torch.device("cuda")).views(batches, SPEC, seed=1, epoch=1))
    for cpu, cuda in zip(here, there, strict=True):
        assert (cuda.a.device.type, cuda.index.device.type) == ("cuda", "cuda")
        torch.testing.assert_close(cuda.a.cpu(), cpu.a, rtol=0, atol=1e-4)
        torch.testing.assert_close(cuda.b.cpu(), cpu.b, rtol=0, atol=1e-4)


# ---- 16-bit files that use fewer bits


def test_dark_data_in_files_of_sixteen_bits_are_warned_of_once_and_spread_when_that_is_said(
    tmp_path: Path,
) -> None:
    for number, top in enumerate((900, 4000)):
        Image.fromarray(np.full((4, 4), top, np.uint16)).save(tmp_path / f"{number}.png")
    images = ImageFiles(tmp_path, ("0.png", "1.png"), None)
    with pytest.warns(
        UserWarning,
        match=r"2 images have 16 bits and use the lowest 12 .*4,000.*data\.grey_bits=12",
    ):
        images.verified("raise", lambda done: None)
    spread = ImageFiles(tmp_path, ("0.png", "1.png"), None, grey_bits=12)
    kept, bad = spread.verified("raise", lambda done: None)
    assert (len(kept), bad) == (2, [])
    assert [int(batch.max()) for batch in spread.stills(4)] == [249]
    assert list(spread.content()) != list(images.content()), "other pixels are another collection"
    narrow = ImageFiles(tmp_path, ("0.png", "1.png"), None, grey_bits=10)
    _, bad = narrow.verified("skip", lambda done: None)
    assert [one.path for one in bad] == ["1.png"]


def test_bright_data_in_files_of_sixteen_bits_are_no_reason_to_warn(tmp_path: Path) -> None:
    for number, top in enumerate((900, 60_000)):  # one may be dark
        Image.fromarray(np.full((4, 4), top, np.uint16)).save(tmp_path / f"{number}.png")
    assert (
        len(ImageFiles(tmp_path, ("0.png", "1.png"), None).verified("raise", lambda done: None)[0])
        == 2
    )


def test_a_picture_is_decoded_once_for_its_still_and_for_whoever_looks_at_it(
    photos: ImageFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_picture = image_files.open_picture

    def counting(file: str, **how: object) -> object:
        opened.append(file)
        return open_picture(file, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(image_files, "open_picture", counting)
    monkeypatch.setattr(cutting, "STILLS_PER_BATCH", 7)
    batches = list(photos.looked_at(16, lambda picture: picture.size))
    assert len(opened) == NUM
    pixels = torch.cat([pixels for pixels, _ in batches])
    assert torch.equal(pixels, torch.cat(list(photos.stills(16))))
    assert [size for _, seen in batches for size in seen] == [
        pixels_of(photos, position).size for position in range(NUM)
    ]


def test_an_image_that_comes_again_in_an_epoch_gets_other_views(photos: ImageFiles) -> None:
    spec = ViewSpec(size=8)
    again = torch.tensor([0, len(photos), 1])
    (found,) = photos.views([again], spec, seed=1, epoch=0)
    assert found.index.tolist() == [0, 0, 1]
    assert not torch.equal(found.a[0], found.a[1])
    (first,) = photos.views([torch.tensor([0, 1])], spec, seed=1, epoch=0)
    assert torch.equal(found.a[[0, 2]], first.a)
