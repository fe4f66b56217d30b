// `gar::RoiReplay` version 1 as a TensorRT plugin (IPluginV3: TensorRT 10.0 to 11), over the kernel beside it.
//
// Inputs: features [T,P,C] fp32, fp16 or bf16; grid [2] int64; boxes [R,4] fp32. Output: replayed [R,P,C].
// Attributes, as the ONNX node carries them: output_size (int32), sampling_ratio (int32, 2), spatial_scale (fp32).
// The library exports getCreators and setLoggerFinder, by which TensorRT finds the plugin, and links to no libnvinfer.
#include "roi_replay_kernel.h"

#include <NvInferRuntime.h>

#include <cstring>
#include <new>

namespace gar
{
namespace
{

using nvinfer1::AsciiChar;
using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;

constexpr char const* kName = "RoiReplay";
constexpr char const* kVersion = "1";
constexpr char const* kNamespace = "gar";
constexpr int32_t kInputs = 3;
constexpr int32_t kOk = 0;
constexpr int32_t kError = -1;

nvinfer1::ILoggerFinder* gLoggerFinder = nullptr;  // TensorRT's own hand-over, see setLoggerFinder

void logError(char const* message) noexcept
{
    nvinfer1::ILogger* logger = gLoggerFinder == nullptr ? nullptr : gLoggerFinder->findLogger();
    if (logger != nullptr)
    {
        logger->log(nvinfer1::ILogger::Severity::kERROR, message);
    }
}

// What the node's attributes say.
struct Attributes
{
    int32_t outputSize{0};
    int32_t samplingRatio{kSamples};
    float spatialScale{0.0F};

