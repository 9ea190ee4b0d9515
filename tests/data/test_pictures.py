"""Pictures as people have them come out upright, in sRGB, eight bits, nothing clipped."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from spf_lora.data.pictures import open_picture


def saved(path: Path, image: Image.Image, **how: object) -> Path:
    image.save(path, **how)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(("turn", "size"), [(1, (30, 10)), (3, (30, 10)), (6, (10, 30))])
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_the_size_is_that_of_the_upright_picture(
    tmp_path: Path, turn: int, size: tuple[int, int], kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    found = open_picture(saved(tmp_path / f"a.{kind}", Image.new("RGB", (30, 10)), exif=exif))
    assert found.size == found.image.size == size


def test_a_large_photograph_is_told_with_its_own_size_and_shrunk_alike(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    picture = Image.linear_gradient("L").resize((1600, 800)).convert("RGB")
    path = saved(tmp_path / "a.jpg", picture, exif=exif, quality=95)
    found = open_picture(path, shorter_side_px=100)
    assert (found.size, found.image.size) == ((800, 1600), (100, 200))
    whole = open_picture(path).image.resize((100, 200), Image.Resampling.LANCZOS)
    difference = np.abs(np.asarray(whole, int) - np.asarray(found.image, int))
    assert difference.max() <= 3, "decoding a JPEG smaller is as good as shrinking it"


@pytest.mark.parametrize(
    ("mode", "value", "kind"),
    [
        ("I;16", 200 * 257, "png"),
        ("I", 200 * 257, "tif"),
        ("F", 200 / 255, "tif"),
        ("F", 200.0, "tif"),
    ],
)
def test_deep_values_are_scaled_and_not_clipped(
    tmp_path: Path, mode: str, value: float, kind: str
) -> None:
    path = saved(tmp_path / f"a.{kind}", Image.new(mode, (4, 4), value))
    assert open_picture(path).image.getpixel((0, 0)) == (200, 200, 200)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = saved(tmp_path / "a.tif", Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode))
    image = open_picture(path).image
    assert image.mode == "RGB"
    assert min(image.getpixel((1, 1))) >= 254  # type: ignore[type-var, arg-type]


def test_a_printers_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    red, green, blue = open_picture(path).image.getpixel((8, 8))  # type: ignore[misc]
    assert red > 200 > 60 > max(green, blue)


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    grey = Image.new("RGB", (4, 4), (90, 120, 200))
    plain = saved(tmp_path / "a.png", grey)
    same = saved(tmp_path / "b.png", grey, icc_profile=srgb.tobytes())
    unfit = saved(tmp_path / "c.png", grey, icc_profile=lab.tobytes())
    damaged = saved(tmp_path / "d.png", grey, icc_profile=b"no profile")
    expected = open_picture(plain).image.tobytes()
    assert all(open_picture(p).image.tobytes() == expected for p in (same, unfit, damaged))
    wide = saved(tmp_path / "e.png", grey, icc_profile=_wide_profile())
    assert open_picture(wide).image.tobytes() != expected


def _wide_profile() -> bytes:
    """Return sRGB's profile with red and green exchanged: any change of colours will do."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = bytearray(bytes(data).replace("sRGB".encode("utf-16-be"), "xxxx".encode("utf-16-be")))
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_of_an_animated_picture_the_first_frame_is_used_and_the_rest_told(
    tmp_path: Path, kind: str
) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    path = tmp_path / f"a.{kind}"
    how = {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **how)
    found = open_picture(path)
    assert found.animated
    assert found.image.getpixel((0, 0)) == (255, 0, 0)


def test_a_phones_second_image_is_no_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "MPO", save_all=True, append_images=frames[1:])
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert not open_picture(tmp_path / "a.jpg").animated


def test_a_fault_names_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="none of JPEG, PNG, BMP, GIF, TIFF") as caught:
        open_picture(tmp_path / "a.png")
    assert str(tmp_path) not in str(caught.value)
