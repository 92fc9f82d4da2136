"""Published architectures, built by transformers from small configs with random weights, against ours."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import IJepaConfig, IJepaModel, VJEPA2Config, VJEPA2Model

from src.models.build import build_encoder
from src.models.config import EncoderConfig, PredictorConfig, VisionEncoderConfig
from src.models.predictor import Predictor
from src.models.published import (
    IJEPA as IJEPA_LAYOUT,
)
from src.models.published import (
    MASK_TOKENS,
    POSITIONS,
    VJEPA2_PREDICTOR,
    Layout,
    from_authors,
    from_ijepa,
    from_vjepa2,
    to_ijepa,
    to_vjepa2,
)
from src.models.published import (
    VJEPA2 as VJEPA2_LAYOUT,
)
from src.models.vit import gather_tokens
from src.optimization.ema import update_ema

CLOSE = {"rtol": 0.0, "atol": 1e-5}
DTYPES = pytest.mark.parametrize(
    ("dtype", "close"),
    [(torch.float32, {"rtol": 1e-5, "atol": 1e-6}), (torch.float64, {"rtol": 0.0, "atol": 1e-6})],
    ids=["fp32", "fp64"],
)
"""Of gradients, some of which are above 1: in fp32 they are rounded by more than 1e-6 on either side."""
IJEPA = IJepaConfig(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=96,
    image_size=56,
    patch_size=14,
    layer_norm_eps=1e-6,
)
VJEPA2 = VJEPA2Config(
    hidden_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    mlp_ratio=3.0,
    frames_per_clip=8,
    crop_size=48,
    patch_size=16,
    tubelet_size=2,
    pred_hidden_size=40,
    pred_num_attention_heads=4,
    pred_num_hidden_layers=2,
    pred_num_mask_tokens=2,
)


def drawn(model):
    """The model with weights that leave nothing at zero or one, so that each of them matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def ijepa():
    torch.manual_seed(0)
    return drawn(IJepaModel(IJEPA))


@pytest.fixture
def vjepa2():
    torch.manual_seed(0)
    return drawn(VJEPA2Model(VJEPA2))


def masks(tokens, context, batch=2):
    """Context and target tokens [B, K], [B, T]: all others."""
    generator = torch.Generator().manual_seed(2)
    order = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
    return order[:, :context].sort(1).values, order[:, context:].sort(1).values


def test_images_give_the_tokens_of_ijepa(ijepa):
    images = torch.randn(2, 3, 56, 56)
    torch.testing.assert_close(from_ijepa(ijepa)(images), ijepa(images).last_hidden_state, **CLOSE)


def test_ijepas_weights_go_there_and_back(ijepa):
    encoder = from_ijepa(ijepa)
    for name, tensor in to_ijepa(encoder).state_dict().items():
        assert torch.equal(tensor, ijepa.state_dict()[name]), name


def test_an_own_encoder_goes_to_ijepa():
    torch.manual_seed(0)
    config = VisionEncoderConfig(name="vit_tiny", depth=2, colors=1, input=(32, 32), patch=(8, 8))
    encoder = drawn(build_encoder(config))
    images = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(to_ijepa(encoder).eval()(images).last_hidden_state, encoder(images), **CLOSE)


