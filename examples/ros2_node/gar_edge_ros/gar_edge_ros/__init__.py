"""Describe detected regions in ROS 2."""
