#!/usr/bin/env bash
# rosbags-image turns padded rows into a sheared picture, and returns the high byte alone of compressed 16-bit pictures.
#
# rosbags-image 0.10.4 (PyPI, Linux x86-64, Python 3.11, opencv-python-headless 4.12.0.88): `image_to_cvimage` does not
# read `step`. A sensor_msgs/Image whose rows are padded, which the message allows and cameras with aligned rows send,
# comes out with each row shifted by the padding of those above it. `compressed_image_to_cvimage` decodes a 16-bit PNG,
# as compressed_image_transport makes it of mono16, to uint8: 1000 becomes 3.
#
# Seen on 2026-11-28; fails if one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    rosbags==0.11.9 rosbags-image==0.10.4 opencv-python-headless==4.12.0.88
"$folder/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np
from rosbags.image import compressed_image_to_cvimage, image_to_cvimage
from rosbags.typesys import Stores, get_typestore

types = get_typestore(Stores.ROS2_HUMBLE).types
time = types["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
header = types["std_msgs/msg/Header"](stamp=time, frame_id="")

# Three rows of four grey pixels, 1 to 4 in each, and four bytes of padding behind each row.
rows = np.tile(np.array([1, 2, 3, 4, 0, 0, 0, 0], np.uint8), 3)
padded = types["sensor_msgs/msg/Image"](
    header=header, height=3, width=4, encoding="mono8", is_bigendian=0, step=8, data=rows
)
found = image_to_cvimage(padded).tolist()
print("padded rows:", found)
assert found == [[1, 2, 3, 4], [0, 0, 0, 0], [1, 2, 3, 4]], "changed: padded rows"

deep = np.full((2, 2), 1000, np.uint16)
_, content = cv2.imencode(".png", deep)
assert (cv2.imdecode(content, cv2.IMREAD_UNCHANGED) == deep).all()  # the file holds 16 bits
packed = types["sensor_msgs/msg/CompressedImage"](
    header=header, format="mono16; png compressed mono16", data=content.ravel()
)
found16 = compressed_image_to_cvimage(packed)
print("compressed 16 bits:", found16.dtype, np.unique(found16).tolist())
assert found16.dtype == np.uint8 and np.unique(found16).tolist() == [3], "changed: compressed 16 bits"
PYTHON
