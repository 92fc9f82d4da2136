"""Text towers: padding, texts without tokens, frozen ones, and what their folders lack."""

import pytest
import torch

from src.models.text import TextTower
from src.models.text_config import SmallTextConfig, TransformersTextConfig

SMALL = SmallTextConfig(name="small", width=16, depth=2, heads=2, positions=32)
TOKENS = 50


@pytest.fixture
def folder(tmp_path):
    """A folder of weights that transformers wrote, with a pooler that no vector depends on."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=TOKENS, max_position_embeddings=24, **sizes)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def texts(rows=4, length=10, seed=0):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, TOKENS, (rows, length), generator=draw)
    keep = torch.arange(length) < torch.tensor([length, 3, 1, 7])[:rows, None]
    return ids, keep


@pytest.mark.parametrize("pool", ["mean", "first"])
def test_padding_and_what_stands_in_it_change_nothing(pool):
    tower = TextTower(SMALL.model_copy(update={"pool": pool}), TOKENS).eval()
    ids, keep = texts()
    vectors = tower(ids, keep)
    other = torch.where(keep, ids, 7)
    longer = torch.nn.functional.pad(ids, (0, 6), value=3), torch.nn.functional.pad(keep, (0, 6))
    torch.testing.assert_close(tower(other, keep), vectors, atol=1e-6, rtol=0)
    torch.testing.assert_close(tower(*longer), vectors, atol=1e-6, rtol=0)
    alone = torch.cat([tower(ids[row, None, :count], keep[row, None, :count]) for row, count in [(1, 3), (2, 1)]])
    torch.testing.assert_close(vectors[1:3], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_text_without_tokens_is_finite_and_changes_no_other(dtype):
    tower = TextTower(SMALL, TOKENS)
    ids, keep = texts()
    empty = keep.clone()
    empty[1] = False
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        with_text, without = tower(ids, keep), tower(ids, empty)
    assert without.isfinite().all()
    others = [0, 2, 3]
    torch.testing.assert_close(without[others], with_text[others])
    without[others].float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in tower.parameters())


def test_every_trained_parameter_has_a_gradient(folder):
    for config in (SMALL, TransformersTextConfig(name="transformers", folder=str(folder))):
        tower = TextTower(config, TOKENS)
        tower(*texts()).square().sum().backward()
        lacking = {name for name, parameter in tower.named_parameters() if parameter.grad is None}
        assert lacking == {name for name, parameter in tower.named_parameters() if not parameter.requires_grad}
        assert all("pooler" in name for name in lacking)


def test_a_folder_gives_its_weights_and_a_frozen_tower_learns_nothing(folder):
    from transformers import AutoModel

    frozen = TextTower(TransformersTextConfig(name="transformers", folder=str(folder), frozen=True), TOKENS).eval()
    ids, keep = texts(1)
    found = AutoModel.from_pretrained(folder)(input_ids=ids, attention_mask=keep.long()).last_hidden_state.mean(1)
    torch.testing.assert_close(frozen(ids, keep), found.detach(), atol=1e-6, rtol=0)
    assert not frozen(ids, keep).requires_grad and not any(p.requires_grad for p in frozen.parameters())


def test_what_does_not_fit_is_told(folder, tmp_path):
    config = TransformersTextConfig(name="transformers", folder=str(folder))
    with pytest.raises(ValueError, match=f"knows {TOKENS} tokens, but the tokenizer has 51"):
        TextTower(config, TOKENS + 1)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model.text.folder .*bert has no model.safetensors"):
        TextTower(config, TOKENS)
    with pytest.raises(ValueError, match="model.text.folder .*none has no config.json"):
        _ = TransformersTextConfig(name="transformers", folder=str(tmp_path / "none")).longest
    carried = config.carried().drawn()
    (folder / "config.json").unlink()
    assert TextTower(TransformersTextConfig.model_validate(carried.model_dump()), TOKENS).width == 16
    with pytest.raises(ValueError, match="width 30 must be divisible by heads 4"):
        SmallTextConfig(name="small", width=30, heads=4)


def test_the_longest_text_of_a_roberta_leaves_out_the_places_of_padding(tmp_path):
    from transformers import RobertaConfig, RobertaModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    RobertaModel(RobertaConfig(vocab_size=TOKENS, max_position_embeddings=26, **sizes)).save_pretrained(tmp_path)
    config = TransformersTextConfig(name="transformers", folder=str(tmp_path))
    tower, longest = TextTower(config, TOKENS), config.longest
    assert longest == 24
    keep = torch.ones(1, longest, dtype=torch.bool)
    assert tower(torch.full((1, longest), 5), keep).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        tower(torch.full((1, longest + 1), 5), torch.ones(1, longest + 1, dtype=torch.bool))
