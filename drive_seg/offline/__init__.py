"""Files instead of topics: the same pipeline from video, images or bag to images, video or bag.

Reading order: ``sources`` (where frames come from: ``images``, ``video``, ``bags``), ``sinks`` (where results go:
``sinks`` itself, ``bag_writer``), ``runner`` (every frame from one to the other), ``summary`` (what a run reports).
``passage`` (messages that are only copied) and ``salvage`` (damaged bags) help the bags.

Evaluation: ``evaluation`` (what it says), ``label_map`` (which classes count as which), ``truth`` (ground truth:
``truth_files``, ``truth_sets``, ``truth_bags``; ``known_ids`` refuses what is of another format) and ``predictions``,
``metrics`` (mergeable counts), ``scoring`` (one frame), ``evaluate`` (all of them), ``report`` (the page), ``compare``
(two evaluations); ``chunks`` and ``cluster`` (many bags, over many processes).
"""
