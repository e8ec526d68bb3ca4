// SPDX-License-Identifier: MIT
#pragma once
// After a refused VMRUN: which rule of [amd/vol2] 15.5.1 the VMCB breaks, and the VMCB in words.
#include <lib/format.hpp>
#include <span>
#include <string_view>
#include <svm/vmcb.hpp>

namespace svm {

// Fills `rules` with the violated ones; how many.
std::size_t violated_rules(Vmcb const& vmcb, std::span<std::string_view> rules);
void print_vmcb(Vmcb const& vmcb, lib::TextSink& sink);

} // namespace svm
