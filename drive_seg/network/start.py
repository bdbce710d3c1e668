"""What a run begins with: the weights of a checkpoint, or those of a finished model's graph.

A graph has its batch norms folded into the convolutions. Taken apart again as a norm that does nothing, such a network
would be another one as soon as it is trained on the statistics of a batch. So the norms are settled: they take the mean
and variance that the first batches of the run have there, and the scale and shift that cancel them out.

What is before a norm may have any size, but the optimiser's steps have not: filters that folding has left small would
be learnt up to a hundred times too fast. So they get the size that those of a fresh network have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from drive_seg.errors import ConfigError, MissingDependency, ModelError, pip_install
from drive_seg.model import open_model
from drive_seg.network.checkpoint import Checkpoint, how_to_have, load_checkpoint
from drive_seg.network.panoptic import NetworkConfig, PanopticNet
from drive_seg.network.terms import Terms

_WIDENED = ("up16", "skip", "fuse", "detail", "refine", "semantic", "instance")
"""Layers whose widths are those of the decoder and the head."""
SETTLING = 8
"""Batches that norms are settled on."""


@dataclass(frozen=True)
class Start:
    """What a network was given. ``folded``: its norms were, so ``settle`` has to be called before training."""

    terms: Terms
    folded: bool


def start_from(net: PanopticNet, spec: str) -> Start:
    """Give a network the weights of ``spec``; returns what those are.

    What a checkpoint has not (a new head) stays as it is; what it has, the network must have, too. It may be of a
    narrower ``decoder`` or ``head``: the network says the same as that one until it has learnt to use the rest.

    Args:
        spec: a checkpoint of ``drive_seg train`` (.pt), or a model with a floating-point graph: its sidecar or name.

    Raises:
        ConfigError: there is no such file, or it is of another network.
        MissingDependency: onnx is not installed, which reading a model takes.
    """
    if spec.endswith(".pt"):
        if not Path(spec).is_file():
            raise ConfigError(
                f"start: checkpoint {spec} does not exist; give another, or a model (default), or nothing for ImageNet"
            )
        try:
            found = load_checkpoint(Path(spec))
        except ModelError as error:
            raise ConfigError(f"start: {error}") from error
        _grow(net, found, spec)
        return Start(found.terms, folded=False)
    try:
        model = open_model(spec)
        graph = model.onnx.get("fp32") or model.onnx.get("fp16")
        if graph is None:
            raise ModelError(f"{model.path} has no fp32 or fp16 graph, whose weights could be learnt on")
        graph.verify()
    except ModelError as error:
        raise ConfigError(f"start: neither a checkpoint (.pt) nor a model to go on from: {error}") from error
    _fill(net, graph.path)
    return Start(Terms(str(model.training_data or ""), model.license), folded=True)


def _grow(net: PanopticNet, start: Checkpoint, spec: str) -> None:
    """What is wider than the checkpoint's keeps its fresh filters there; its old ones do not hear the new ones yet."""
    own = net.state_dict()
    weights = dict(start.average)
    strangers = sorted({name.split(".")[0] for name in set(weights) - set(own)})
    if strangers:
        raise ConfigError(
            f"start: {spec} is of another network: what it has learnt in {', '.join(strangers)} would be lost; "
            f"{how_to_have(start.network, net.config)}"
        )
    for name, found in start.average.items():
        if name not in own or own[name].shape == found.shape:
            continue
        wider = own[name].clone()
        if not name.startswith(_WIDENED) or any(old > new for old, new in zip(found.shape, wider.shape, strict=True)):
            raise ConfigError(
                f"start: {spec} is of another network: {name} is {tuple(found.shape)}, expected {tuple(wider.shape)}; "
                "decoder and head may grow, everything else has to be the same; "
                f"{how_to_have(start.network, net.config)}"
            )
        outputs, *inputs = found.shape
        wider[:outputs] = 0
        wider[(slice(outputs), *map(slice, inputs))] = found
        weights[name] = wider
    net.load_state_dict(weights, strict=False)


