// SPDX-License-Identifier: MIT
#include <lib/bits.hpp>
#include <vm/guest_operand.hpp>
#include <vm/task_switch.hpp>
#include <vm/vm.hpp>

namespace vm {
namespace {

using Source = TaskSwitch::Source;
template <typename T> using Expected = std::expected<T, Exception>;

constexpr u8 vector_db = 1, vector_df = 8, vector_ts = 10, vector_np = 11, vector_ss = 12, vector_gp = 13,
             vector_pf = 14;
constexpr u64 dr6_task_switch = lib::bit(15); // BT, [intel/vol3] 19.2.3
constexpr u64 dr7_local = 0x155;              // L0 to L3, LE
constexpr u64 flag_reserved = lib::bit(1), flag_nt = lib::bit(14), flag_rf = lib::bit(16), flag_vm = lib::bit(17);
constexpr u64 defined_flags = 0x3f'7fd5; // [intel/vol1] figure 3-8

// Where the state lies in a TSS: from `state` on, EIP, EFLAGS, eight general registers in the order of their numbers,
// segments in the order of SegmentName, LDTR, each `width` bytes wide. [intel/vol3] 8.2.1, 8.6
struct Layout {
    u32 limit; // the smallest that is valid
    u32 width, state, segments;
};
constexpr Layout layout_32{0x67, 4, 0x20, 6}, layout_16{0x2b, 2, 0x0e, 4};
constexpr u32 field_ip = 0, field_flags = 1, field_gprs = 2, field_segments = 10;
constexpr u32 offset_link = 0, offset_cr3 = 0x1c, offset_trap = 0x64;

// Types of segments and what the bits of the others mean. [intel/vol3] 3.4.5.1, 3.5
constexpr u16 type_mask = 0xf, present = 0x80, not_system = 0x10;
constexpr u16 type_ldt = 2, type_tss_16 = 1, type_tss_32 = 9, tss_busy = 2;
constexpr u16 accessed = 1, readable_code = 2, writable_data = 2, conforming = 4, code = 8;

u16 dpl_of(Segment const& segment) { return segment.attributes >> 5 & 3; }
u16 rpl_of(u16 selector) { return selector & 3; }
bool is_null(u16 selector) { return (selector & 0xfffc) == 0; }
bool is_code(Segment const& segment) { return (segment.attributes & (not_system | code)) == (not_system | code); }

constexpr Segment segment_from(u16 selector, u64 raw) {
    auto const low = static_cast<u32>(raw), high = static_cast<u32>(raw >> 32);
    auto const attributes = static_cast<u16>(high >> 8 & 0xf0ff);
    u32 const limit = (high & 0xf'0000) | (low & 0xffff);
    bool const is_in_pages = (attributes & 0x8000) != 0;
    return {selector, attributes, is_in_pages ? limit << 12 | 0xfff : limit,
            (high & 0xff00'0000) | (high & 0xff) << 16 | low >> 16};
}

constexpr WalkAccess system_read{.is_implicit = true}, system_write{.is_write = true, .is_implicit = true};
constexpr u32 descriptor_size = 8, descriptor_type = 5; // the byte of type, S, DPL and P

class TaskSwitcher {
public:
    TaskSwitcher(Vcpu& vcpu, TaskSwitch const& request, u8 length)
        : vcpu_(vcpu), request_(request), length_(length),
          is_nested_(request.source == Source::Call || request.source == Source::Gate),
          external_(request.source == Source::Gate && request.is_external ? 1 : 0) {}

    // The fault, in the old task before commit() has begun and in the new one afterwards.
    Expected<void> run() {
        auto prepared = check_new_task().and_then([&](GuestOperand const& descriptor) { return prepare(descriptor); });
        if (!prepared) return std::unexpected(prepared.error());
        save_old_task(*prepared);
        u16 const ldt = load_registers(*prepared);
        return load_ldt(ldt).and_then([&] { return load_segments(); }).and_then([&] { return push_error_code(); });
    }
    bool has_trap() const { return has_trap_; }

private:
    // What is written, all of it writable.
    struct Prepared {
        GuestOperand old_state, new_task, new_descriptor, old_descriptor;
        u32 cr3;
    };

    std::unexpected<Exception> fault(u8 vector, u32 selector) const {
        return std::unexpected(Exception{vector, true, (selector & 0xfffc) | external_, 0});
    }

    // The CPU has looked at the descriptor before it left the guest; another vCPU may have changed it since.
    // [intel/vol3] table 8-1
    Expected<GuestOperand> check_new_task() {
        u16 const selector = request_.selector;
        bool const is_return = request_.source == Source::Iret;
        u8 const wrong = is_return ? vector_ts : vector_gp;
        TablePointer const gdt = vcpu_.gdt();
        if ((selector & 4) != 0 || is_null(selector) || (selector | 7U) > gdt.limit) return fault(wrong, selector);
        u64 const linear = gdt.base + (selector & 0xfff8U);
        auto const descriptor =
            GuestOperand::find_linear(vcpu_, linear, descriptor_size, is_return ? system_read : system_write);
        if (!descriptor) return descriptor;
        task_ = segment_from(selector, descriptor->read(vcpu_, 8));
        u16 const type = task_.attributes & (type_mask | not_system);
        bool const is_busy = (type & tss_busy) != 0;
        if ((type & ~tss_busy) != type_tss_16 && (type & ~tss_busy) != type_tss_32) return fault(wrong, selector);
        if (is_busy != is_return) return fault(wrong, selector);
        if ((task_.attributes & present) == 0) return fault(vector_np, selector);
        new_layout_ = (type & 8) != 0 ? layout_32 : layout_16;
        if (task_.limit < new_layout_.limit) return fault(vector_ts, selector);
        return descriptor;
    }

    // All that can fault in the old task.
    Expected<Prepared> prepare(GuestOperand const& descriptor) {
        Segment const old = vcpu_.segment(SegmentName::Tr);
        bool const is_old_32 = (old.attributes & 8) != 0;
        old_layout_ = is_old_32 ? layout_32 : layout_16;
        old_selector_ = old.selector;
        u32 const old_end = old_layout_.state + (field_segments + old_layout_.segments) * old_layout_.width;
        if (old.limit < old_end - 1) return fault(vector_ts, old.selector);
        // The link is written where its page may be read-only for all else.
        auto const new_task = GuestOperand::find_linear(vcpu_, task_.base, new_layout_.limit + 1,
                                                        is_nested_ ? system_write : system_read);
        if (!new_task) return std::unexpected(new_task.error());
        auto const old_state =
            GuestOperand::find_linear(vcpu_, old.base + old_layout_.state, old_end - old_layout_.state, system_write);
        if (!old_state) return std::unexpected(old_state.error());
        Prepared prepared{*old_state, *new_task, descriptor, {}, 0};
        if (!is_nested_) {
            auto const at = GuestOperand::find_linear(vcpu_, vcpu_.gdt().base + (old.selector & 0xfff8U),
                                                      descriptor_size, system_write);
            if (!at) return std::unexpected(at.error());
            prepared.old_descriptor = *at;
        }
        if (loads_cr3()) {
            prepared.cr3 = static_cast<u32>(new_task->read(vcpu_, 4, offset_cr3));
            if (!has_valid_page_directory_pointers(prepared.cr3)) return fault(vector_gp, 0);
        }
        return prepared;
    }

    bool is_32() const { return new_layout_.width == 4; }
    bool loads_cr3() { return is_32() && (vcpu_.cr0() & cr0::PG) != 0; }

    bool has_valid_page_directory_pointers(u32 cr3) {
        if (paging_of(vcpu_.cr0(), vcpu_.cr4()) != Paging::Pae) return true;
        for (u32 i = 0; i < 4; i++) {
            u64 const entry = vcpu_.vm().ram().load_aligned<u64>(GuestPhys{(cr3 & ~u64{0x1f}) + u64{i} * 8});
            if (!is_valid_page_directory_pointer(entry, vcpu_.vm().cpuid().rules().physical_bits)) return false;
        }
        return true;
    }

    void save_old_task(Prepared const& prepared) {
        vcpu_.fetch_gprs();
        u32 const width = old_layout_.width;
        auto const save = [&](u32 field, u64 value) { prepared.old_state.write(vcpu_, width, value, field * width); };
        u64 flags = vcpu_.rflags();
        if (request_.source == Source::Iret) flags &= ~flag_nt;
        if (length_ != 0) flags &= ~flag_rf; // the instruction is complete; a fault's RF is the CPU's doing
        save(field_ip, vcpu_.rip() + length_);
        save(field_flags, flags);
        for (u32 i = 0; i < 8; i++)
            save(field_gprs + i, vcpu_.gprs()[i]);
        for (u32 i = 0; i < old_layout_.segments; i++)
            save(field_segments + i, vcpu_.segment(static_cast<SegmentName>(i)).selector);
        // Other vCPUs may use the same descriptors: their bits change one by one. [intel/vol3] 9.1.2.1
        if (is_nested_) prepared.new_task.write(vcpu_, 2, old_selector_, offset_link);
        if (!is_nested_) prepared.old_descriptor.clear_bits(descriptor_type, tss_busy);
        if (request_.source != Source::Iret) prepared.new_descriptor.set_bits(descriptor_type, tss_busy);
    }

    // From here on the new task runs, with segments that are not loaded yet. Returns its LDT's selector.
    u16 load_registers(Prepared const& prepared) {
        u32 const width = new_layout_.width;
        auto const load = [&](u32 field) {
            return prepared.new_task.read(vcpu_, width, new_layout_.state + field * width);
        };
        task_.attributes |= tss_busy;
        vcpu_.set_segment(SegmentName::Tr, task_);
        if (loads_cr3()) vcpu_.set_cr3(prepared.cr3);
        vcpu_.set_rip(load(field_ip));
        flags_ = (load(field_flags) & defined_flags) | flag_reserved | (is_nested_ ? flag_nt : 0);
        vcpu_.set_rflags(flags_);
        for (u32 i = 0; i < 8; i++) // the 80386's own choice for the upper halves
            vcpu_.gprs()[i] = load(field_gprs + i) | (is_32() ? 0 : 0xffff'0000);
        vcpu_.store_gprs();
        if (u64 const value = vcpu_.cr0(); (value & cr0::TS) == 0) vcpu_.set_cr0(value | cr0::TS);
        vcpu_.set_dr7(vcpu_.dr7() & ~dr7_local);
        for (u32 i = 0; i < new_layout_.segments; i++)
            selectors_[i] = static_cast<u16>(load(field_segments + i));
        set_unloaded_segments();
        has_trap_ = is_32() && (prepared.new_task.read(vcpu_, 2, offset_trap) & 1) != 0;
        return static_cast<u16>(load(field_segments + new_layout_.segments));
    }

    u16& selector(SegmentName name) { return selectors_[static_cast<unsigned>(name)]; }

    // What a fault meets that strikes before the segments are loaded: no memory to use, at the new task's privilege.
    // Segments of virtual-8086 mode need no descriptors.
    void set_unloaded_segments() {
        vcpu_.set_segment(SegmentName::Ldtr, {0, segment::unusable, 0, 0});
        if ((flags_ & flag_vm) != 0) return set_8086_segments();
        privilege_ = rpl_of(selector(SegmentName::Cs));
        auto const privilege = static_cast<u16>(privilege_ << 5);
        for (auto const name : {SegmentName::Es, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs, SegmentName::Ss})
            vcpu_.set_segment(name, {selector(name), static_cast<u16>(segment::unusable | privilege), 0, 0});
        auto const size = static_cast<u16>(is_32() ? segment::db_bit : 0);
        auto const attributes =
            static_cast<u16>(present | privilege | not_system | code | readable_code | accessed | size);
        vcpu_.set_segment(SegmentName::Cs, {selector(SegmentName::Cs), attributes, 0xffff, 0});
    }

    // [intel/vol3] 21.2.1
    void set_8086_segments() {
        constexpr u16 attributes = 0xf3;
        privilege_ = 3;
        for (auto const name :
             {SegmentName::Es, SegmentName::Cs, SegmentName::Ss, SegmentName::Ds, SegmentName::Fs, SegmentName::Gs})
            vcpu_.set_segment(name, {selector(name), attributes, 0xffff, u64{selector(name)} << 4});
    }

    // Where the descriptor of a selector that is not null lies.
    Expected<u64> locate(u16 selector) {
        u32 const last = selector | 7U;
        if ((selector & 4) == 0) {
            TablePointer const gdt = vcpu_.gdt();
            if (last > gdt.limit) return fault(vector_ts, selector);
            return gdt.base + (selector & 0xfff8U);
        }
        Segment const ldt = vcpu_.segment(SegmentName::Ldtr);
        if ((ldt.attributes & segment::unusable) != 0 || last > ldt.limit) return fault(vector_ts, selector);
        return ldt.base + (selector & 0xfff8U);
    }

    Expected<Segment> read_descriptor(u16 selector) {
        auto const linear = locate(selector);
        if (!linear) return std::unexpected(linear.error());
        auto const at = GuestOperand::find_linear(vcpu_, *linear, descriptor_size, system_read);
        if (!at) return std::unexpected(at.error());
        return segment_from(selector, at->read(vcpu_, 8));
    }

    // Its last check was passed: the descriptor gets its accessed bit and the register its content.
    Expected<void> load(SegmentName name, Segment segment) {
        if ((segment.attributes & accessed) == 0) {
            auto const linear = locate(segment.selector);
            if (!linear) return std::unexpected(linear.error());
            auto const at = GuestOperand::find_linear(vcpu_, *linear + descriptor_type, 1, system_write);
            if (!at) return std::unexpected(at.error());
            at->set_bits(0, accessed);
            segment.attributes |= accessed;
        }
        vcpu_.set_segment(name, segment);
        return {};
    }

    Expected<void> load_ldt(u16 selector) {
        if (is_null(selector)) {
            vcpu_.set_segment(SegmentName::Ldtr, {selector, segment::unusable, 0, 0});
            return {};
        }
        if ((selector & 4) != 0) return fault(vector_ts, selector);
        auto const ldt = read_descriptor(selector);
        if (!ldt) return std::unexpected(ldt.error());
        if ((ldt->attributes & (type_mask | not_system | present)) != (type_ldt | present))
            return fault(vector_ts, selector);
        vcpu_.set_segment(SegmentName::Ldtr, *ldt);
        return {};
    }

    Expected<void> load_segments() {
        if ((flags_ & flag_vm) != 0) return check_ip();
        if (auto const cs = load_code(); !cs) return cs;
        if (auto const ss = load_stack(); !ss) return ss;
        for (auto const name : {SegmentName::Ds, SegmentName::Es, SegmentName::Fs, SegmentName::Gs})
            if (auto const data = load_data(name); !data) return data;
        return check_ip();
    }

    Expected<void> check_ip() {
        if (vcpu_.rip() > vcpu_.segment(SegmentName::Cs).limit) return fault(vector_gp, 0);
        return {};
    }

    Expected<void> load_code() {
        u16 const cs = selector(SegmentName::Cs);
        if (is_null(cs)) return fault(vector_ts, cs);
        auto const segment = read_descriptor(cs);
        if (!segment) return std::unexpected(segment.error());
        if (!is_code(*segment)) return fault(vector_ts, cs);
        bool const is_conforming = (segment->attributes & conforming) != 0;
        if (is_conforming ? dpl_of(*segment) > rpl_of(cs) : dpl_of(*segment) != rpl_of(cs)) return fault(vector_ts, cs);
        if ((segment->attributes & present) == 0) return fault(vector_np, cs);
        return load(SegmentName::Cs, *segment);
    }

    Expected<void> load_stack() {
        u16 const ss = selector(SegmentName::Ss);
        if (is_null(ss)) return fault(vector_ts, ss);
        auto const segment = read_descriptor(ss);
        if (!segment) return std::unexpected(segment.error());
        bool const is_writable =
            (segment->attributes & (not_system | code | writable_data)) == (not_system | writable_data);
        if (!is_writable || rpl_of(ss) != privilege_ || dpl_of(*segment) != privilege_) return fault(vector_ts, ss);
        if ((segment->attributes & present) == 0) return fault(vector_ss, ss);
        return load(SegmentName::Ss, *segment);
    }

    // A 16-bit TSS has no FS and GS: they become null.
    Expected<void> load_data(SegmentName name) {
        u16 const which = selector(name);
        if (is_null(which)) return {};
        auto const segment = read_descriptor(which);
        if (!segment) return std::unexpected(segment.error());
        if ((segment->attributes & not_system) == 0) return fault(vector_ts, which);
        if (is_code(*segment) && (segment->attributes & readable_code) == 0) return fault(vector_ts, which);
        bool const is_for_all = is_code(*segment) && (segment->attributes & conforming) != 0;
        u16 const dpl = dpl_of(*segment);
        if (!is_for_all && (dpl < privilege_ || dpl < rpl_of(which))) return fault(vector_ts, which);
        if ((segment->attributes & present) == 0) return fault(vector_np, which);
        return load(name, *segment);
    }

    Expected<void> push_error_code() {
        if (request_.source != Source::Gate || !request_.has_error_code) return {};
        Segment const ss = vcpu_.segment(SegmentName::Ss);
        u32 const width = new_layout_.width;
        u64 const mask = (ss.attributes & segment::db_bit) != 0 ? 0xffff'ffff : 0xffff;
        u64& rsp = vcpu_.gpr(Gpr::Rsp);
        u64 const top = (rsp - width) & mask;
        auto const part = through_segment(vcpu_, SegmentName::Ss, top, width, true, CpuMode::Bits32);
        if (!part) return fault(vector_ss, 0);
        auto const at =
            GuestOperand::find_linear(vcpu_, part->linear, width, {.is_write = true, .is_user = privilege_ == 3});
        if (!at) return std::unexpected(at.error());
        at->write(vcpu_, width, request_.error_code);
        rsp = (rsp & ~mask) | top;
        vcpu_.store_gprs();
        return {};
    }

    Vcpu& vcpu_;
    TaskSwitch const& request_;
    u8 length_;
    bool is_nested_; // the new task returns to the old one by IRET
    u32 external_;   // EXT of error codes
    bool has_trap_ = false;
    Layout old_layout_{}, new_layout_{};
    u16 old_selector_ = 0;
    Segment task_{}; // the new TSS
    u64 flags_ = 0;
    std::array<u16, 6> selectors_{};
    u16 privilege_ = 0;
};

enum class ExceptionClass : u8 { Benign, Contributory, PageFault, DoubleFault };

ExceptionClass class_of(u8 vector) {
    switch (vector) {
    case 0:
    case vector_ts:
    case vector_np:
    case vector_ss:
    case vector_gp: return ExceptionClass::Contributory;
    case vector_pf: return ExceptionClass::PageFault;
    case vector_df: return ExceptionClass::DoubleFault;
    default: return ExceptionClass::Benign;
    }
}

} // namespace

std::optional<Exception> exception_during(u8 first, Exception const& second) {
    ExceptionClass const before = class_of(first), now = class_of(second.vector);
    if (before == ExceptionClass::Benign || now == ExceptionClass::Benign) return second;
    if (before == ExceptionClass::DoubleFault) return std::nullopt;
    if (before == ExceptionClass::Contributory && now == ExceptionClass::PageFault) return second;
    return Exception{vector_df, true, 0, 0};
}

TaskSwitchResult switch_task(Vcpu& vcpu, TaskSwitch const& request, u8 length) {
    TaskSwitcher switcher(vcpu, request, length);
    if (auto const done = switcher.run(); !done) {
        bool const is_during_exception = request.source == Source::Gate && request.is_exception;
        auto const exception =
            is_during_exception ? exception_during(request.vector, done.error()) : std::optional(done.error());
        if (!exception) return TaskSwitchResult::TripleFault;
        vcpu.raise(*exception);
        return TaskSwitchResult::Raised;
    }
    if (!switcher.has_trap()) return TaskSwitchResult::Done;
    vcpu.set_dr6(vcpu.dr6() | dr6_task_switch);
    vcpu.raise({vector_db, false, 0, 0});
    return TaskSwitchResult::Raised;
}

} // namespace vm