def test_videos_give_the_tokens_of_vjepa2(vjepa2):
    videos = torch.randn(2, 3, 8, 48, 48)
    encoder, _ = from_vjepa2(vjepa2)
    theirs = vjepa2(videos.transpose(1, 2), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(encoder(videos), theirs, **CLOSE)


@pytest.mark.parametrize("kind", [0, 1])
def test_the_predictor_gives_what_vjepa2s_does(vjepa2, kind):
    encoder, predictor = from_vjepa2(vjepa2)
    context, targets = masks(36, 14)
    tokens = encoder(torch.randn(2, 3, 8, 48, 48))
    predicted = predictor(gather_tokens(tokens, context), context, targets.unsqueeze(1), kind)
    embeddings, places = vjepa2.predictor.embeddings(gather_tokens(tokens, context), [context], [targets], kind)
    hidden = embeddings
    for layer in vjepa2.predictor.layer:
        hidden = layer(hidden, places)[0]
    theirs = vjepa2.predictor.proj(vjepa2.predictor.layernorm(hidden))[:, 14:]
    torch.testing.assert_close(predicted[:, 0], theirs, **CLOSE)
    if kind == 1:  # what their own forward asks for
        whole = vjepa2.predictor(tokens, [context], [targets]).last_hidden_state
        torch.testing.assert_close(predicted[:, 0], whole, **CLOSE)


def test_vjepa2s_weights_go_there_and_back(vjepa2):
    for name, tensor in to_vjepa2(*from_vjepa2(vjepa2)).state_dict().items():
        assert torch.equal(tensor, vjepa2.state_dict()[name]), name


@DTYPES
def test_a_step_of_training_is_that_of_vjepa2s_modules(vjepa2, dtype, close):
    """Loss, all gradients, the weights after a step, and the teacher's average, from the same weights."""
    theirs, (student, predictor) = vjepa2.train().to(dtype), (part.to(dtype) for part in from_vjepa2(vjepa2))
    teacher, their_teacher = copy.deepcopy(student), copy.deepcopy(theirs.encoder)
    videos = torch.randn(2, 3, 8, 48, 48, dtype=dtype)
    frames = videos.transpose(1, 2)
    context, targets = masks(36, 12)
    with torch.no_grad():
        wanted = gather_tokens(F.layer_norm(teacher(videos), (64,)), targets)
        their_wanted = gather_tokens(F.layer_norm(their_teacher(frames).last_hidden_state, (64,)), targets)
    predicted = predictor(student(videos, context), context, targets.unsqueeze(1), 1)[:, 0]
    loss = F.l1_loss(predicted, wanted)
    # their encoder sees all tokens or none, so its layers are called with the places of those that are kept
    hidden = gather_tokens(theirs.encoder.embeddings(frames), context)
    for layer in theirs.encoder.layer:
        hidden = layer(hidden, context)[0]
    hidden, places = theirs.predictor.embeddings(theirs.encoder.layernorm(hidden), [context], [targets], 1)
    for layer in theirs.predictor.layer:
        hidden = layer(hidden, places)[0]
    their_loss = F.l1_loss(theirs.predictor.proj(theirs.predictor.layernorm(hidden))[:, 12:], their_wanted)
    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-6)

    loss.backward()
    their_loss.backward()
    slopes = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected = VJEPA2_LAYOUT.ours(slopes, 3)
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], **close, msg=name)
    expected = VJEPA2_PREDICTOR.ours(slopes, 2) | {"mask_tokens.1": slopes[MASK_TOKENS][1]}
    for name, parameter in predictor.named_parameters():
        if name != "mask_tokens.0":  # the other kind of mask
            torch.testing.assert_close(parameter.grad, expected[name], **close, msg=name)

    for parameters in ([*student.parameters(), *predictor.parameters()], theirs.parameters()):
        torch.optim.SGD(parameters, lr=0.1).step()
    update_ema(teacher, student, 0.9)
    with torch.no_grad():
        for average, new in zip(their_teacher.parameters(), theirs.encoder.parameters(), strict=True):
            average.mul_(0.9).add_(new, alpha=0.1)
    expected = VJEPA2_LAYOUT.ours({f"encoder.{name}": p for name, p in their_teacher.named_parameters()}, 3)
    for name, parameter in teacher.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0.0, atol=1e-6, msg=name)


class PredictorOfLayers(torch.nn.Module):
    """I-JEPA's predictor out of transformers' layers, as the paper has it: one target block at a time."""

    def __init__(self, config, width, tokens):
        super().__init__()
        self.embed = torch.nn.Linear(width, config.hidden_size)
        self.mask_token = torch.nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.positions = torch.nn.Parameter(torch.zeros(1, tokens, config.hidden_size))
        model = IJepaModel(config)
        self.layers, self.layernorm = model.layers, model.layernorm
        self.project = torch.nn.Linear(config.hidden_size, width)

    def forward(self, seen, context, target):
        known = self.embed(seen) + self.positions[0][context]
        asked = self.mask_token + self.positions[0][target]
        hidden = torch.cat([known, asked], dim=1)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.project(self.layernorm(hidden)[:, context.shape[1] :])