def _fill(net: PanopticNet, graph: Path) -> None:
    layers, weights = _convolutions(net), _folded(graph)
    shapes = [tuple(layer.weight.shape) for layer, _ in layers]
    found = [kernel.shape for kernel, _ in weights]
    if shapes != found:
        first = next((n for n, pair in enumerate(zip(shapes, found, strict=False)) if pair[0] != pair[1]), len(found))
        there = found[first] if first < len(found) else "none"
        described = _described(net.config, found)
        raise ConfigError(
            f"start: {graph} is of another network: it has {len(found)} convolutions, expected {len(shapes)}; "
            f"number {first + 1} is {there}, expected {shapes[first] if first < len(shapes) else 'none'}"
            + (f"; {how_to_have(described, net.config)}" if described is not None else "")
        )
    with torch.no_grad():
        for (layer, norm), (kernel, bias) in zip(layers, weights, strict=True):
            filters = torch.from_numpy(kernel)
            shift = layer.bias if norm is None else norm.bias
            assert shift is not None
            shift.copy_(torch.from_numpy(bias))
            if norm is not None:
                grown = _size(layer.weight) / _size(filters)
                filters = filters * grown[:, None, None, None]
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.zero_()
                norm.running_var.fill_(1.0)
                norm.weight.copy_((1.0 + norm.eps) ** 0.5 / grown)
            layer.weight.copy_(filters)


def _described(like: NetworkConfig, found: Sequence[tuple[int, ...]]) -> NetworkConfig | None:
    """The network of the kernels ``found``, if only widths after the encoder and ``refine`` are not as in ``like``."""
    for refine in (False, True):
        net = PanopticNet(replace(like, refine=refine))
        layers: list[nn.Module] = [layer for layer, _ in _convolutions(net)]
        if len(layers) != len(found):
            continue
        context = found[layers.index(net.up16[0])][1]
        head, decoder = found[layers.index(net.fuse8[0])][:2]
        if context < 2:  # a depthwise kernel is where ours never has one
            continue
        described = replace(net.config, context=context, decoder=decoder, head=head)
        if [tuple(layer.weight.shape) for layer, _ in _convolutions(PanopticNet(described))] == list(found):
            return described
    return None


def _size(filters: Tensor) -> Tensor:
    """(O,) length of every filter; 1 for one that is dead."""
    size = filters.flatten(1).norm(dim=1)
    return torch.where(size > 0, size, 1.0)


def _convolutions(net: PanopticNet) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """In the order they are computed in, which is that of the graph; each with the norm that was folded into it."""
    norms = {}
    for module in net.modules():
        if isinstance(module, nn.Sequential):
            norms.update({id(a): b for a, b in pairwise(module) if isinstance(b, nn.BatchNorm2d)})
    order: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_pre_hook(lambda layer, _: order.append(layer))  # type: ignore[arg-type,func-returns-value]
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    ]
    training = net.training
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, 64, 64))
    net.train(training)
    for hook in hooks:
        hook.remove()
    return [(layer, norms.get(id(layer))) for layer in order]


def _folded(graph: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """float32 kernel (O, I, h, w) and bias (O,) of every convolution of a graph, in its order."""
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("onnx", "starting from a model", pip_install(extra="train")) from error
    model = onnx.load(str(graph))
    tensors = {one.name: one for one in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv":
            parts = [tensors[name] for name in node.input[1:] if name in tensors]
            if len(parts) != 2:
                raise ConfigError(f"start: {graph}: convolution {node.name} has no constant kernel and bias")
            kernel, bias = (onnx.numpy_helper.to_array(part).astype(np.float32) for part in parts)
            found.append((kernel, bias))
    return found


@torch.no_grad()
def settle(net: PanopticNet, images: Iterable[Tensor]) -> None:
    """Give every norm the statistics of these images, float (N, 3, H, W) normalised, without changing what it does."""
    sums: dict[nn.BatchNorm2d, list[Tensor]] = {}

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.BatchNorm2d)
        values = given[0].float()
        sums.setdefault(module, []).append(
            torch.stack((values.mean(dim=(0, 2, 3)), values.square().mean(dim=(0, 2, 3))))
        )

    hooks = [m.register_forward_pre_hook(note) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    training = net.training
    net.eval()
    for batch in images:
        net(batch)
    net.train(training)
    for hook in hooks:
        hook.remove()
    for norm, moments in sums.items():
        mean, square = torch.stack(moments).mean(dim=0)
        variance = (square - mean.square()).clamp_min(0.0)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.add_(scale * (mean - norm.running_mean))
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
