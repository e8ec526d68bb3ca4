// SPDX-License-Identifier: MIT
// A hostile AHCI controller with two disks: it answers well until the input says otherwise. The driver must stay inside
// of the BAR and of its memory, do a bounded amount of work in each call, and end each command once. Of a controller
// that has told no lies, no command may end while the controller can still move its data.
#include "input.hpp"
#include "require.hpp"

#include <block/ahci.hpp>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace {

using block::Ahci;
using block::Controller;
using block::Ended;
using fuzz::require;
using lib::u16;
using lib::u32;
using lib::u64;
using lib::u8;

constexpr u64 shared_size = 512 * 1024, reserve = 128 * 1024, shared_at = 0x1000'0000, data_at = 0x8000'0000;
constexpr u32 ports = 2, bar_bytes = 0x100 + 32 * 0x80, most_accesses = 600;
// Registers of a port, and bits of PxCMD and PxTFD. [ahci/1.3.1] 3.3
constexpr u32 PxCLB = 0x00, PxIS = 0x10, PxCMD = 0x18, PxTFD = 0x20, PxSIG = 0x24, PxSSTS = 0x28, PxSCTL = 0x2c,
              PxSERR = 0x30, PxSACT = 0x34, PxCI = 0x38;
constexpr u32 ST = 1, FRE = 1 << 4, FR = 1 << 14, CR = 1 << 15;
constexpr u32 GHC_reset = 1, TFES = 1 << 30, normal_end = 0b1011;

struct Port {
    u32 registers[0x80 / 4] = {};
    bool sticks = false; // does not stop
    u32& at(u32 offset) { return registers[offset / 4]; }
    bool is_running() { return (at(PxCMD) & CR) != 0; }
};

class Device final : public block::Function {
public:
    fuzz::Input& input;
    Port port[ports];
    u32 capabilities = 0, control = 0, causes = 0, implemented = 3, accesses = 0;
    bool is_gone = false, lies = false, has_lied = false, never_resets = false, is_bus_master = false;
    u8 kind = 0;
    std::unique_ptr<u8, void (*)(void*)> memory{static_cast<u8*>(std::calloc(shared_size, 1)), std::free};

    explicit Device(fuzz::Input& bytes) : input(bytes) {
        kind = input.take<u8>();
        u32 const slots = (kind & 1) != 0 ? 31 : input.take<u8>() & 31U;
        capabilities = slots << 8 | ((kind & 2) != 0 ? 1U << 30 : 0) | ((kind & 4) != 0 ? 1U << 31 : 0);
        lies = (kind & 8) != 0;
        if ((kind & 16) != 0) implemented = input.take<u32>();
        std::memset(memory.get() + shared_size - reserve, 0xee, reserve);
        for (Port& each : port)
            reset(each);
    }

    u32 read(u32 bar, u32 offset, u32 width) override {
        check(bar, offset, width);
        if (is_gone) return ~0U;
        if (lies && !input.is_empty() && input.take<u8>() % 16 == 0) {
            has_lied = true;
            return input.take<u32>();
        }
        switch (offset) {
        case 0x00: return capabilities;
        case 0x04: return control;
        case 0x08: return causes;
        case 0x0c: return implemented;
        default: break;
        }
        if (offset < 0x100 || (offset - 0x100) / 0x80 >= ports) return 0;
        return port[(offset - 0x100) / 0x80].at((offset - 0x100) % 0x80);
    }
    void write(u32 bar, u32 offset, u32 width, u32 value) override {
        check(bar, offset, width);
        if (is_gone) return;
        if (offset == 0x04) return write_control(value);
        if (offset == 0x08) causes &= ~value;
        if (offset < 0x100 || (offset - 0x100) / 0x80 >= ports) return;
        write_port(port[(offset - 0x100) / 0x80], (offset - 0x100) % 0x80, value);
    }
    u64 bar_size(u32 bar) const override { return bar == 5 ? bar_bytes : 0; }
    u32 configuration(u32) override { return ~0U; }
    void set_bus_master(bool on) override { is_bus_master = on; }
    void log(std::string_view) override {}
    Shared shared() override { return {{memory.get(), shared_size}, shared_at}; }
    u64 ticks_per_millisecond() const override { return 1000; }