LAYERS_PREDICTOR = Layout(
    {"predictor_embed": "embed", "predictor_proj": "project"}
    | {ours: theirs for ours, theirs in IJEPA_LAYOUT.layers.items() if ours != "patch_embed.proj"},
    IJEPA_LAYOUT.qkv,
)


def by_our_names(their_state):
    """Tensors of that predictor."""
    own = {"mask_tokens.0": their_state["mask_token"], "places.learned": their_state["positions"]}
    return LAYERS_PREDICTOR.ours(their_state, 2) | own


@DTYPES
def test_a_step_of_training_is_that_of_ijepas_modules(ijepa, dtype, close):
    """Loss over four blocks that are predicted apart, all gradients, the weights after a step, the teacher's average.

    Transformers' model sees all tokens or none and has no predictor: its layers are called with what they are to see.
    """
    theirs, their_teacher = ijepa.train().to(dtype), copy.deepcopy(ijepa)
    small = IJEPA.to_diff_dict() | {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 96}
    their_predictor = drawn(PredictorOfLayers(IJepaConfig(**small), 48, 16)).train().to(dtype)
    student = from_ijepa(theirs).to(dtype)
    teacher = copy.deepcopy(student)
    predictor = Predictor(PredictorConfig(width=24, depth=2, heads=4), 48, (4, 4), "learned").to(dtype)
    predictor.load_state_dict(by_our_names(their_predictor.state_dict()))

    images = torch.randn(2, 3, 56, 56, dtype=dtype)
    context, others = masks(16, 7)
    targets = torch.stack([others[:, [0, 1, 2]], others[:, [2, 3, 4]], others[:, [4, 6, 8]], others[:, [5, 7, 1]]], 1)
    with torch.no_grad():
        wanted = F.layer_norm(teacher(images), (48,))
        their_wanted = F.layer_norm(their_teacher(images).last_hidden_state, (48,))
    predicted = predictor(student(images, context), context, targets)
    loss = F.smooth_l1_loss(predicted, gather_tokens(wanted, targets.flatten(1)).view_as(predicted))
    hidden = gather_tokens(theirs.embeddings(images), context)
    for layer in theirs.layers:
        hidden = layer(hidden)
    seen = theirs.layernorm(hidden)
    blocks = [(their_predictor(seen, context, one), gather_tokens(their_wanted, one)) for one in targets.unbind(1)]
    their_loss = sum(F.smooth_l1_loss(guess, wish) for guess, wish in blocks) / 4
    assert loss.item() == pytest.approx(their_loss.item(), abs=1e-6)

    loss.backward()
    their_loss.backward()
    slopes = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    expected = IJEPA_LAYOUT.ours(slopes, 3) | {"places.learned": slopes[POSITIONS]}
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], **close, msg=name)
    expected = by_our_names({name: parameter.grad for name, parameter in their_predictor.named_parameters()})
    assert expected.keys() == dict(predictor.named_parameters()).keys()
    for name, parameter in predictor.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], **close, msg=name)

    own = [*student.parameters(), *predictor.parameters()]
    for parameters in (own, [*theirs.parameters(), *their_predictor.parameters()]):
        torch.optim.SGD(parameters, lr=0.1).step()
    update_ema(teacher, student, 0.9)
    with torch.no_grad():
        for average, new in zip(their_teacher.parameters(), theirs.parameters(), strict=True):
            average.mul_(0.9).add_(new, alpha=0.1)
    for network, model in ((student, theirs), (teacher, their_teacher)):
        state = model.state_dict()
        expected = IJEPA_LAYOUT.ours(state, 3) | {"places.learned": state[POSITIONS]}
        for name, parameter in network.named_parameters():
            torch.testing.assert_close(parameter, expected[name], rtol=0.0, atol=1e-6, msg=name)
    expected = by_our_names(their_predictor.state_dict())
    for name, parameter in predictor.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=0.0, atol=1e-6, msg=name)


