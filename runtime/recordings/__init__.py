"""What robots record: images, detections and masks of ROS 1 and ROS 2 bags, and answers written back as messages."""