    // Ends what is in `slot`, if anything is. An IDENTIFY DEVICE gets data.
    void complete(Port& of, u32 slot, bool is_error) {
        u32 const bit = 1U << slot;
        if (((of.at(PxCI) | of.at(PxSACT)) & bit) == 0 || !of.is_running() || !is_bus_master) return;
        if (u8* const table = table_of(of, slot); table != nullptr && table[2] == 0xec) fill_identify(table);
        of.at(PxTFD) = is_error ? 0x4041 : 0x40;
        of.at(PxIS) |= is_error ? TFES : normal_end;
        if (!is_error) {
            of.at(PxCI) &= ~bit;
            of.at(PxSACT) &= ~bit;
        }
        causes |= 1U << (&of - port);
    }
    void complete_identify() { // which goes on at once: it is not what is tested
        for (Port& each : port)
            if (u8 const* table = table_of(each, 0); table != nullptr && table[2] == 0xec && (each.at(PxCI) & 1) != 0)
                complete(each, 0, false);
    }
    // Whether it may still move the data of the command whose first piece is at `address`.
    bool holds(u64 address) {
        if (!is_bus_master || is_gone) return false;
        for (Port& each : port)
            for (u32 slot = 0; each.is_running() && slot < 32; slot++)
                if (((each.at(PxCI) | each.at(PxSACT)) >> slot & 1) != 0)
                    if (u8 const* table = table_of(each, slot); table != nullptr && get<u64>(table + 0x80) == address)
                        return true;
        return false;
    }
    bool is_reserve_untouched() const {
        return std::all_of(memory.get() + shared_size - reserve, memory.get() + shared_size,
                           [](u8 byte) { return byte == 0xee; });
    }

private:
    template <typename T> static T get(u8 const* at) {
        T value;
        std::memcpy(&value, at, sizeof(T));
        return value;
    }
    void check(u32 bar, u32 offset, u32 width) {
        accesses++;
        require(bar == 5 && width == 4 && offset % 4 == 0 && offset + 4 <= bar_bytes);
    }
    u8* reach(u64 address, u64 size) {
        if (address < shared_at || address - shared_at > shared_size - size) return nullptr;
        return memory.get() + (address - shared_at);
    }
    u8* table_of(Port& of, u32 slot) {
        u8 const* const header = reach(of.at(PxCLB) + slot * u64{32}, 32);
        return header == nullptr ? nullptr : reach(get<u64>(header + 8), 0x90);
    }
    void reset(Port& of) {
        bool const stuck = of.sticks;
        of = {};
        of.sticks = stuck;
        of.at(PxTFD) = 0x50;
        of.at(PxSIG) = 0x101;
        of.at(PxSSTS) = 0x123;
    }
    void write_control(u32 value) {
        control = value;
        if ((value & GHC_reset) == 0) return;
        for (Port& each : port)
            reset(each);
        causes = 0;
        control = never_resets ? GHC_reset : 0;
    }
    void write_port(Port& of, u32 offset, u32 value) {
        switch (offset) {
        case PxIS:
        case PxSERR: of.at(offset) &= ~value; break;
        case PxCMD:
            of.at(PxCMD) = (value & ~(CR | FR)) | ((value & ST) != 0 || of.sticks ? CR : 0) | (value & FRE ? FR : 0);
            if (!of.is_running()) of.at(PxCI) = of.at(PxSACT) = 0;
            break;
        case PxSCTL:
            if ((of.at(PxSCTL) & 0xf) == 1 && (value & 0xf) == 0) of.at(PxTFD) = 0x50;
            of.at(PxSCTL) = value;
            break;
        case PxSACT:
        case PxCI: of.at(offset) |= (of.at(PxCMD) & ST) != 0 ? value : 0; break;
        case PxTFD:
        case PxSIG:
        case PxSSTS: break;
        default: of.at(offset) = value; break;
        }
    }
    // Mostly a plain disk; words come from the input where `kind` says so. [ata/8-acs] 7.16
    void fill_identify(u8* table) {
        u16 words[256] = {};
        words[49] = 3 << 8;
        words[75] = input.take<u8>() & 31;
        words[76] = 1 << 8;
        words[83] = words[86] = 1 << 14 | 1 << 13 | 1 << 10;
        words[85] = 1 << 5;
        words[101] = 0x10;
        for (u32 count = (kind & 32) != 0 ? input.take<u8>() % 8 : 0; count != 0; count--) {
            u8 const word = input.take<u8>();
            words[word] = input.take<u16>();
        }
        u8* const data = reach(get<u64>(table + 0x80), sizeof(words));
        if (data != nullptr) std::memcpy(data, words, sizeof(words));
    }
};

