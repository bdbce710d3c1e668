"""The baseline: a segmentation node as tutorials teach it. Correct, and everything happens in the callback."""

from __future__ import annotations

import argparse
import time

import cv2
import numpy as np
import onnxruntime
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Float64
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

from drive_seg.model import load_model
from drive_seg.resources import find_model

MIN_HEAT = 0.3


class TutorialNode(Node):
    """Subscribes ``/camera/image_raw``; publishes mask, panoptic, instances and its processing time."""

    def __init__(self, model: str) -> None:
        super().__init__("tutorial_node")
        self.model = load_model(find_model(model))
        self.session = onnxruntime.InferenceSession(str(self.model.graph("fp32")))
        self.mask_publisher = self.create_publisher(Image, "/segmentation/mask", 10)
        self.panoptic_publisher = self.create_publisher(Image, "/segmentation/panoptic", 10)
        self.instances_publisher = self.create_publisher(Detection2DArray, "/segmentation/instances", 10)
        self.time_publisher = self.create_publisher(Float64, "/tutorial_node/processing_time_ms", 10)
        self.create_subscription(Image, "/camera/image_raw", self.on_image, 10)

    def on_image(self, message: Image) -> None:
        started = time.perf_counter()
        image = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        if message.encoding == "bgr8":
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[assignment]
        resized = cv2.resize(image, (self.model.width, self.model.height))
        outputs = self.model.outputs
        names = [outputs.semantic, outputs.centers, outputs.offsets]
        semantic, centers, offsets = self.session.run(names, {self.model.input_name: resized[None]})
        panoptic = self.group(semantic[0], centers[0], offsets[0])
        size = (message.width, message.height)
        mask = cv2.resize(semantic[0], size, interpolation=cv2.INTER_NEAREST)
        panoptic = cv2.resize(panoptic, size, interpolation=cv2.INTER_NEAREST)
        self.mask_publisher.publish(self.to_message(message, mask, "mono8"))
        self.panoptic_publisher.publish(self.to_message(message, panoptic, "16UC1"))
        self.instances_publisher.publish(self.to_detections(message, panoptic))
        self.time_publisher.publish(Float64(data=(time.perf_counter() - started) * 1e3))

    def group(self, semantic: np.ndarray, centers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Every thing pixel goes to the centre that is nearest to where its offset points."""
        height, width = self.model.height, self.model.width
        semantic = cv2.resize(semantic, (width, height), interpolation=cv2.INTER_NEAREST)
        dy = cv2.resize(offsets[0], (width, height))
        dx = cv2.resize(offsets[1], (width, height))
        panoptic = semantic.astype(np.uint16)
        for channel, label in enumerate(self.model.labels.things):
            ys, xs = np.nonzero(semantic == label.id)
            if not len(ys):
                continue
            peak_ys, peak_xs = np.nonzero(centers[channel] > MIN_HEAT)
            if not len(peak_ys):
                panoptic[ys, xs] = label.id * 1000 + 1
                continue
            target = np.stack([ys + dy[ys, xs], xs + dx[ys, xs]], axis=1)
            peaks = np.stack([peak_ys, peak_xs], axis=1) * 4 + 1.5
            nearest = np.zeros(len(ys), np.int64)
            best = np.full(len(ys), np.inf)
            for number, peak in enumerate(peaks):
                distance = ((target - peak) ** 2).sum(axis=1)
                closer = distance < best
                best[closer] = distance[closer]
                nearest[closer] = number
            panoptic[ys, xs] = label.id * 1000 + 1 + nearest
        return panoptic

    def to_message(self, source: Image, array: np.ndarray, encoding: str) -> Image:
        message = Image()
        message.header = source.header
        message.height, message.width = array.shape
        message.encoding = encoding
        message.step = array.strides[0]
        message.data = array.tobytes()
        return message

    def to_detections(self, source: Image, panoptic: np.ndarray) -> Detection2DArray:
        message = Detection2DArray()
        message.header = source.header
        for value in np.unique(panoptic):
            if value < 1000:
                continue
            ys, xs = np.nonzero(panoptic == value)
            detection = Detection2D(id=str(value))
            detection.header = source.header
            detection.bbox.center.position.x = float(xs.min() + xs.max() + 1) / 2
            detection.bbox.center.position.y = float(ys.min() + ys.max() + 1) / 2
            detection.bbox.size_x = float(xs.max() - xs.min() + 1)
            detection.bbox.size_y = float(ys.max() - ys.min() + 1)
            result = ObjectHypothesisWithPose()
            result.hypothesis.class_id = self.model.labels[int(value) // 1000].name
            detection.results.append(result)
            message.detections.append(detection)
        return message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="default", help="path or name of a model sidecar")
    arguments = parser.parse_args()
    rclpy.init()
    node = TutorialNode(arguments.model)
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
