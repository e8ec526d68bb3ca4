// SPDX-License-Identifier: MIT
// A hostile virtio disk of the machine: registers, rings and answers are the input's bytes. The driver must stay inside
// of the BAR and of its memory, end each poll, and end each command once.
#include "input.hpp"
#include "require.hpp"

#include <block/virtio_fake.hpp>
#include <optional>

namespace {

using fuzz::require;
using namespace virtio_test;
using block::Controller;
using block::Virtio;

class HostileDisk final : public VirtioFake {
public:
    fuzz::Input* input = nullptr;
    bool lies = false;
    u32 accesses = 0;

    u32 read(u32 bar, u32 offset, u32 width) override {
        check(bar, offset, width);
        u32 const answer = VirtioFake::read(bar, offset, width);
        if (!lies || input->is_empty() || input->take<u8>() % 8 != 0) return answer;
        return input->take<u32>() & (width == 4 ? ~u32{0} : (u32{1} << 8 * width) - 1);
    }
    void write(u32 bar, u32 offset, u32 width, u32 value) override {
        check(bar, offset, width);
        VirtioFake::write(bar, offset, width, value);
        complaints.clear(); // what a driver does that was lied to is not judged
    }
    void set_bus_master(bool on) override { is_bus_master = on; }

private:
    void check(u32 bar, u32 offset, u32 width) {
        accesses++;
        require(width == 1 || width == 2 || width == 4);
        require(offset % width == 0 && u64{offset} + width <= bar_size(bar));
    }
};

class Player {
public:
    explicit Player(fuzz::Input& input) : input_(input) {
        device_.input = &input;
        prepare();
        driver_.emplace(device_);
    }
    void play() {
        for (u32 step = 0; step < 400 && !input_.is_empty(); step++) {
            act(input_.take<u8>());
            device_.complaints.clear();
        }
        finish();
    }

private:
    void prepare() {
        u8 const kind = input_.take<u8>();
        device_.features = VERSION_1 | (kind & 1 ? INDIRECT : 0) | (kind & 2 ? FLUSH : 0) | (kind & 4 ? SEG_MAX : 0) |
                           (kind & 8 ? SIZE_MAX_FEATURE : 0) | BLK_SIZE;
        device_.size_max = input_.take<u16>();
        device_.seg_max = input_.take<u8>();
        device_.most_queue = input_.take<u16>();
        device_.describe();
        device_.lies = (kind & 16) != 0;
        for (u32 count = kind & 32 ? input_.take<u8>() % 8 : 0; count != 0; count--) {
            u32 const at = input_.take<u8>();
            device_.space[at] = input_.take<u8>();
        }
    }
    void act(u8 action) {
        switch (action % 12) {
        case 0: advance(1); break;
        case 1: advance(input_.take<u16>()); break;
        case 2:
        case 3: submit(); break;
        case 4: driver_->ring(); break;
        case 5: device_.holds = !device_.holds; break;
        case 6:
            if (!device_.pending.empty()) device_.complete(input_.take<u8>() % device_.pending.size());
            break;
        case 7:
            if (device_.used_address() != 0) device_.push_used(input_.take<u16>(), input_.take<u32>());
            break;
        case 8:
            if (device_.used_address() != 0) device_.set_used_index(input_.take<u16>());
            break;
        case 9: scribble(); break;
        case 10: device_.status ^= input_.take<u8>(); break;
        default: change(input_.take<u8>()); break;
        }
        poll();
    }
    void change(u8 what) {
        switch (what % 5) {
        case 0: device_.is_gone = !device_.is_gone; break;
        case 1: device_.never_resets = !device_.never_resets; break;
        case 2: device_.reset_reads = input_.take<u8>(); break;
        case 3: device_.lies = !device_.lies; break;
        default: device_.capacity = input_.take<u64>(); break;
        }
    }
    void scribble() {
        u64 const at = input_.take<u32>() % (VirtioFake::shared_size - VirtioFake::reserve - 8);
        u64 const value = input_.take<u64>();
        std::memcpy(device_.shared_memory.data() + at, &value, sizeof(value));
    }
    void submit() {
        if (driver_->disks().empty()) return;
        block::Limits const limits = driver_->limits();
        require(limits.depth != 0 && limits.most_pieces != 0 && limits.most_bytes >= 4096);
        std::vector<block::Piece> pieces;
        u32 const count = input_.take<u8>() % limits.most_pieces + 1;
        u32 const size = limits.most_bytes / count & ~511U;
        for (u32 i = 0; i < count && size != 0; i++)
            pieces.push_back({VirtioFake::ram_address + i, size});
        auto const operation = static_cast<block::Operation>(input_.take<u8>() % 3);
        if (driver_->submit({operation, 0, next_tag_, input_.take<u16>(), pieces}, now_))
            under_way_[next_tag_++] = true;
        require(under_way_.size() <= limits.depth);
    }
    void poll() {
        Ended ended[3];
        for (u32 turns = 0;; turns++) {
            require(turns < 1000);
            device_.accesses = 0;
            u32 const count = driver_->poll(now_, ended);
            require(count <= 3 && device_.accesses < 1000);
            for (u32 i = 0; i < count; i++)
                require(under_way_.erase(ended[i].tag) == 1);
            if (driver_->deadline() != 0) break;
        }
    }
    void advance(u64 milliseconds) { now_ += milliseconds * 1000; }
    // Whatever the device does, all that is under way ends, and a driver that has failed lets go of memory.
    void finish() {
        device_.holds = true;
        for (u32 turns = 0; !under_way_.empty(); turns++) {
            require(turns < 3000 && driver_->deadline() != Controller::never);
            now_ = std::max(now_, driver_->deadline());
            poll();
        }
        if (driver_->state() == Controller::State::Failed)
            require(!device_.is_bus_master && !driver_->failure().empty());
        require(device_.is_reserve_untouched());
    }

    fuzz::Input& input_;
    HostileDisk device_;
    std::optional<Virtio> driver_;
    std::map<u32, bool> under_way_;
    u32 next_tag_ = 0;
    u64 now_ = 0;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(u8 const* data, std::size_t size) {
    fuzz::Input input({data, size});
    Player(input).play();
    return 0;
}
