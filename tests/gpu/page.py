"""The figures of a GPU check as a page for docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LEAST_RATIO, MOST_HOST = 2.0, 0.25  # times PyTorch's speed; the host's share of the first token

Report = Mapping[str, Any]


def page(report: Report) -> str:
    """Markdown; a stage that failed says why in its place. A dry run's figures are marked as no measurements."""
    found, failed = report["stages"], report["failed"]
    machine = found.get("machine", {})
    versions = machine.get("versions", {}) | {"torch": machine.get("torch", "?")}
    title = machine.get("gpu", machine.get("processor", "unknown machine"))
    lines = [f"## On {title}", ""]
    if report["dry"]:
        lines += ["A dry run on the processor with gar-nano: the script works, and nothing here is a measurement.", ""]
    listed = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
    lines += [
        f"`make gpu-check`, {report['date']}, {report['seconds']:.0f} s; {listed}.",
        "",
        "| | | |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {value} | {verdict} |" for what, value, verdict in _rows(found, report["dry"])]
    lines += [f"| {name} | failed | {why} |" for name, why in failed.items()]
    return "\n".join(lines) + "\n"


def missed(report: Report) -> list[str]:
    """The targets that were measured and not reached."""
    return [what for what, _, verdict in _rows(report["stages"], report["dry"]) if verdict.startswith("missed")]


def _rows(found: Report, dry: bool) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    for name, one in found.get("replay", {}).items():
        if name == "distance":
            rows.append(
                ("replay, portable body", f"{one:.1e} from torch", _verdict(one <= 1e-5, "1e-5 at most", False))
            )
        else:
            value = f"{one['kernel']:.1f} µs, {one['times_the_copy']:.2f} times a copy; torch {one['unfused']:.1f} µs"
            rows.append((f"replay kernel, {name}", value, f"{one['distance']:.1e} from torch"))
    for name, one in found.get("cutter", {}).items():
        rows.append((f"tiles on the host, {name} in {one['tiles']}", f"{one['host_ms']:.1f} ms", ""))
        if "cut_ms" in one:
            value = (
                f"{one['cut_ms']:.2f} ms and {one['take_ms']:.2f} to take the picture; kernels {one['kernels_ms']:.2f}"
            )
            floor = f"{one['kernels_ms'] / one['copy_ms']:.2f} times a copy"
            apart = f"{one['different']} of {one['pixels']} values differ"
            rows.append(
                (
                    f"tiles on the GPU, {name}",
                    f"{value}, {floor}",
                    _verdict(one["most"] <= 1, "a level at most", dry, apart),
                )
            )
    if nano := found.get("nano"):
        exact = nano["same"] == nano["answers"]
        rows.append(("gar-nano, fp16", f"{nano['same']} of {nano['answers']} the same", _verdict(exact, "all", dry)))
    torch = found.get("pytorch")
    if torch:
        rows.append(("PyTorch, first token", f"{torch['first_token_ms']:.1f} ms", ""))
        rows.append(("PyTorch, decode", f"{torch['decode_tokens_per_s']:.1f} tokens/s", ""))
    for name in ("fp16", "int4"):
        if one := found.get(name):
            rows += _answers(name, one, torch, dry)
    if one := found.get("tensorrt"):
        rows += _tensorrt(one, dry)
    return rows


def _tensorrt(one: Report, dry: bool) -> list[tuple[str, str, str]]:
    if "skipped" in one:
        return [("gar-nano, TensorRT", "skipped", one["skipped"])]
    built = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in one["build_seconds"].items())
    exact = one["same"] == one["answers"]
    about = f"{one['tiles']} tiles, {one['prompt_tokens']} tokens of prompt"
    return [
        ("gar-nano, TensorRT, build", built, one["title"]),
        ("gar-nano, TensorRT", f"{one['same']} of {one['answers']} the same", _verdict(exact, "all", dry)),
        (f"gar-nano, TensorRT, first token ({about})", f"{one['first_token_ms']:.1f} ms", ""),
        ("gar-nano, TensorRT, decode", f"{one['decode_tokens_per_s']:.1f} tokens/s", ""),
    ]


def _answers(name: str, one: Report, torch: Report | None, dry: bool) -> list[tuple[str, str, str]]:
    first = rate = ""
    if torch:
        faster = torch["first_token_ms"] / one["first_token_ms"]
        longer = one["decode_tokens_per_s"] / torch["decode_tokens_per_s"]
        first = _verdict(faster >= LEAST_RATIO, f"{LEAST_RATIO:g} times PyTorch's", dry, f"{faster:.2f}x")
        rate = _verdict(longer >= LEAST_RATIO, f"{LEAST_RATIO:g} times PyTorch's", dry, f"{longer:.2f}x")
    share = one["host_share"]
    about = f"{one['tiles']} tiles, {one['prompt_tokens']} tokens of prompt"
    return [
        (f"{name}, first token ({about})", f"{one['first_token_ms']:.1f} ms", first),
        (f"{name}, decode of {one['new_tokens']}", f"{one['decode_tokens_per_s']:.1f} tokens/s", rate),
        (f"{name}, host's share", f"{100 * share:.0f} %", _verdict(share <= MOST_HOST, "25 % at most", dry)),
    ]


def _verdict(ok: bool, target: str, dry: bool, value: str = "") -> str:
    """Nothing is judged in a dry run."""
    judged = f"not judged ({target})" if dry else f"{'reached' if ok else 'missed'}: {target}"
    return f"{value} {judged}".strip() if not value or dry else f"{judged}, {value}"