    bool valid() const noexcept
    {
        return outputSize > 0 && samplingRatio == kSamples && spatialScale > 0.0F;
    }
};

class RoiReplayPlugin final : public nvinfer1::IPluginV3,
                              public nvinfer1::IPluginV3OneCore,
                              public nvinfer1::IPluginV3OneBuild,
                              public nvinfer1::IPluginV3OneRuntime
{
public:
    explicit RoiReplayPlugin(Attributes const& attributes) noexcept
        : mAttributes(attributes)
    {
    }

    RoiReplayPlugin(RoiReplayPlugin const& other) noexcept
        : RoiReplayPlugin(other.mAttributes)
    {
    }

    RoiReplayPlugin& operator=(RoiReplayPlugin const&) = delete;

    // IPluginV3
    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override
    {
        switch (type)
        {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    nvinfer1::IPluginV3* clone() noexcept override
    {
        return new (std::nothrow) RoiReplayPlugin(*this);
    }

    // IPluginV3OneCore
    AsciiChar const* getPluginName() const noexcept override
    {
        return kName;
    }

    AsciiChar const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    AsciiChar const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

    // IPluginV3OneBuild
    int32_t getNbOutputs() const noexcept override
    {
        return 1;
    }

    int32_t configurePlugin(DynamicPluginTensorDesc const* in, int32_t inputs, DynamicPluginTensorDesc const*,
        int32_t outputs) noexcept override
    {
        if (inputs != kInputs || outputs != 1)
        {
            logError("gar::RoiReplay takes features, grid and boxes, and makes one output");
            return kError;
        }
        int64_t const tokens = in[0].desc.dims.nbDims == 3 ? in[0].desc.dims.d[1] : 0;
        if (tokens != static_cast<int64_t>(mAttributes.outputSize) * mAttributes.outputSize)
        {
            logError("gar::RoiReplay: features must be [tiles, output_size * output_size, channels]");
            return kError;
        }
        return kOk;
    }

    bool supportsFormatCombination(
        int32_t position, DynamicPluginTensorDesc const* inOut, int32_t inputs, int32_t outputs) noexcept override
    {
        if (inputs != kInputs || outputs != 1)
        {
            return false;
        }
        PluginTensorDesc const& desc = inOut[position].desc;
        if (desc.format != nvinfer1::TensorFormat::kLINEAR)
        {
            return false;
        }
        switch (position)
        {
        case 0:
            return desc.type == DataType::kFLOAT || desc.type == DataType::kHALF || desc.type == DataType::kBF16;
        case 1: return desc.type == DataType::kINT64;
        case 2: return desc.type == DataType::kFLOAT;
        default: return desc.type == inOut[0].desc.type;
        }
    }

    int32_t getOutputDataTypes(
        DataType* outputTypes, int32_t outputs, DataType const* inputTypes, int32_t inputs) const noexcept override
    {
        if (inputs != kInputs || outputs != 1)
        {
            return kError;
        }
        outputTypes[0] = inputTypes[0];
        return kOk;
    }

    int32_t getOutputShapes(DimsExprs const* inputs, int32_t count, DimsExprs const*, int32_t, DimsExprs* outputs,
        int32_t outputCount, nvinfer1::IExprBuilder&) noexcept override
    {
        if (count != kInputs || outputCount != 1 || inputs[0].nbDims != 3 || inputs[2].nbDims != 2)
        {
            logError("gar::RoiReplay: features must have 3 dimensions and boxes 2");
            return kError;
        }
        outputs[0].nbDims = 3;
        outputs[0].d[0] = inputs[2].d[0];
        outputs[0].d[1] = inputs[0].d[1];
        outputs[0].d[2] = inputs[0].d[2];
        return kOk;
    }

    // IPluginV3OneRuntime
    int32_t onShapeChange(PluginTensorDesc const*, int32_t, PluginTensorDesc const*, int32_t) noexcept override
    {
        return kOk;
    }

    int32_t enqueue(PluginTensorDesc const* inputDesc, PluginTensorDesc const*, void const* const* inputs,
        void* const* outputs, void*, cudaStream_t stream) noexcept override
    {
        ReplayShape shape{};
        shape.tiles = static_cast<int>(inputDesc[0].dims.d[0]);
        shape.side = mAttributes.outputSize;
        shape.channels = static_cast<int>(inputDesc[0].dims.d[2]);
        shape.scale = mAttributes.spatialScale;
        FeatureType type = FeatureType::kFloat32;
        if (inputDesc[0].type == DataType::kHALF)
        {
            type = FeatureType::kFloat16;
        }
        else if (inputDesc[0].type == DataType::kBF16)
        {
            type = FeatureType::kBfloat16;
        }
        cudaError_t const status = launchRoiReplay(type, inputs[0], static_cast<int64_t const*>(inputs[1]),
            static_cast<float const*>(inputs[2]), outputs[0], shape, static_cast<int>(inputDesc[2].dims.d[0]), stream);
        if (status != cudaSuccess)
        {
            logError("gar::RoiReplay: the kernel could not be launched");
            return kError;
        }
        return kOk;
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override
    {
        return clone();
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override
    {
        mFields[0] = PluginField{"output_size", &mAttributes.outputSize, PluginFieldType::kINT32, 1};
        mFields[1] = PluginField{"sampling_ratio", &mAttributes.samplingRatio, PluginFieldType::kINT32, 1};
        mFields[2] = PluginField{"spatial_scale", &mAttributes.spatialScale, PluginFieldType::kFLOAT32, 1};
        mCollection = PluginFieldCollection{3, mFields};
        return &mCollection;
    }

private:
    Attributes mAttributes;
    PluginField mFields[3]{};
    PluginFieldCollection mCollection{};
};

class RoiReplayCreator final : public nvinfer1::IPluginCreatorV3One
{
public:
    nvinfer1::IPluginV3* createPlugin(
        AsciiChar const*, PluginFieldCollection const* fields, nvinfer1::TensorRTPhase) noexcept override
    {
        Attributes attributes;
        for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i)
        {
            read(fields->fields[i], attributes);
        }
        if (!attributes.valid())
        {
            logError("gar::RoiReplay needs output_size > 0, sampling_ratio 2 and spatial_scale > 0");
            return nullptr;
        }
        return new (std::nothrow) RoiReplayPlugin(attributes);
    }

    PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &mCollection;
    }

    AsciiChar const* getPluginName() const noexcept override
    {
        return kName;
    }

    AsciiChar const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    AsciiChar const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

private:
    static void read(PluginField const& field, Attributes& attributes) noexcept
    {
        if (field.data == nullptr || field.length < 1)
        {
            return;
        }
        auto const is = [&field](char const* name) { return std::strcmp(field.name, name) == 0; };
        if (is("output_size") && field.type == PluginFieldType::kINT32)
        {
            std::memcpy(&attributes.outputSize, field.data, sizeof attributes.outputSize);
        }
        else if (is("sampling_ratio") && field.type == PluginFieldType::kINT32)
        {
            std::memcpy(&attributes.samplingRatio, field.data, sizeof attributes.samplingRatio);
        }
        else if (is("spatial_scale") && field.type == PluginFieldType::kFLOAT32)
        {
            std::memcpy(&attributes.spatialScale, field.data, sizeof attributes.spatialScale);
        }
    }

    PluginField mFields[3]{
        PluginField{"output_size", nullptr, PluginFieldType::kINT32, 1},
        PluginField{"sampling_ratio", nullptr, PluginFieldType::kINT32, 1},
        PluginField{"spatial_scale", nullptr, PluginFieldType::kFLOAT32, 1},
    };
    PluginFieldCollection mCollection{3, mFields};
};

}  // namespace
}  // namespace gar

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(nvinfer1::ILoggerFinder* finder)
{
    gar::gLoggerFinder = finder;
}

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count)
{
    static gar::RoiReplayCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}