class Player {
public:
    explicit Player(fuzz::Input& input) : input_(input), device_(input) {
        driver_.emplace(device_);
        poll();
    }
    void play() {
        for (u32 i = 0; i < 8 && driver_->state() == Controller::State::Starting; i++)
            start();
        for (u32 step = 0; step < 400 && !input_.is_empty(); step++)
            act(input_.take<u8>());
        finish();
    }

private:
    void start() {
        wait();
        device_.complete_identify();
    }
    void act(u8 action) {
        Port& port = device_.port[action >> 7];
        switch (action % 14) {
        case 0: start(); break;
        case 1: now_ += input_.take<u16>() * u64{1000}; break;
        case 2:
        case 3:
        case 4: submit(); break;
        case 5: driver_->ring(); break;
        case 6:
        case 7: device_.complete(port, input_.take<u8>() & 31, false); break;
        case 8: device_.complete(port, input_.take<u8>() & 31, true); break;
        case 9: scribble(); break;
        case 10:
            port.at((input_.take<u8>() & 31) * 4) ^= input_.take<u32>();
            device_.has_lied = true;
            break;
        case 11: device_.causes ^= input_.take<u32>(); break;
        case 12: port.at(PxIS) |= input_.take<u32>(); break;
        default: change(port, input_.take<u8>()); break;
        }
        poll();
    }
    void change(Port& port, u8 what) {
        switch (what % 4) {
        case 0: device_.is_gone = !device_.is_gone; break;
        case 1: device_.never_resets = !device_.never_resets; break;
        case 2: port.sticks = !port.sticks; break;
        default: device_.lies = !device_.lies; break;
        }
    }
    void scribble() {
        u64 const at = input_.take<u32>() % (shared_size - reserve - 8);
        u64 const value = input_.take<u64>();
        std::memcpy(device_.memory.get() + at, &value, sizeof(value));
        device_.has_lied = true;
    }
    void submit() {
        if (driver_->disks().empty()) return;
        block::Limits const limits = driver_->limits();
        require(limits.depth != 0 && limits.most_pieces != 0 && limits.most_bytes >= 4096);
        auto const disk = static_cast<u32>(input_.take<u8>() % driver_->disks().size());
        block::DiskFacts const& facts = driver_->disks()[disk];
        require(facts.sectors != 0 && facts.sector_size >= 512 && facts.sector_size <= 4096);
        std::vector<block::Piece> pieces(input_.take<u8>() % limits.most_pieces + 1);
        for (block::Piece& piece : pieces)
            piece = {data_at + next_tag_ * u64{4096}, 4096};
        u64 const size = pieces.size() * u64{4096};
        if (size > limits.most_bytes || size / facts.sector_size > facts.sectors) return;
        auto const operation = static_cast<block::Operation>(input_.take<u8>() % 3);
        u64 const sector = input_.take<u16>() % (facts.sectors - size / facts.sector_size + 1);
        if (driver_->submit({operation, disk, next_tag_, sector, pieces}, now_)) under_way_[next_tag_++] = operation;
    }
    void poll() {
        Ended ended[3];
        for (u32 turns = 0;; turns++) {
            require(turns < 300);
            device_.accesses = 0;
            u32 const count = driver_->poll(now_, ended);
            require(count <= 3 && device_.accesses < most_accesses);
            for (u32 i = 0; i < count; i++) {
                auto const found = under_way_.find(ended[i].tag);
                require(found != under_way_.end());
                bool const has_data = found->second != block::Operation::Flush;
                require(device_.has_lied || !has_data || !device_.holds(data_at + ended[i].tag * u64{4096}));
                under_way_.erase(found);
            }
            if (driver_->deadline() > now_ || (count == 0 && turns >= 2)) break;
        }
    }
    void wait() {
        if (driver_->deadline() != Controller::never) now_ = std::max(now_ + 1, driver_->deadline());
        poll();
    }
    // Whatever the controller does, all that is under way ends.
    void finish() {
        driver_->ring();
        for (u32 turns = 0; !under_way_.empty(); turns++) {
            require(turns < 300'000 && driver_->deadline() != Controller::never);
            wait();
        }
        if (driver_->state() == Controller::State::Failed)
            require(!device_.is_bus_master && !driver_->failure().empty());
        require(device_.is_reserve_untouched());
    }

    fuzz::Input& input_;
    Device device_;
    std::optional<Ahci> driver_;
    std::map<u32, block::Operation> under_way_;
    u32 next_tag_ = 0;
    u64 now_ = 1;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    fuzz::Input input({data, size});
    Player(input).play();
    return 0;
}
