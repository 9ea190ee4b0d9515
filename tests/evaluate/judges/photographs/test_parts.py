import numpy
import pytest
import torch
from PIL import Image
from test_faces import face_labels
from tiny_scorers import PART_NAMES, make_parser

from spf_lora.data.worlds.portraits import ATTRIBUTES
from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.masks import read_masks
from spf_lora.evaluate.judges.photographs.parsing import PARTS, Parser, consistency, dilate


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    return Parser(make_parser(tmp_path_factory.mktemp("p") / "parser"), torch.device("cpu"))


def test_labels_have_the_pictures_size(parser):
    labels = parser.labels(torch.rand(2, 3, 100, 100) * 2 - 1)
    assert labels.shape == (2, 100, 100)
    assert labels.max() < len(PART_NAMES)


def test_a_beard_may_act_below_the_nose_and_glasses_at_the_eyes(parser):
    face = face_labels(100, 5, 10)[None]
    beard = parser.region("beard", face, face)[0, 0]
    glasses = parser.region("glasses", face, face)[0, 0]
    assert beard[70, 30] == 1
    assert beard[:40].max() == 0
    assert beard[:, 80:].max() == 0
    assert glasses[32, 20] == 1
    assert glasses[60:].max() == 0


def test_what_the_attribute_brings_belongs_to_its_region(parser):
    before = face_labels(100, 5, 10)[None]
    after = before.clone()
    after[:, 0:8] = PART_NAMES.index("hat")
    after[:, 90:] = PART_NAMES.index("cloth")
    region = parser.region("hat", before, after)[0, 0]
    assert region[:8].min() == 1
    assert region[90:].max() == 0


def test_every_attribute_of_the_portrait_world_has_its_parts():
    assert set(PARTS) == set(ATTRIBUTES)


def test_an_attribute_without_parts_asks_for_mask_files(parser):
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    with pytest.raises(ScorerError, match="no parts of a face are known for 'freckles'") as refused:
        parser.region("freckles", labels, labels)
    assert "mask pictures" in refused.value.hint


def test_consistency_is_the_mean_iou_of_the_parts_present():
    one, other = torch.zeros(2, 1, 4, 4, dtype=torch.long)
    one[:, :2] = 1  # 8 pixels of part 1, 8 of part 0
    other[:, :1] = 1  # 4 of part 1, 12 of part 0
    assert consistency(one, other, None).tolist() == pytest.approx([(4 / 8 + 8 / 12) / 2])
    outside = torch.ones(1, 1, 4, 4)
    outside[..., 1, :] = 0  # the row that changed
    assert consistency(one, other, outside).tolist() == [1]
    assert consistency(one, other, outside * 0).isnan().all()


def test_dilation_grows_on_every_side():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1
    assert dilate(mask, 2).sum() == 25


def mask_picture(path, side=16, white=slice(0, 8), shape=None):
    grey = numpy.zeros(shape or (side, side), dtype=numpy.uint8)
    grey[white] = 255
    Image.fromarray(grey).save(path)


def test_masks_are_read_by_name_or_one_for_all(tmp_path):
    mask_picture(tmp_path / "a.png")
    mask_picture(tmp_path / "b.png", white=slice(8, 16))
    both = read_masks(tmp_path, ["b", "a"], side=8)
    assert both.shape == (2, 1, 8, 8)
    assert both[0, 0, 4:].min() == both[1, 0, :4].min() == 1
    assert both.sum() == 64
    mask_picture(tmp_path / "all.png")
    assert torch.equal(read_masks(tmp_path, ["b", "a"], side=8), both[1:].expand(2, -1, -1, -1))


def test_masks_that_mark_nothing_or_are_missing_are_refused(tmp_path):
    with pytest.raises(ScorerError, match=r"holds no mask x\.png and 1 more"):
        read_masks(tmp_path, ["x", "y"], side=8)
    mask_picture(tmp_path / "x.png", white=slice(0, 0))
    with pytest.raises(ScorerError, match="wholly black"):
        read_masks(tmp_path, ["x"], side=8)
    mask_picture(tmp_path / "x.png", shape=(16, 8))
    with pytest.raises(ScorerError, match="8 x 16, not square"):
        read_masks(tmp_path, ["x"], side=8)
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(ScorerError, match="cannot be read as a picture"):
        read_masks(tmp_path, ["x"], side=8)