def by_formula(state, images, context, targets, heads, predictor_heads):
    """I-JEPA's teacher tokens and its prediction of one target, from the names in its authors' files."""

    def linear(x, name, of):
        return x @ of[f"{name}.weight"].flatten(1).T + of[f"{name}.bias"]

    def norm(x, name, of):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-6) * of[f"{name}.weight"] + of[f"{name}.bias"]

    def block(x, name, of, heads):
        q, k, v = linear(norm(x, f"{name}.norm1", of), f"{name}.attn.qkv", of).unflatten(-1, (3, heads, -1)).unbind(2)
        weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        x = x + linear(torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2), f"{name}.attn.proj", of)
        return x + linear(F.gelu(linear(norm(x, f"{name}.norm2", of), f"{name}.mlp.fc1", of)), f"{name}.mlp.fc2", of)

    of = {name.removeprefix("module."): value for name, value in state["target_encoder"].items()}
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = linear(patches, "patch_embed.proj", of) + of["pos_embed"]
    for n in range(2):
        tokens = block(tokens, f"blocks.{n}", of, heads)
    tokens = norm(tokens, "norm", of)
    of = {name.removeprefix("module."): value for name, value in state["predictor"].items()}
    x = linear(gather_tokens(tokens, context), "predictor_embed", of) + of["predictor_pos_embed"][0][context]
    x = torch.cat([x, of["mask_token"] + of["predictor_pos_embed"][0][targets]], dim=1)
    x = block(x, "predictor_blocks.0", of, predictor_heads)
    return tokens, linear(norm(x, "predictor_norm", of), "predictor_proj", of)[:, context.shape[1] :]


@pytest.fixture
def authors():
    """What a file of I-JEPA's authors holds: a ViT of 2 blocks on 16 tokens, its predictor of one, and the rest."""
    generator = torch.Generator().manual_seed(3)

    def network(blocks, width, depth, **others):
        shapes = {f"{blocks}.{n}.{name}": shape for n in range(depth) for name, shape in block_shapes(width).items()}
        drawn = {name: 0.3 * torch.randn(*shape, generator=generator) for name, shape in (shapes | others).items()}
        return {f"module.{name}": value for name, value in drawn.items()}

    def layer(name, inner, outer, kernel=()):
        return {f"{name}.weight": (outer, inner, *kernel), f"{name}.bias": (outer,)}

    def block_shapes(D):
        norms = {f"norm{k}.{part}": (D,) for k in (1, 2) for part in ("weight", "bias")}
        mlp = layer("mlp.fc1", D, 2 * D) | layer("mlp.fc2", 2 * D, D)
        return norms | layer("attn.qkv", D, 3 * D) | layer("attn.proj", D, D) | mlp

    def norm(name, D):
        return {f"{name}.weight": (D,), f"{name}.bias": (D,)}

    encoder = {"pos_embed": (1, 16, 24)} | layer("patch_embed.proj", 3, 24, (4, 4)) | norm("norm", 24)
    inner = {"mask_token": (1, 1, 12), "predictor_pos_embed": (1, 16, 12)} | norm("predictor_norm", 12)
    inner |= layer("predictor_embed", 24, 12) | layer("predictor_proj", 12, 24)
    saved = {
        "encoder": network("blocks", 24, 2, **encoder),
        "target_encoder": network("blocks", 24, 2, **encoder),
        "predictor": network("predictor_blocks", 12, 1, **inner),
    }
    return saved | {"opt": {}, "scaler": None, "epoch": 300, "loss": 0.1, "batch_size": 128, "world_size": 16}


