// SPDX-License-Identifier: MIT
// MSRs go out and come back, by the allow-list.
#include <vm/msr_table.hpp>

namespace vm {
namespace {

consteval std::size_t count_of_saved() {
    std::size_t count = 0;
    for (MsrRule const& rule : msr::rules)
        if (rule.read == MsrRead::Stored || rule.read == MsrRead::Hardware) count += rule.count;
    return count;
}
static_assert(count_of_saved() <= SavedMsr::most);

} // namespace

bool MsrPolicy::is_saved(MsrRule const& rule) {
    if (rule.read == MsrRead::Stored) return true;
    if (rule.read != MsrRead::Hardware) return false;
    auto const which = static_cast<HardwareMsr>(rule.where);
    return which != HardwareMsr::Efer && which != HardwareMsr::FsBase && which != HardwareMsr::GsBase;
}

u32 MsrPolicy::save(std::array<SavedMsr, SavedMsr::most>& out) {
    u32 count = 0;
    for (MsrRule const& rule : msr::rules) {
        if (!is_saved(rule) || !has(rule)) continue;
        for (u32 i = 0; i < rule.count; i++) {
            SavedMsr& saved = out[count++];
            saved = {rule.index + i, 0, 0};
            static_cast<void>(read(saved.index, saved.value)); // its rule says that it can be read
        }
    }
    return count;
}

MsrResult MsrPolicy::restore(SavedMsr const& saved) {
    MsrRule const* const rule = find(saved.index);
    if (rule == nullptr || !is_saved(*rule) || saved.reserved != 0) return MsrResult::GeneralProtection;
    bool const is_clock = rule->write == MsrWrite::KvmWallClock || rule->write == MsrWrite::KvmSystemTime;
    if (!is_clock && rule->write != MsrWrite::TscAdjust) return write_rare(saved.index, saved.value);
    if ((saved.value & ~rule->writable) != 0) return MsrResult::GeneralProtection;
    slot_of(*rule, saved.index) = saved.value;
    return MsrResult::Done;
}

} // namespace vm
