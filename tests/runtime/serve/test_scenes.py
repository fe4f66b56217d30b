"""Our own API: open pictures and what is asked about them, against the model itself."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.serving import EXAMPLES, Running, data_url, mask, serving
from PIL import Image

from gar_edge.runtime import Box, Gar, Options, Points, Scene
from gar_edge.runtime.serve.api_errors import ApiError
from gar_edge.runtime.serve.limits import Limits
from gar_edge.runtime.serve.scenes import SceneStore

COLOUR = "What colour is <Prompt0>?"
BOX = [{"box": [5, 5, 60, 60]}]
LARGER = "Is <Prompt0> larger or smaller than <Prompt1>?"


@pytest.fixture(scope="module")
def key(server: Running) -> str:
    return server.open()


def test_a_scene_tells_what_it_is(server: Running, scene: Scene) -> None:
    reply = server.post("/v1/scenes", {"image": data_url(EXAMPLES / "scene_1.png"), "max_tiles": 2})
    height, width = scene.image.shape[:2]
    assert reply.status == 201
    assert (reply.json["width"], reply.json["height"]) == (width, height)
    assert reply.json["tiles"] <= 3
    assert server.ask("GET", f"/v1/scenes/{reply.json['id']}").json == reply.json


def test_a_question_and_a_batch(server: Running, key: str, scene: Scene, masks: dict[int, Path]) -> None:
    regions = {"0": mask("scene_1", 0), "1": mask("scene_1", 1)}
    one = server.post(f"/v1/scenes/{key}/ask", {"question": LARGER, "regions": regions}).json["answers"]
    direct = scene.ask(LARGER, {0: masks[0], 1: masks[1]})
    assert [(answer["text"], answer["tokens"]) for answer in one] == [(direct.text, list(direct.tokens))]
    questions = [{"question": COLOUR, "regions": [mask("scene_1", number)]} for number in range(5)]
    many = server.post(f"/v1/scenes/{key}/ask", {"questions": questions}).json["answers"]
    assert [answer["index"] for answer in many] == list(range(5))
    assert [answer["tokens"] for answer in many] == [
        list(scene.ask(COLOUR, {0: masks[number]}).tokens) for number in range(5)
    ]
    with Image.open(masks[3]) as picture:
        rows, columns = np.nonzero(np.asarray(picture))
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert many[3]["boxes"] == {"0": extent}


def test_every_form_of_a_region(server: Running, key: str, scene: Scene, masks: dict[int, Path]) -> None:
    from pycocotools import mask as coco

    with Image.open(masks[0]) as picture:
        plane = np.asarray(picture.convert("L")) > 0
    runs = coco.encode(np.asfortranarray(plane.astype(np.uint8)))
    labels = BytesIO()
    Image.fromarray(plane.astype(np.uint8) * 7).save(labels, "PNG")
    strokes = BytesIO()
    colours = np.zeros((*plane.shape, 3), np.uint8)
    ys, xs = np.nonzero(plane)
    colours[ys[len(ys) // 2], xs[len(xs) // 2] - 1 : xs[len(xs) // 2] + 2] = (0, 255, 0)
    Image.fromarray(colours).save(strokes, "PNG")
    by_mask = scene.ask(COLOUR, {0: masks[0]}).text

    def asked(region: Any) -> str:
        reply = server.post(f"/v1/scenes/{key}/ask", {"question": COLOUR, "regions": [region]})
        assert reply.status == 200, reply.body
        return str(reply.json["answers"][0]["text"])

    assert asked({"size": runs["size"], "counts": runs["counts"].decode()}) == by_mask
    assert (
        asked({"mask": f"data:image/png;base64,{base64.b64encode(labels.getvalue()).decode()}", "label": 7}) == by_mask
    )
    assert asked({"box": [5, 5, 60, 60]}) == scene.ask(COLOUR, {0: Box(5, 5, 60, 60)}).text
    points = {"points": [[20, 20]], "not_points": [[70, 70]], "box": [5, 5, 60, 60]}
    assert asked(points) == scene.ask(COLOUR, {0: Points([(20, 20)], [(70, 70)], Box(5, 5, 60, 60))}).text
    scribble = {"scribble": f"data:image/png;base64,{base64.b64encode(strokes.getvalue()).decode()}"}
    assert asked(scribble)
    assert asked({"polygons": [[5, 5, 60, 5, 60, 60, 5, 60]]})
    assert asked({"box": [0.1, 0.1, 0.4, 0.5]}) == scene.ask(COLOUR, {0: Box(0.1, 0.1, 0.4, 0.5)}).text


def test_an_outline_shows_what_a_region_turned_out_to_be(server: Running, key: str) -> None:
    regions = {"0": {"box": [5, 5, 60, 60], "as_mask": True}, "3": mask("scene_1", 3)}
    told = server.post(f"/v1/scenes/{key}/outline", {"regions": regions}).json["regions"]
    assert told["0"]["box"] == [5, 5, 60, 60]
    assert told["0"]["area"] == 55 * 55
    with Image.open(BytesIO(base64.b64decode(told["3"]["mask"].partition(",")[2]))) as back:
        found = np.asarray(back.convert("L"))
    with Image.open(EXAMPLES / "scene_1_mask_3.png") as picture:
        assert np.array_equal(found == 255, np.asarray(picture.convert("L")) > 0)


def test_regions_are_described_each_for_itself(server: Running, key: str, scene: Scene, masks: dict[int, Path]) -> None:
    reply = server.post(f"/v1/scenes/{key}/describe", {"regions": [mask("scene_1", number) for number in range(5)]})
    direct = scene.describe_all([masks[number] for number in range(5)])
    assert [answer["tokens"] for answer in reply.json["answers"]] == [list(answer.tokens) for answer in direct]


def test_events_of_a_stream(server: Running, key: str, scene: Scene, masks: dict[int, Path]) -> None:
    reply = server.post(
        f"/v1/scenes/{key}/describe", {"regions": [mask("scene_1", 0), mask("scene_1", 1)], "stream": True}
    )
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.events
    for number in range(2):
        said = "".join(data["text"] for name, data in events if name == "text" and data["index"] == number)
        (answer,) = (data for name, data in events if name == "answer" and data["index"] == number)
        assert said == answer["text"] == scene.describe(masks[number]).text
        assert answer["timings_ms"]["total"] > 0
        assert answer["reuse"]["tokens_prefilled"] + answer["reuse"]["tokens_reused"] == answer["prompt_tokens"]
    assert events[-1] == ("end", {})


def test_a_choice(server: Running, key: str, scene: Scene, masks: dict[int, Path]) -> None:
    direct = scene.choose(COLOUR, {0: masks[0]}, ["red", "cyan", "pink"])
    body = {"question": COLOUR, "regions": [mask("scene_1", 0)], "choices": ["red", "cyan", "pink"]}
    (told,) = server.post(f"/v1/scenes/{key}/choose", body).json["answers"]
    assert told["value"] == direct.best
    assert {one["text"]: one["probability"] for one in told["choices"]} == pytest.approx(direct.probabilities, abs=1e-3)
    body |= {"choices": ["red", "green"], "abstain_below": 1.0}
    (doubtful,) = server.post(f"/v1/scenes/{key}/choose", body).json["answers"]
    assert (doubtful["value"], doubtful["text"]) == (None, "")


def test_a_conversation(server: Running, key: str, scene: Scene, masks: dict[int, Path]) -> None:
    chat = scene.chat({0: masks[0]})
    first, second = chat.ask(COLOUR), chat.ask("What shape is <Prompt0>?")
    body = {"regions": [mask("scene_1", 0)], "question": COLOUR}
    (one,) = server.post(f"/v1/scenes/{key}/chat", body).json["answers"]
    body = {
        "regions": [mask("scene_1", 0)],
        "turns": [{"question": COLOUR, "answer": one["text"]}],
        "question": "What shape is <Prompt0>?",
    }
    (two,) = server.post(f"/v1/scenes/{key}/chat", body).json["answers"]
    assert [one["tokens"], two["tokens"]] == [list(first.tokens), list(second.tokens)]
    assert two["reuse"]["tokens_reused"] >= first.prompt_tokens - 1


def test_a_conversation_may_begin_with_a_description(server: Running, key: str) -> None:
    turns = [{"question": None, "answer": "A cyan moon."}]
    body = {"regions": {"1": mask("scene_1", 0)}, "turns": turns, "question": "What shape is <Prompt1>?"}
    assert server.post(f"/v1/scenes/{key}/chat", body).status == 200
    body["turns"] = [*turns, {"question": None, "answer": "A moon."}]
    assert "first turn" in server.post(f"/v1/scenes/{key}/chat", body).error["message"]


def test_options_and_a_structure(server: Running, key: str, scene: Scene, masks: dict[int, Path]) -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "cyan"]}}, "required": ["colour"]}
    body = {"question": COLOUR, "regions": [mask("scene_1", 0)], "schema": schema, "logprobs": 2}
    (told,) = server.post(f"/v1/scenes/{key}/ask", body).json["answers"]
    direct = scene.ask(COLOUR, {0: masks[0]}, options=Options(schema=schema, logprobs=2))
    assert told["value"] == direct.value
    assert direct.confidence is not None
    assert told["confidence"]["lowest"] == pytest.approx(direct.confidence.lowest, abs=1e-4)


def test_warnings_reach_the_request_that_they_are_about(server: Running, key: str) -> None:
    half = BytesIO()
    with Image.open(EXAMPLES / "scene_1_mask_0.png") as picture:
        picture.convert("L").resize((picture.width * 2, picture.height * 2)).save(half, "PNG")
    region = {"mask": f"data:image/png;base64,{base64.b64encode(half.getvalue()).decode()}"}
    body = {"question": COLOUR, "regions": [region], "max_new_tokens": 1}
    reply = server.post(f"/v1/scenes/{key}/ask", body)
    assert any("resized" in text for text in reply.json["warnings"]), reply.json
    streamed = server.post(f"/v1/scenes/{key}/ask", body | {"stream": True})
    assert streamed.events[0][0] == "warning"
    plain = server.post(f"/v1/scenes/{key}/ask", {"question": COLOUR, "regions": [mask("scene_1", 0)]})
    assert plain.json["warnings"] == []


def test_a_photograph_is_turned_upright(server: Running, direct: Gar) -> None:
    picture = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(EXAMPLES / "scene_1.png") as drawn:
        size = drawn.size
        drawn.convert("RGB").save(picture, "JPEG", exif=exif, quality=95)
    reply = server.post("/v1/scenes", picture.getvalue(), {"Content-Type": "image/jpeg"})
    assert (reply.json["width"], reply.json["height"]) == size[::-1]


@pytest.mark.parametrize(
    ("path", "body", "status", "what"),
    [
        ("ask", {"regions": [{"box": [1, 1, 9, 9]}]}, 400, "question is missing"),
        ("ask", {"question": COLOUR}, 400, "no region"),
        ("ask", {"question": "", "regions": BOX}, 400, "empty"),
        ("ask", {"question": "x" * 5000, "regions": BOX}, 400, "5000 characters"),
        ("ask", {"question": COLOUR, "regions": [{"ball": 1}]}, 400, "regions[0]"),
        ("ask", {"question": COLOUR, "regions": 7}, 400, "regions"),
        ("ask", {"question": COLOUR, "regions": BOX, "questions": [{"question": "", "regions": []}]}, 400, "not both"),
        ("ask", {"question": COLOUR, "regions": BOX, "regex": "a", "grammar": "start: \"a\""}, 400, "one structure"),
        ("ask", {"question": COLOUR, "regions": BOX, "regex": "("}, 400, "regex"),
        ("ask", {"question": COLOUR, "regions": BOX, "top_p": 0}, 400, "top_p"),
        ("ask", {"question": "Say <|eot_id|> of <Prompt0>", "regions": BOX}, 400, "reserves"),
        ("ask", {"question": COLOUR, "regions": [{"size": [10**6, 10**6], "counts": [10**12]}]}, 400, "pixels"),
        ("describe", {"regions": []}, 400, "no region"),
        ("describe", {"regions": [{"box": [1, 1, 9, 9]}] * 65}, 400, "65"),
        ("choose", {"question": COLOUR, "regions": BOX, "choices": ["red"]}, 400, "choices"),
        ("choose", {"question": COLOUR, "regions": BOX, "choices": ["red", "red"]}, 400, "twice"),
        ("chat", {"regions": BOX, "question": "Where is <Prompt1>?"}, 400, "<Prompt1>"),
        ("nothing", {}, 404, "nothing at this path"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(server: Running, key: str, path: str, body: Any, status: int, what: str) -> None:
    reply = server.post(f"/v1/scenes/{key}/{path}", body)
    assert reply.status == status, reply.body
    assert what in f"{reply.error['param']}: {reply.error['message']}"


def test_what_is_no_picture(server: Running) -> None:
    png = {"Content-Type": "image/png"}
    assert server.post("/v1/scenes", b"", png).status == 400
    assert server.post("/v1/scenes", b"hello", png).error["param"] == "image"
    whole = (EXAMPLES / "scene_1.png").read_bytes()
    assert server.post("/v1/scenes", whole[: len(whole) // 2], png).status == 400
    assert server.post("/v1/scenes", whole, {"Content-Type": "text/plain"}).status == 415
    assert server.post("/v1/scenes", {"image": "/etc/passwd"}).status == 400
    assert server.post("/v1/scenes", {"picture": "?"}).status == 400
    gif = BytesIO()
    Image.new("RGB", (20, 20)).save(gif, "GIF")
    assert server.post("/v1/scenes", gif.getvalue(), {"Content-Type": "application/octet-stream"}).status == 400


def test_scenes_are_let_go_of() -> None:
    """By their number, after a time, and when told to."""
    with serving(limits={"scenes": 2, "scene_seconds": 1.5}) as server:
        first, second, third = (server.open() for _ in range(3))
        assert server.ask("GET", f"/v1/scenes/{first}").error["code"] == "scene_not_found"
        assert server.ask("GET", f"/v1/scenes/{second}").status == 200
        assert server.ask("DELETE", f"/v1/scenes/{third}").status == 204
        assert server.ask("DELETE", f"/v1/scenes/{third}").status == 404
        import time

        time.sleep(1.6)
        body = {"question": COLOUR, "regions": [mask("scene_1", 0)]}
        assert server.post(f"/v1/scenes/{second}/ask", body).error["code"] == "scene_not_found"
        metrics = server.ask("GET", "/metrics").body.decode()
        assert "gar_scenes 0.0" in metrics


def test_metrics_count_what_was_done() -> None:
    with serving() as server:
        key = server.open()
        body = {"question": COLOUR, "regions": [mask("scene_1", 0)]}
        told = [server.post(f"/v1/scenes/{key}/ask", body).json["answers"][0] for _ in range(3)]
        lines = dict(
            line.rsplit(" ", 1) for line in server.ask("GET", "/metrics").body.decode().splitlines() if line[0] != "#"
        )
        assert float(lines['gar_tokens_total{kind="generated"}']) == sum(len(one["tokens"]) for one in told)
        assert float(lines['gar_tokens_total{kind="reused"}']) == sum(one["reuse"]["tokens_reused"] for one in told)
        assert float(lines['gar_answers_total{finish_reason="stop"}']) == 3
        assert float(lines["gar_first_token_seconds_count"]) == 3
        assert float(lines['gar_requests_total{route="/v1/scenes/{key}/ask",status="200"}']) == 3
        assert float(lines["process_resident_memory_bytes"]) > 1 << 20


def test_the_log_has_a_line_a_request_and_no_texts() -> None:
    with serving() as server:
        key = server.open()
        body = {"question": COLOUR, "regions": [mask("scene_1", 0)]}
        reply = server.post(f"/v1/scenes/{key}/ask", body, {"X-Request-ID": "robot-7"})
        assert reply.headers["x-request-id"] == "robot-7"
        server.ask("GET", "/healthz")
        assert server.stop() == 0
        (line,) = (line for line in server.lines if line.get("request") == "robot-7")
        assert line["status"] == 200
        assert line["tokens"] == len(reply.json["answers"][0]["tokens"])
        assert line["first_token"] > 0
        written = json.dumps(server.lines)
        assert COLOUR not in written
        assert reply.json["answers"][0]["text"] not in written
        assert "base64" not in written
        assert not [line for line in server.lines if line.get("route") == "/healthz"]
    with serving(texts=True) as server:
        key = server.open()
        reply = server.post(f"/v1/scenes/{key}/ask", body)
        server.stop()
        line = next(line for line in server.lines if line.get("questions"))
        assert line["texts"] == [reply.json["answers"][0]["text"]]


def test_heads_old_versions_and_slashes(server: Running) -> None:
    """What load balancers and watchers send."""
    reply = server.ask("HEAD", "/healthz")
    assert (reply.status, reply.body) == (200, b"")
    with server.raw() as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b" 200 " in connection.recv(65536)[:20]
    reply = server.post("/v1/chat/completions/", {})
    assert (reply.status, "location" in reply.headers) == (404, False)


def test_going_before_others_must_be_allowed(server: Running, key: str) -> None:
    body = {"question": COLOUR, "regions": [mask("scene_1", 0)], "live": True}
    assert server.post(f"/v1/scenes/{key}/ask", body).error["param"] == "live"
    with serving(limits={"live": True}) as other:
        assert other.post(f"/v1/scenes/{other.open()}/ask", body).status == 200


def test_the_owner_with_the_most_scenes_gives_one_up(direct: Gar) -> None:
    """First those that nobody was promised, of requests that brought their picture along."""
    picture = [(EXAMPLES / f"scene_{number}.png").read_bytes() for number in (1, 2)]
    clock = [0.0]
    store = SceneStore(direct, Limits(scenes=4), clock=lambda: clock[0])

    def opened(owner: str) -> str:
        clock[0] += 1
        return store.open(picture[0], owner, max_tiles=1, warnings=[]).id

    quiet, first, brought = opened("quiet"), opened("busy"), store.of_content(picture[1], "busy", warnings=[]).id
    second, third = opened("busy"), opened("busy")
    assert store.counts()[0] == 4
    for key, owner in ((quiet, "quiet"), (first, "busy"), (second, "busy"), (third, "busy")):
        assert store.get(key, owner).id == key
    with pytest.raises(ApiError):
        store.get(brought, "busy")
    fourth = opened("busy")
    with pytest.raises(ApiError):
        store.get(first, "busy")
    assert store.get(quiet, "quiet").id == quiet
    assert store.get(fourth, "busy").id == fourth
    clock[0] += 601
    assert store.counts() == (0, 0)


def test_a_log_with_texts_has_the_question_that_was_asked() -> None:
    with serving(texts=True) as server:
        key = server.open()
        turns = [{"question": COLOUR, "answer": "pink"}]
        body = {"regions": [mask("scene_1", 0)], "turns": turns, "question": "What shape is <Prompt0>?"}
        server.post(f"/v1/scenes/{key}/chat", body)
        assert server.line(route="/v1/scenes/{key}/chat")["questions"] == ["What shape is <Prompt0>?"]