def test_a_file_of_ijepas_authors(authors, tmp_path):
    # their predictor's MLP is four times as wide as it is, whatever the encoder's
    for n, (inner, outer) in {1: (12, 48), 2: (48, 12)}.items():
        authors["predictor"][f"module.predictor_blocks.0.mlp.fc{n}.weight"] = 0.3 * torch.randn(outer, inner)
        authors["predictor"][f"module.predictor_blocks.0.mlp.fc{n}.bias"] = 0.3 * torch.randn(outer)
    torch.save(authors, tmp_path / "in1k.pth.tar")
    encoder, predictor, student = from_authors(tmp_path / "in1k.pth.tar", heads=3, predictor_heads=2)
    images = torch.randn(2, 3, 16, 16)
    context, targets = masks(16, 9)
    tokens, predicted = by_formula(authors, images, context, targets, 3, 2)
    torch.testing.assert_close(encoder(images), tokens, **CLOSE)
    own = predictor(gather_tokens(encoder(images), context), context, targets.unsqueeze(1))
    torch.testing.assert_close(own[:, 0], predicted, **CLOSE)
    tokens, _ = by_formula(authors | {"target_encoder": authors["encoder"]}, images, context, targets, 3, 2)
    torch.testing.assert_close(student(images), tokens, **CLOSE)
    with pytest.raises(ValueError, match="an encoder 24 wide is no usual one, .*: give --heads"):
        from_authors(tmp_path / "in1k.pth.tar")


@pytest.mark.parametrize("content", [{"model": {}}, {"target_encoder": {}, "predictor": {}}, [1], None])
def test_a_file_that_is_none_of_theirs_is_refused(tmp_path, content):
    path = tmp_path / "other.pth.tar"
    if content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"other\.pth\.tar is (no checkpoint of I-JEPA|not there)"):
        from_authors(path, 3, 2)


def test_an_mlp_is_as_wide_there_though_its_ratio_is_rounded():
    """488 / 56 x 56 is 487.99999999999994, which transformers would make 487."""
    section = {"name": "vit_tiny", "width": 56, "heads": 2, "depth": 1, "mlp_hidden": 488, "positions": "rope_vjepa2"}
    config = VisionEncoderConfig(**section, input=(2, 16, 16), patch=(2, 8, 8))
    predictor = Predictor(PredictorConfig(width=24, depth=1, heads=2), 56, config.grid, "rope_vjepa2")
    encoder, _ = from_vjepa2(to_vjepa2(build_encoder(config), predictor))
    assert encoder.config.mlp_width == 488


def test_what_is_built_otherwise_is_refused():
    with pytest.raises(ValueError, match=r"IJepaConfig\.layer_norm_eps is 1e-12; encoders here have 1e-06"):
        from_ijepa(IJepaModel(IJepaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)))
    with pytest.raises(ValueError, match=r"VJEPA2Config\.pred_mlp_ratio is 2\.0"):
        from_vjepa2(VJEPA2Model(VJEPA2Config(**VJEPA2.to_diff_dict() | {"pred_mlp_ratio": 2.0})))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"positions": "rope"}, "positions: rope have no place in I-JEPA; sincos and learned do"),
        ({"registers": 2}, "registers have no place in I-JEPA"),
        ({"input": (16, 32)}, "is oblong"),
        ({"input": (4, 16, 16), "patch": (2, 8, 8)}, "an encoder of 3 axes has no place in I-JEPA, which has 2"),
    ],
)
def test_what_has_no_place_in_ijepa_is_refused(keys, said):
    section = {"name": "vit_tiny", "depth": 1, "input": (16, 16), "patch": (8, 8)} | keys
    with pytest.raises(ValueError, match=said):
        to_ijepa(build_encoder(VisionEncoderConfig(**section)))


def test_an_encoder_of_ecgs_has_no_place_in_either():
    encoder = build_encoder(EncoderConfig(name="ecg_tiny", leads=2, length=40, patch=4))
    with pytest.raises(ValueError, match="an encoder of 1 axes has no place in V-JEPA 2"):
        to_vjepa2(encoder, Predictor(PredictorConfig(), 128, (10,)))
