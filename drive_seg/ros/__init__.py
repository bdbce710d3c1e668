"""The ROS 2 side: the lifecycle node, its messages, parameters, diagnostics and transports, and a camera to feed it.

The only place that knows rclpy. Read ``node`` (transitions), ``session`` (what lives from configure to cleanup),
``cameras`` (in), ``publishers`` (out), ``convert`` (messages) in this order.
"""
