"""``drive_seg benchmark --full``: the whole truth about a GPU, beside what others do with the same network.

``work`` counts what the network costs, ``sample`` is the usual TensorRT sample, ``cases`` measures, ``record`` keeps
it, ``table`` is its page. ``drive_seg.network.torch_speed`` runs in the Python that has torch.
"""
