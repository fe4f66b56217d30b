// Loads the plugin library as TensorRT does and walks through its interfaces; no GPU, no libnvinfer.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

#define CHECK(condition)                                                                                               \
    do                                                                                                                 \
    {                                                                                                                  \
        if (!(condition))                                                                                              \
        {                                                                                                              \
            std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                              \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (false)

using namespace nvinfer1;

namespace
{

DynamicPluginTensorDesc tensor(DataType type, int dims, int64_t middle = 0)
{
    DynamicPluginTensorDesc desc{};
    desc.desc.type = type;
    desc.desc.format = TensorFormat::kLINEAR;
    desc.desc.dims.nbDims = dims;
    desc.desc.dims.d[1] = middle;
    return desc;
}

}  // namespace

int main(int, char** argv)
{
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library != nullptr);
    using GetCreators = IPluginCreatorInterface* const* (*) (int32_t&);
    auto const getCreators = reinterpret_cast<GetCreators>(dlsym(library, "getCreators"));
    CHECK(getCreators != nullptr);
    CHECK(dlsym(library, "setLoggerFinder") != nullptr);

    int32_t count = 0;
    auto* creator = static_cast<IPluginCreatorV3One*>(getCreators(count)[0]);
    CHECK(count == 1);
    CHECK(std::strcmp(creator->getPluginName(), "RoiReplay") == 0);
    CHECK(std::strcmp(creator->getPluginNamespace(), "gar") == 0);
    CHECK(std::strcmp(creator->getPluginVersion(), "1") == 0);
    CHECK(creator->getFieldNames()->nbFields == 3);

    int32_t const side = 16;
    int32_t const samples = 2;
    int32_t const wrongSamples = 4;
    float const scale = 1.0F / 28;
    PluginField fields[3] = {
        {"output_size", &side, PluginFieldType::kINT32, 1},
        {"sampling_ratio", &samples, PluginFieldType::kINT32, 1},
        {"spatial_scale", &scale, PluginFieldType::kFLOAT32, 1},
    };
    PluginFieldCollection collection{3, fields};
    PluginFieldCollection const none{0, nullptr};
    CHECK(creator->createPlugin("x", &none, TensorRTPhase::kBUILD) == nullptr);
    fields[1].data = &wrongSamples;
    CHECK(creator->createPlugin("x", &collection, TensorRTPhase::kBUILD) == nullptr);
    fields[1].data = &samples;
    IPluginV3* first = creator->createPlugin("x", &collection, TensorRTPhase::kBUILD);
    CHECK(first != nullptr);

    // What it serialises makes the same plugin again, as at the deserialisation of an engine.
    auto* runtime = static_cast<IPluginV3OneRuntime*>(first->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    IPluginV3* again = creator->createPlugin("x", runtime->getFieldsToSerialize(), TensorRTPhase::kRUNTIME);
    CHECK(again != nullptr);
    IPluginV3* copy = again->clone();
    delete again;
    auto* copied = static_cast<IPluginV3OneRuntime*>(copy->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
    PluginFieldCollection const* kept = copied->getFieldsToSerialize();
    CHECK(kept->nbFields == 3);
    CHECK(*static_cast<int32_t const*>(kept->fields[0].data) == side);
    CHECK(*static_cast<float const*>(kept->fields[2].data) == scale);

    auto* build = static_cast<IPluginV3OneBuild*>(copy->getCapabilityInterface(PluginCapabilityType::kBUILD));
    CHECK(build->getNbOutputs() == 1);
    DataType const inputs[3] = {DataType::kHALF, DataType::kINT64, DataType::kFLOAT};
    DataType output = DataType::kINT8;
    CHECK(build->getOutputDataTypes(&output, 1, inputs, 3) == 0);
    CHECK(output == DataType::kHALF);
    DynamicPluginTensorDesc all[4] = {tensor(DataType::kHALF, 3, side * side), tensor(DataType::kINT64, 1),
        tensor(DataType::kFLOAT, 2), tensor(DataType::kHALF, 3)};
    for (int position = 0; position < 4; ++position)
    {
        CHECK(build->supportsFormatCombination(position, all, 3, 1));
    }
    CHECK(build->configurePlugin(all, 3, &all[3], 1) == 0);
    all[3].desc.type = DataType::kFLOAT;
    CHECK(!build->supportsFormatCombination(3, all, 3, 1));
    all[0].desc.type = DataType::kINT8;
    CHECK(!build->supportsFormatCombination(0, all, 3, 1));
    all[1].desc.type = DataType::kINT32;
    CHECK(!build->supportsFormatCombination(1, all, 3, 1));
    all[0].desc.dims.d[1] = side;
    CHECK(build->configurePlugin(all, 3, &all[3], 1) != 0);
    CHECK(build->getWorkspaceSize(all, 3, &all[3], 1) == 0);
    delete first;
    delete copy;
    std::puts("plugin walked");
    return 0;
}
