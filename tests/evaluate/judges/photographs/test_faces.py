import cmath

import pytest
import torch
from safetensors.torch import save_file
from tiny_scorers import PART_NAMES, make_face, make_parser

from spf_lora.errors import ScorerError
from spf_lora.evaluate.judges.photographs.faces import TEMPLATE, FaceNet, align, load_face_net
from spf_lora.evaluate.judges.photographs.parsing import Parser
from spf_lora.evaluate.judges.photographs.scorers import Pictures, open_scorer

CPU = torch.device("cpu")


@pytest.mark.parametrize("prefix", ["", "net.", "model.net."])
def test_a_face_net_is_read_whatever_stands_before_its_keys(prefix, tmp_path):
    made = make_face(tmp_path / "face", prefix)
    read = load_face_net(tmp_path / "face", CPU)
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    torch.testing.assert_close(read(faces), made(faces))
    assert read(faces).norm(dim=1) == pytest.approx([1, 1])


def test_the_real_sizes_give_the_published_shapes():
    with torch.device("meta"):
        blocks = (64,) * 3 + (128,) * 4 + (256,) * 14 + (512,) * 3  # IR-50
        state = FaceNet(64, blocks, 512).state_dict()
    assert state["output_layer.3.weight"].shape == (512, 512 * 7 * 7)
    assert state["body.3.shortcut_layer.0.weight"].shape == (128, 64, 1, 1)
    assert "body.0.shortcut_layer.0.weight" not in state
    assert sum(v.numel() for v in state.values()) == pytest.approx(43.6e6, rel=0.01)  # 175 MB


def test_blocks_of_another_kind_are_refused(tmp_path):
    state = make_face(tmp_path / "face").state_dict()
    del state["body.1.res_layer.3.weight"]
    save_file(state, tmp_path / "face" / "model.safetensors")
    with pytest.raises(ScorerError, match="blocks are of another kind"):
        load_face_net(tmp_path / "face", CPU)


def test_eyes_and_mouth_land_on_the_template():
    # Three coloured spots on a 300 px picture, turned and scaled by a known similarity.
    turn, shift = 2.0 * cmath.exp(0.3j), complex(40, 20)
    points = tuple(turn * point + shift for point in TEMPLATE)
    rows, columns = torch.meshgrid(torch.arange(300), torch.arange(300), indexing="ij")
    picture = torch.stack(
        [torch.exp(-((columns - p.real) ** 2 + (rows - p.imag) ** 2) / 50) for p in points]
    )
    face = align(picture, points)
    for channel, wanted in zip(face, TEMPLATE, strict=True):
        row, column = divmod(int(channel.argmax()), 112)
        assert abs(complex(column, row) - wanted) < 1


def face_labels(side: int, left: int, top: int) -> torch.Tensor:
    """A face of boxes: two eyes and a mouth in skin."""
    labels = torch.zeros(side, side, dtype=torch.long)
    boxes = [
        ("skin", 0, 0, 60, 70),
        ("r_eye", 10, 20, 10, 6),
        ("l_eye", 40, 20, 10, 6),
        ("nose", 26, 30, 8, 12),
        ("mouth", 20, 50, 20, 6),
    ]
    for name, x, y, width, height in boxes:
        labels[top + y : top + y + height, left + x : left + x + width] = PART_NAMES.index(name)
    return labels


def test_landmarks_are_ordered_as_seen_whoever_names_left(tmp_path):
    parser = Parser(make_parser(tmp_path / "parser"), CPU)
    left, right, mouth = parser.landmarks(face_labels(100, 5, 10))
    assert left == pytest.approx(complex(19.5, 32.5))
    assert right == pytest.approx(complex(49.5, 32.5))
    assert mouth == pytest.approx(complex(34.5, 62.5))
    assert parser.landmarks(torch.zeros(100, 100, dtype=torch.long)) is None


def test_identity_does_not_mind_where_the_face_stands(scorer_folders, monkeypatch):
    """A moved face is the same one, another face is not, no face is no number."""

    def painted(labels):  # a picture that shows its own parts
        torch.manual_seed(5)
        return torch.rand(len(PART_NAMES), 3)[labels].permute(2, 0, 1) * 2 - 1

    def seen(_, pixels):
        torch.manual_seed(5)
        palette = torch.rand(len(PART_NAMES), 3) * 2 - 1
        flat = pixels.permute(0, 2, 3, 1).reshape(-1, 3)
        return torch.cdist(flat, palette).argmin(1).reshape(-1, *pixels.shape[-2:])

    monkeypatch.setattr(Parser, "labels", seen)
    face = painted(face_labels(100, 5, 10))
    moved = painted(face_labels(100, 30, 22))
    other_labels = face_labels(100, 5, 10)
    other_labels[60:80, 5:65] = PART_NAMES.index("u_lip")
    nobody = painted(torch.zeros(100, 100).long())
    masked = face.clone()
    masked[:, 20:40, 5:65] = painted(torch.full((1, 1), PART_NAMES.index("eye_g")))
    score = open_scorer("identity", sources=scorer_folders)
    before = torch.stack([face, face, face, nobody, face])
    after = torch.stack([face, moved, painted(other_labels), face, masked])
    same, shifted, changed, none, glasses = score(Pictures(before, after)).tolist()
    assert same == pytest.approx(1, abs=1e-5)
    assert shifted == pytest.approx(1, abs=1e-3)
    assert changed < shifted
    assert none != none
    assert glasses < 1 - 1e-5  # found where the face was, and not the same pixels
