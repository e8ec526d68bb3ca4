// SPDX-License-Identifier: MIT
#include <manage/modules.hpp>

namespace manage {

bool Modules::add(std::string_view string, std::span<u8 const> bytes) {
    return modules_.push_back({string.substr(0, string.find(' ')), bytes});
}

std::span<u8 const> const* Modules::find(std::string_view name) const {
    for (Module const& module : modules_)
        if (module.name == name) return &module.bytes;
    return nullptr;
}

Modules::Module const* Modules::description() const {
    for (Module const& module : modules_)
        if (module.name == "config" || module.name.ends_with(".toml")) return &module;
    return nullptr;
}

void Modules::list(lib::TextSink& sink) const {
    if (modules_.size() == 0) sink.write("none");
    std::string_view separator = "";
    for (Module const& module : modules_) {
        lib::format(sink, "{}{}", separator, module.name);
        separator = ", ";
    }
}

} // namespace manage
