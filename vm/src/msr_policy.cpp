// SPDX-License-Identifier: MIT
#include <vm/msr_table.hpp>

namespace vm {

using msr::index_of;

MsrFacts msr_facts_of(CpuidPolicy const& cpuid) {
    MsrFacts facts;
    facts.vendor = cpuid.vendor();
    facts.tsc_deadline = cpuid.has_tsc_deadline();
    facts.tsc_aux = cpuid.has_tsc_aux();
    facts.xsaves = cpuid.has_xsaves();
    facts.rules = cpuid.rules();
    return facts;
}

MsrPolicy::MsrPolicy(MsrFacts const& facts, MsrHooks& hooks) : hooks_(&hooks), facts_(facts) {
    unsigned has = facts.vendor == CpuVendor::Intel ? msr_need::Intel : msr_need::Amd;
    if (facts.tsc_deadline) has |= msr_need::TscDeadline;
    if (facts.tsc_aux) has |= msr_need::TscAux;
    if (facts.xsaves) has |= msr_need::Xsaves;
    has_ = static_cast<u8>(has);
    de_cfg_ = facts.lfence_serialising ? bit(1) : 0;
    reset();
}

void MsrPolicy::reset() {
    state_ = {};
    for (MsrRule const& rule : msr::rules)
        if (rule.read == MsrRead::Stored && rule.count == 1) slot_of(rule, rule.index) = rule.reset;
}

void MsrPolicy::set_firmware_mtrrs(u64 hole_base) {
    constexpr u64 write_back = 6, each_byte = 0x0101'0101'0101'0101;
    constexpr u64 four_gib = u64{4} << 30;
    for (unsigned i = 0; i < 11; ++i) // 640K of memory, video memory uncached, ROM
        state_.slots[msr::at(MsrSlot::MtrrFixed, i)] = i == 2 ? 0 : each_byte * write_back;
    state_[MsrSlot::MtrrDefType] = bit(11) | bit(10) | write_back;
    u64 const size = four_gib - hole_base;
    if (hole_base >= four_gib || (size & (size - 1)) != 0) return;
    state_.slots[msr::at(MsrSlot::MtrrVariable, 0)] = hole_base;
    state_.slots[msr::at(MsrSlot::MtrrVariable, 1)] =
        (~(size - 1) & ~reserved_physical_bits(facts_.rules.physical_bits)) | bit(11);
}

MsrRule const* MsrPolicy::find(u32 index) const {
    u32 const offset = index & 0xfff;
    u8 number = 0;
    if (index == offset) [[likely]] {
        number = index_of.low[offset];
    } else
        switch (index >> 12) {
        case 0xc'0000: number = offset < sizeof(index_of.syscall) ? index_of.syscall[offset] : u8{0}; break;
        case 0xc'0010: number = offset < sizeof(index_of.amd) ? index_of.amd[offset] : u8{0}; break;
        case 0xc'0011: number = offset < sizeof(index_of.amd_more) ? index_of.amd_more[offset] : u8{0}; break;
        default:
            if (index - msr::KVM_WALL_CLOCK_NEW >= sizeof(index_of.kvm)) return nullptr;
            number = index_of.kvm[index - msr::KVM_WALL_CLOCK_NEW];
        }
    if (number == 0) return nullptr;
    MsrRule const& rule = msr::rules[number];
    return has(rule) ? &rule : nullptr;
}

MsrResult MsrPolicy::read(u32 index, u64& value) {
    MsrRule const* const rule = find(index);
    if (rule == nullptr) {
        if (index - msr::IA32_X2APIC_FIRST < 0x100) return hooks_->read_x2apic(index, value);
        return MsrResult::GeneralProtection;
    }
    switch (rule->read) {
    case MsrRead::Stored: value = slot_of(*rule, index); return MsrResult::Done;
    case MsrRead::Constant: value = rule->reset; return MsrResult::Done;
    case MsrRead::Hardware:
        value = hooks_->read_hardware(static_cast<HardwareMsr>(rule->where));
        return MsrResult::Done;
    case MsrRead::Tsc: value = hooks_->guest_tsc(); return MsrResult::Done;
    case MsrRead::TscDeadline: value = hooks_->read_tsc_deadline(); return MsrResult::Done;
    case MsrRead::ApicBase: value = hooks_->read_apic_base(); return MsrResult::Done;
    case MsrRead::Microcode: // Intel keeps the revision in the upper half, AMD's PATCH_LEVEL in the lower
        value = static_cast<u64>(facts_.microcode_revision) << (facts_.vendor == CpuVendor::Intel ? 32 : 0);
        return MsrResult::Done;
    case MsrRead::DeCfg: value = de_cfg_; return MsrResult::Done;
    case MsrRead::Fault: break;
    }
    return MsrResult::GeneralProtection;
}

MsrResult MsrPolicy::write_rare(u32 index, u64 value) {
    MsrRule const* const rule = find(index);
    if (rule == nullptr) return MsrResult::GeneralProtection;
    auto done_if = [](bool valid) { return valid ? MsrResult::Done : MsrResult::GeneralProtection; };
    switch (rule->write) {
    case MsrWrite::TscAdjust: {
        u64& adjust = state_[MsrSlot::TscAdjust];
        u64 const delta = value - adjust;
        adjust = value;
        move_tsc(delta);
        return MsrResult::Done;
    }
    case MsrWrite::Tsc: { // TSC_ADJUST follows, so that a guest can see who moved the clock. [intel/vol3] 19.17.3
        u64 const delta = value - hooks_->guest_tsc();
        state_[MsrSlot::TscAdjust] += delta;
        move_tsc(delta);
        return MsrResult::Done;
    }
    case MsrWrite::TscDeadline: hooks_->write_tsc_deadline(value); return MsrResult::Done;
    case MsrWrite::ApicBase: return hooks_->write_apic_base(value);
    case MsrWrite::Ignored: return done_if(((value ^ rule->reset) & ~rule->writable) == 0);
    case MsrWrite::Constant: return done_if(value == rule->reset);
    case MsrWrite::Stored: return write_stored(slot_of(*rule, index), rule->writable, value);
    case MsrWrite::MtrrDefType:
        if ((value & ~rule->writable) != 0 || !is_valid_mtrr_type(value & 0xff)) return MsrResult::GeneralProtection;
        slot_of(*rule, index) = value;
        return MsrResult::Done;
    case MsrWrite::MtrrFixed:
        if (!are_valid_mtrr_types(value)) return MsrResult::GeneralProtection;
        slot_of(*rule, index) = value;
        return MsrResult::Done;
    case MsrWrite::MtrrVariable: return write_mtrr_variable(slot_of(*rule, index), (index & 1) != 0, value);
    case MsrWrite::Efer: return write_efer(value);
    case MsrWrite::Microcode: return done_if(facts_.vendor == CpuVendor::Intel); // the write that asks for the revision
    case MsrWrite::DeCfg: return done_if(value == de_cfg_);
    case MsrWrite::KvmWallClock:
    case MsrWrite::KvmSystemTime: return write_kvm_clock(*rule, slot_of(*rule, index), value);
    case MsrWrite::Pat:
    case MsrWrite::Canonical:
    case MsrWrite::Masked:
    case MsrWrite::TscAux:
    case MsrWrite::SysenterCs:
    case MsrWrite::Xss: return write_hardware(*rule, value);
    case MsrWrite::Fault: break;
    }
    return MsrResult::GeneralProtection;
}

MsrResult MsrPolicy::write_stored(u64& slot, u64 writable, u64 value) {
    if (((value ^ slot) & ~writable) != 0) return MsrResult::GeneralProtection;
    slot = value;
    return MsrResult::Done;
}

// KVM's clock tells the time from the TSC, so it must know of each move.
void MsrPolicy::move_tsc(u64 delta) {
    if (delta == 0) return;
    hooks_->shift_tsc(delta);
    u64 const clock = state_[MsrSlot::KvmSystemTime];
    if ((clock & 1) != 0) hooks_->publish_time(clock & ~u64{1}, tsc_adjust());
}

MsrResult MsrPolicy::write_kvm_clock(MsrRule const& rule, u64& slot, u64 value) {
    if ((value & ~rule.writable) != 0) return MsrResult::GeneralProtection;
    slot = value;
    if (rule.write == MsrWrite::KvmWallClock)
        hooks_->publish_wall_clock(value);
    else if ((value & 1) != 0)
        hooks_->publish_time(value & ~u64{1}, tsc_adjust());
    return MsrResult::Done;
}

MsrResult MsrPolicy::write_mtrr_variable(u64& slot, bool is_mask, u64 value) {
    u64 const reserved = reserved_physical_bits(facts_.rules.physical_bits) | (is_mask ? u64{0x7ff} : u64{0xf00});
    if ((value & reserved) != 0) return MsrResult::GeneralProtection;
    if (!is_mask && !is_valid_mtrr_type(value & 0xff)) return MsrResult::GeneralProtection;
    slot = value;
    return MsrResult::Done;
}

MsrResult MsrPolicy::write_efer(u64 value) {
    u64 const old_value = hooks_->read_hardware(HardwareMsr::Efer);
    if (!is_valid_efer_write(old_value, value, hooks_->cr0(), facts_.rules)) return MsrResult::GeneralProtection;
    hooks_->write_hardware(HardwareMsr::Efer, effective_efer(old_value, value));
    return MsrResult::Done;
}

MsrResult MsrPolicy::write_hardware(MsrRule const& rule, u64 value) {
    bool valid = true;
    if (rule.write == MsrWrite::Pat) valid = is_valid_pat(value);
    if (rule.write == MsrWrite::Canonical) valid = is_canonical(value);
    if (rule.write == MsrWrite::Masked) valid = (value & ~rule.writable) == 0;
    if (rule.write == MsrWrite::Xss) valid = (value & ~facts_.rules.xss) == 0;
    if (rule.write == MsrWrite::TscAux) { // AMD ignores the upper half, Intel refuses it
        valid = facts_.vendor == CpuVendor::Amd || (value & ~rule.writable) == 0;
        value &= rule.writable;
    }
    if (rule.write == MsrWrite::SysenterCs) value &= rule.writable;
    if (!valid) return MsrResult::GeneralProtection;
    hooks_->write_hardware(static_cast<HardwareMsr>(rule.where), value);
    return MsrResult::Done;
}

} // namespace vm
