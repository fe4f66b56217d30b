"""Ask gar-serve about a box in a picture, with Python's standard library alone.

python ask.py http://127.0.0.1:8080 photo.jpg 50,95,136,190 'What is <Prompt0>?'
"""

import json
import os
import sys
from urllib.request import Request, urlopen


def post(url: str, body: bytes, kind: str) -> dict:
    headers = {"Content-Type": kind}
    if key := os.environ.get("GAR_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    with urlopen(Request(url, body, headers), timeout=120) as reply:
        return json.load(reply)


def main(server: str, picture: str, box: str, question: str) -> None:
    with open(picture, "rb") as file:
        scene = post(f"{server}/v1/scenes", file.read(), "image/png" if picture.endswith(".png") else "image/jpeg")
    regions = [{"box": [int(side) for side in box.split(",")]}]
    asked = json.dumps({"question": question, "regions": regions, "logprobs": 0}).encode()
    answer = post(f"{server}/v1/scenes/{scene['id']}/ask", asked, "application/json")["answers"][0]
    print(answer["text"], answer["confidence"]["lowest"])


if __name__ == "__main__":
    main(*sys.argv[1:])
