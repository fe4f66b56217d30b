#!/usr/bin/env bash
# ONNX Runtime refuses a valid model with 8-bit floats, for an operator that it put there itself.
#
# Transpose -> QuantizeLinear to FLOAT8E4M3FN -> DequantizeLinear -> MatMul at opset 20 is valid: ONNX's checker says so, and
# with its optimisations off ONNX Runtime loads it. With them on (the default), onnxruntime 1.24.1 and 1.31.1 (PyPI, x86-64
# Linux, Python 3.11) move the Transpose between the two and fail to load the model: INVALID_GRAPH, "Type
# 'tensor(float8e4m3fn)' of input parameter (x_q_to_dq) of operator (Transpose) ... is invalid". At opset 21, whose Transpose
# takes that type, they load it. 1.32.0 loads both.
#
# Seen on 2026-11-29; fails if one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export ORT_DISABLE_TELEMETRY=1
cat > "$folder/load.py" <<'PYTHON'
import sys
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

opset, level = int(sys.argv[1]), sys.argv[2]
nodes = [
    helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0]),
    helper.make_node("QuantizeLinear", ["t", "s", "z"], ["q"]),
    helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    helper.make_node("MatMul", ["d", "w"], ["y"]),
]
constants = [
    numpy_helper.from_array(np.array(0.01, np.float32), "s"),
    helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True),
    numpy_helper.from_array(np.ones((8, 3), np.float32), "w"),
]
x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 4])
y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])
graph = helper.make_graph(nodes, "g", [x], [y], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=opset - 11)
onnx.checker.check_model(model, full_check=True)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
try:
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    print("loads")
except Exception as error:
    print("refuses Transpose" if "(Transpose)" in str(error) and "float8e4m3fn" in str(error) else error)
PYTHON
check() { # VERSION OPSET LEVEL EXPECTED
    local found
    found=$("$folder/$1/bin/python" "$folder/load.py" "$2" "$3")
    if [ "$found" != "$4" ]; then echo "changed: $1, opset $2, $3: expected '$4', found '$found'"; exit 1; fi
    echo "$1, opset $2, $3: $found"
}
for version in 1.24.1 1.31.1 1.32.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "onnxruntime==$version" onnx==1.20.0
done
for version in 1.24.1 1.31.1; do
    check "$version" 20 ORT_DISABLE_ALL "loads"
    check "$version" 20 ORT_ENABLE_ALL "refuses Transpose"
    check "$version" 21 ORT_ENABLE_ALL "loads"
done
check 1.32.0 20 ORT_ENABLE_ALL "loads"
check 1.32.0 21 ORT_ENABLE_ALL "loads"
