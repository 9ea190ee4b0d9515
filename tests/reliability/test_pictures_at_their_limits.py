"""The largest picture that each kind may be takes at most 500 MB to read."""

import pytest
from peak_memory import STATUS, peaks
from PIL import Image

from spf_lora.data.decoding import LIMITS

MOST_MEGABYTES = 500
SETUP = "from spf_lora.data.pictures import open_picture; import PIL.ImageCms, pathlib"
MEASURED = "open_picture(pathlib.Path(word))"
# kind -> the mode that takes most, and how it is saved
KINDS = {
    "JPEG": ("CMYK", "jpg", {"quality": 50}),
    "progressive JPEG": ("CMYK", "jpg", {"quality": 95, "subsampling": 0, "progressive": True}),
    "PNG": ("RGBA", "png", {"compress_level": 1}),
    "BMP": ("RGB", "bmp", {}),
    "GIF": ("P", "gif", {}),
    "TIFF": ("RGBA", "tif", {"compression": "tiff_deflate"}),
    "WEBP": ("RGBA", "webp", {"lossless": True, "method": 0}),
    "AVIF": ("RGBA", "avif", {"speed": 10}),
}


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("ratio", [1, 8])
def test_the_largest_picture_of_a_kind_takes_500_mb_at_most(
    kind, ratio, tmp_path, record_property, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    mode, suffix, how = KINDS[kind]
    most = 65_000 if kind.endswith("JPEG") else 16_383 if kind == "WEBP" else 10**6
    high = min(int((LIMITS[kind].megapixels * 1e6 / ratio) ** 0.5), most // ratio)
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (high, ratio * high)).save(path, **how)
    (added,) = peaks(SETUP, MEASURED, [path])
    record_property("told", f"{kind} of {high}x{ratio * high}: {added:.0f} MB")
    assert added < MOST_MEGABYTES
