from pathlib import Path

import pytest
from tiny_scorers import make_clip, make_dinov2, make_face, make_parser, make_trunk


@pytest.fixture(scope="session")
def scorer_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root: Path = tmp_path_factory.mktemp("scorers")
    make_trunk(root / "vgg16", "alex")
    make_face(root / "face")
    make_parser(root / "parser")
    make_clip(root / "clip")
    make_dinov2(root / "dinov2")
    return {folder.name: str(folder) for folder in root.iterdir()}
