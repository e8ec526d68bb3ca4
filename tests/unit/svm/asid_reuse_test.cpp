// SPDX-License-Identifier: MIT
// More guests than a CPU has ASIDs for them (16, less the host's), played against a model of its TLB: no guest ever
// meets what another has cached, nor what it has been told to forget. [amd/vol2] 15.16
#include "svm/machine.hpp"

#include <array>
#include <map>
#include <random>

namespace amd_machine {
namespace {

constexpr unsigned guests = 16, steps = 20'000;

// What the CPU may still know under an ASID: who filled it, and when that guest last had to forget.
struct Cached {
    unsigned guest;
    u64 forgotten;
    bool operator==(Cached const&) const = default;
};

class AsidReuse : public SvmMachine {
protected:
    explicit AsidReuse(u32 features = features_tcg) : SvmMachine(features, 16) {}
    void TearDown() override {
        for (auto& one : all_)
            if (one) one->vcpu(0).unload();
        all_ = {};
    }

    void start_all() {
        auto made = svm::Backend::create({});
        ASSERT_TRUE(made);
        backend = std::move(*made);
        ASSERT_TRUE(backend->enable_on_this_cpu());
        for (auto& one : all_) {
            auto created =
                vm::Vm::create({.name = "test", .memory = 4 * lib::MiB, .vcpu_count = 1}, *backend, platform);
            ASSERT_TRUE(created);
            one = std::move(*created);
            EXPECT_TRUE(one->ram().scrub(~u64{0}));
            one->start();
        }
        on_entry = [this] { enter(); };
    }

    svm::Vcpu& guest(unsigned index) { return static_cast<svm::Vcpu&>(all_[index]->vcpu(0)); }

    void enter() {
        auto& block = guest(current_).vmcb_for_tests();
        auto const& control = block.control;
        ASSERT_TRUE(control.asid >= 1 && control.asid <= 15) << control.asid;
        if (control.tlb_control == svm::TlbControl::FlushAll) {
            tlb_.clear();
            whole_flushes_++;
        }
        if (control.tlb_control == svm::TlbControl::FlushAsid) tlb_.erase(control.asid);
        Cached const mine{current_, forgotten_[current_]};
        auto const found = tlb_.find(control.asid);
        if (found != tlb_.end()) ASSERT_EQ(found->second, mine) << "stale translations under ASID " << control.asid;
        tlb_[control.asid] = mine;
        guest(current_).post(vm::request::leave);
        block.control.exit_code = exit_code::INTR;
    }

    void play() {
        start_all();
        std::mt19937 random(1);
        for (unsigned step = 0; step < steps && !HasFatalFailure(); step++) {
            current_ = random() % guests;
            if (random() % 4 == 0) {
                guest(current_).post(vm::request::flush_tlb);
                forgotten_[current_]++;
            }
            if (random() % 1000 == 0) { // a nested table lost something: everybody forgets
                svm::flush_everywhere();
                for (auto& count : forgotten_)
                    count++;
            }
            guest(current_).run();
        }
    }

    std::array<kernel::Own<vm::Vm>, guests> all_{};
    std::array<u64, guests> forgotten_{};
    std::map<u32, Cached> tlb_;
    unsigned current_ = 0;
    u64 whole_flushes_ = 0;
};

class AsidReuseByAsid : public AsidReuse {
protected:
    AsidReuseByAsid() : AsidReuse(features_zen2) {}
};

TEST_F(AsidReuse, NoGuestMeetsStaleTranslations) {
    play();
    EXPECT_LT(whole_flushes_, steps / 4) << "fifteen ASIDs serve several entries each";
}

TEST_F(AsidReuseByAsid, NoGuestMeetsStaleTranslationsWhereOneAsidCanBeFlushed) {
    play();
    EXPECT_GT(whole_flushes_, 0U);
}

} // namespace
} // namespace amd_machine
